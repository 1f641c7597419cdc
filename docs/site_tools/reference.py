"""Entries of the reference, from the names that modules export.

    ```{exports} MODULE
    :of: ROOM
    ```

describes all names of a module, or those that are defined in one room. Those
that `psi_optax` itself exports are described as its own alone.
"""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

PACKAGE = "psi_optax"


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.add_directive("exports", _Exports)
    return {"parallel_read_safe": True}


class _Exports(SphinxDirective):
    required_arguments = 1
    option_spec = {"of": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        names = entries(self.arguments[0], self.options.get("of"))
        lines = [f".. auto{kind}:: {name}" for name, kind in names.items()]
        text = "\n".join(["```{eval-rst}", *lines, "```"])
        return self.parse_text_to_nodes(text)


def entries(module_name: str, room: str | None = None) -> dict[str, str]:
    """Return the names that a directive describes, and the kind of each.

    Examples:
        >>> entries("psi_optax.batch_stats")
        {'psi_optax.batch_stats.recalibrate': 'function',
         'psi_optax.batch_stats.rescale': 'function'}
    """
    elsewhere = set()
    if module_name != PACKAGE:
        elsewhere = {item for _, item in exports(PACKAGE)}
    return {
        f"{module_name}.{name}": kind(item)
        for name, item in exports(module_name)
        if item not in elsewhere
        and (room is None or f"{item.__module__}.".startswith(f"{room}."))
    }


def exports(module_name: str) -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes that a module exports, with names."""
    module = importlib.import_module(module_name)
    for name, item in vars(module).items():
        public = inspect.isfunction(item) or inspect.isclass(item)
        if name.startswith("_") or not public:
            continue
        # What a package imports it exports; a module exports its own alone.
        if hasattr(module, "__path__") or item.__module__ == module_name:
            yield name, item


def kind(item: Any) -> str:
    """Return the suffix of the directive of autodoc."""
    return "class" if inspect.isclass(item) else "function"
