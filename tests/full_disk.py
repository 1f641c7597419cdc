"""A disk that is full, where a file is about to be written."""

import contextlib
import pathlib
import resource

import pytest

FULL = pathlib.Path("/dev/full")

needs_full = pytest.mark.skipif(
    not FULL.exists(), reason="there is no /dev/full here"
)


def fill(path):
    """Make the next writing of this file by `harness.files` find no space.

    The file beside, which it writes to, becomes a link to a device that is
    always full: the error comes from the system.
    """
    path.with_name(f"{path.name}.unfinished").symlink_to(FULL)


@contextlib.contextmanager
def no_file_above(size):
    """Limit the size of the files of this process, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def unfinished(folder):
    """List what is left of files that were not completed."""
    return [p for p in folder.rglob("*") if "unfinished" in p.name]
