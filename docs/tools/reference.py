"""Entries of the reference, from the names that modules export.

A line `::: MODULE.*` stands for all names of a module that `psi_optax` itself
does not export, and `::: psi_optax.* of ROOM` for those that it exports from
one room.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

_LINE = re.compile(r"^::: ([\w.]+)\.\*(?: of ([\w.]+))?$", re.MULTILINE)
_PACKAGE = "psi_optax"


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Return the text of a page with all entries."""
    del page, config
    return expanded(markdown)


def expanded(markdown: str) -> str:
    """Return a text with an entry for each name that a line stands for.

    Examples:
        >>> print(expanded("::: psi_optax.batch_stats.*"))
        ::: psi_optax.batch_stats.recalibrate
            options:
              heading_level: 3
        <BLANKLINE>
        ::: psi_optax.batch_stats.rescale
            options:
              heading_level: 3
    """
    return _LINE.sub(
        lambda match: "\n\n".join(_entries(*match.groups())), markdown
    )


def _entries(module: str, room: str | None) -> Iterator[str]:
    exported = set(definitions(_PACKAGE))
    for name in definitions(module):
        if room is not None and not f"{name}.".startswith(f"{room}."):
            continue
        if module == _PACKAGE or name not in exported:
            yield f"::: {name}\n    options:\n      heading_level: 3"


def definitions(module_name: str) -> Iterator[str]:
    """Yield where each function and class that a module exports is defined."""
    module = importlib.import_module(module_name)
    for name, item in vars(module).items():
        public = inspect.isfunction(item) or inspect.isclass(item)
        if name.startswith("_") or not public:
            continue
        # What a package imports it exports; a module exports its own alone.
        if hasattr(module, "__path__") or item.__module__ == module_name:
            yield f"{item.__module__}.{item.__qualname__}"
