"""A training program to read: any model on any data set, on any devices.

Begin with `run`, the program; `settings` is its command line, `__main__` its
exit statuses. `batches` is the input, `layout` the placement on devices,
`checkpoints` and `records` what is written, `processes` several processes.
"""
