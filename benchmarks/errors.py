"""Errors of what a program was given: one message, and no traceback."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

__all__ = ["InputError", "one_message"]


class InputError(ValueError):
    """A file or a name is not what it has to be; the message says which."""


@contextlib.contextmanager
def one_message() -> Iterator[None]:
    """Ends the program where files cannot be read or written, or are damaged.

    The error is shown without its traceback, and the exit status is 1; so is
    that of a process that was started. Other errors are faults of the program,
    and keep theirs.

    Raises:
        SystemExit: there was such an error.

    Examples:
        >>> try:
        ...     with one_message():
        ...         open("/no such file")
        ... except SystemExit as end:
        ...     print(end.code)
        1
    """
    try:
        yield
    except (OSError, InputError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
