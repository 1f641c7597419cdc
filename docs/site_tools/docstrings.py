r"""Docstrings in Markdown with sections of Google's style.

Sphinx reads docstrings as reStructuredText. Here each becomes MyST, with the
field lists of Sphinx for the sections, inside of a directive that parses MyST.
In docstrings \(...\) is a formula within a line and \[...\] one by itself.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes, utils
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.util.docutils import SphinxDirective

# Sections of named items: those with a field of Sphinx for each, and the rest.
_FIELDS = {"Args": "param", "Raises": "raises"}
_LISTS = ("Attributes", "Warns")
_TEXTS = ("Examples", "References")
_TITLES = "|".join([*_FIELDS, *_LISTS, *_TEXTS, "Returns"])
_SECTION = re.compile(rf"^({_TITLES}):$", re.MULTILINE)
_DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1.*\S.*)*", re.MULTILINE)


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.add_directive("myst", _Myst)
    app.connect("autodoc-process-docstring", _on_docstring)
    return {"parallel_read_safe": True}


class _Myst(SphinxDirective):
    """Parse the content as MyST, in a page of any markup."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        source, _ = self.get_source_info()
        document = utils.new_document(source, self.state.document.settings)
        MystParser().parse("\n".join(self.content), document)
        return document.children


def _on_docstring(
    app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]
) -> None:
    del app, what, name, item, options
    if any(lines):
        text = textwrap.indent(to_myst("\n".join(lines)), "   ")
        lines[:] = [".. myst::", "", *text.splitlines(), ""]


def to_myst(docstring: str) -> str:
    r"""Return a docstring as MyST.

    Args:
        docstring: without indentation.

    Examples:
        >>> print(to_myst("Add.\n\nArgs:\n    x: one of \\(n\\)."))
        Add.
        <BLANKLINE>
        :param x: one of $n$.
    """
    head, *sections = _SECTION.split(docstring)
    parts = [_text(head)]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        parts.append(_section(title, textwrap.dedent(body.strip("\n"))))
    return "\n\n".join(part.strip("\n") for part in parts)


def _section(title: str, body: str) -> str:
    if title in _TEXTS:
        return f"```{{rubric}} {title}\n```\n\n{_text(body)}"
    if title == "Returns":
        return _field("returns", body)
    if title in _LISTS:
        return _list(title, _items(body))
    fields = (
        _field(f"{_FIELDS[title]} {name}", text) for name, text in _items(body)
    )
    return "\n".join(fields)


def _items(body: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each item `name: text`."""
    for item in re.split(r"\n(?=\S)", body):
        name, _, text = item.partition(":")
        first, _, rest = text.strip().partition("\n")
        yield name, f"{first}\n{textwrap.dedent(rest)}"


def _list(title: str, items: Iterable[tuple[str, str]]) -> str:
    """Return a field with a list, which begins on a line of its own."""
    entries = (
        textwrap.indent(_text(f"- **{name}** -- {text}"), "      ")
        for name, text in items
    )
    lines = (f"    {entry.lstrip()}".rstrip() for entry in entries)
    return "\n".join([f":{title}:", *lines])


def _field(name: str, text: str) -> str:
    body = textwrap.indent(_text(text.strip("\n")), "    ").lstrip()
    return f":{name}: {body}"


def _text(text: str) -> str:
    """Return Markdown with fences around doctests, and formulas of MyST."""
    text = _DOCTEST.sub(_fence, text)
    text = re.sub(r"\\\((.+?)\\\)", r"$\1$", text, flags=re.DOTALL)
    return re.sub(r"\\\[(.+?)\\\]", r"$$\1$$", text, flags=re.DOTALL)


def _fence(match: re.Match[str]) -> str:
    return f"{match[1]}```pycon\n{match[0]}\n{match[1]}```"
