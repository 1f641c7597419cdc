"""Other libraries, one file for those that are called alike.

Each module has `DISTRIBUTIONS`, the packages whose versions are recorded, and
`cases()`, which yields a file name and the arrays to freeze in it. What comes
from a clone has `SOURCES`, the files in it whose hashes are recorded.
"""
