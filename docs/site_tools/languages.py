"""Code that names no language is coloured as what it is."""

import ast
import re
from typing import Any

from docutils import nodes

_COMMAND = re.compile(r"(\S*/)?(python|pip|sudo|make|git|cd)\b")


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.connect("doctree-read", _on_doctree)
    return {"parallel_read_safe": True}


def _on_doctree(app: Any, doctree: nodes.document) -> None:
    del app
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") in ("default", "none"):
            block["language"] = language(block.astext())


def language(code: str) -> str:
    """Return the language of code, as a name of Pygments.

    Examples:
        >>> language("python -m benchmarks scaling")
        'bash'
        >>> language("x = 1")
        'python'
        >>> language("a -> b")
        'text'
    """
    if _COMMAND.match(code):
        return "bash"
    try:
        ast.parse(code)
    except SyntaxError:
        return "text"
    return "python"
