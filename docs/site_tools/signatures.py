"""Signatures with annotations and defaults as they stand in the source.

An alias such as `Groups` is then not written out, and `optax.Schedule` is not
named by its private module.
"""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from site_tools.reference import PACKAGE

# What Flax adds to the fields of a module.
_ADDED = {"parent", "name"}


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.connect("autodoc-process-signature", _on_signature)
    app.connect("autodoc-skip-member", _on_member)
    return {"parallel_read_safe": True}


def _on_signature(
    app: Any,
    what: str,
    name: str,
    item: Any,
    options: Any,
    arguments: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    del app, name, options
    if what == "class":
        return of_class(item), None
    if what in ("function", "method"):
        return of_function(item)
    return arguments, returned


def _on_member(
    app: Any, what: str, name: str, item: Any, skip: bool, options: Any
) -> bool | None:
    """Skip fields: `Attributes:` describes them."""
    del app, what, name, options
    # The default of a field may be a function of another project.
    is_method = isinstance(item, property) or (
        inspect.isroutine(item) and item.__module__.startswith(PACKAGE)
    )
    return None if is_method and not skip else True


def of_function(function: Any) -> tuple[str, str | None]:
    """Return the arguments of a function and its result, as in the source.

    Examples:
        >>> of_function(of_class)
        ('(cls: type)', 'str | None')
    """
    node = _parsed(inspect.unwrap(function))
    arguments = node.args
    if function.__qualname__ != function.__name__:
        arguments = _without_self(arguments)
    returned = None if node.returns is None else ast.unparse(node.returns)
    return f"({ast.unparse(arguments)})", returned


def of_class(cls: type) -> str | None:
    """Return the arguments that make an instance."""
    if inspect.isfunction(cls.__dict__.get("__init__")) and not (
        dataclasses.is_dataclass(cls) and cls.__dataclass_params__.init
    ):
        return of_function(cls.__init__)[0]
    texts = dict(_fields(cls))
    if dataclasses.is_dataclass(cls):
        fields = [
            field
            for field in dataclasses.fields(cls)
            if field.init and field.name not in _ADDED
        ]
        names = [field.name for field in fields if not field.kw_only]
        only = [field.name for field in fields if field.kw_only]
        names += ["*", *only] if only else []
    else:
        names = getattr(cls, "_fields", ())
    if not names:
        return None
    return f"({', '.join(texts.get(name, name) for name in names)})"


def _fields(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class and its bases, the own ones last."""
    for base in reversed(cls.__mro__):
        if base.__module__.startswith(PACKAGE):
            for node in _parsed(base).body:
                if isinstance(node, ast.AnnAssign):
                    yield ast.unparse(node.target), ast.unparse(node)


def _parsed(item: Any) -> Any:
    """Return the syntax of an item, with annotations that are no strings."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(item)))
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            value = getattr(node, name, None)
            if isinstance(value, ast.Constant) and value.value is not None:
                setattr(node, name, ast.parse(value.value, mode="eval").body)
    return tree.body[0]


def _without_self(arguments: ast.arguments) -> ast.arguments:
    first = (arguments.posonlyargs or arguments.args)[:1]
    if first and first[0].arg in ("self", "cls"):
        (arguments.posonlyargs or arguments.args).pop(0)
    return arguments
