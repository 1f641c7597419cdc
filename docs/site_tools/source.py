"""Entries of the reference lead to their source in the repository."""

import importlib
import inspect
import operator
import pathlib
from collections.abc import Mapping

from site_tools.address import ROOT, in_repository


def resolve(domain: str, entry: Mapping[str, str]) -> str | None:
    """Return the address of the source that an entry describes.

    An entry by hand may name no module; it has no address.

    Args:
        domain: that of the entry, of Sphinx; "py" for all.
        entry: the name of a `module`, and a `fullname` in it.
    """
    del domain
    if not entry["module"]:
        return None
    module = importlib.import_module(entry["module"])
    item = operator.attrgetter(entry["fullname"])(module)
    item = inspect.unwrap(getattr(item, "fget", item))
    path = pathlib.Path(inspect.getfile(item)).relative_to(ROOT)
    lines, first = inspect.getsourcelines(item)
    last = first + len(lines) - 1
    return in_repository(f"{path.as_posix()}#L{first}-L{last}")
