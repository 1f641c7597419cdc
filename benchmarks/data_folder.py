"""The folder of data sets, which an environment variable names."""

import os
import pathlib

__all__ = ["VARIABLE", "given", "remark"]

VARIABLE = "PSI_OPTAX_DATA"


def given() -> pathlib.Path | None:
    """The folder that is named, if one is."""
    path = os.environ.get(VARIABLE)
    return pathlib.Path(path) if path else None


def remark() -> str:
    """What may be wrong with it, to be the end of a message.

    Examples:
        >>> remark().startswith("PSI_OPTAX_DATA ")
        True
    """
    folder = given()
    if folder is None:
        return f"{VARIABLE} is not set."
    what = "" if folder.is_dir() else ", which is no folder"
    return f"{VARIABLE} is {folder}{what}."
