"""Files that are written whole or not at all."""

from benchmarks.errors import InputError, one_message
from benchmarks.files import (
    make_folder,
    read_json,
    whole,
    write,
    write_array,
    write_figure,
)

__all__ = [
    "InputError",
    "make_folder",
    "one_message",
    "read_json",
    "whole",
    "write",
    "write_array",
    "write_figure",
]
