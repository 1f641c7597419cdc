"""A training program to read: any model on any data set, on any devices.

Begin with `run`, the program; `settings` is its command line, `batches` its
input, `layout` the placement on devices; `checkpoints` and `records` write, and
`__main__` is the command, in one process or several.
"""
