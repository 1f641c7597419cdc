r"""Formulas as MathML, which browsers draw without a script or a font.

In docstrings and pages \(...\) stands within a line and \[...\] by itself.
"""

import re
from typing import Any

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor

# Behind code, and in front of the backslash as an escape.
_PRIORITY = 185


class _Formula(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> Any:  # noqa: N802
        del data
        inline, block = m.groups()
        display = "inline" if block is None else "block"
        mathml = convert(inline or block, display=display)
        return self.md.htmlStash.store(mathml), *m.span()


class _Formulas(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        formula = _Formula(r"\\\((.+?)\\\)|\\\[(.+?)\\\]", md)
        md.inlinePatterns.register(formula, "formula", _PRIORITY)


def on_config(config: Any) -> None:
    """Adds the extension, before any page is read."""
    config.markdown_extensions.append(_Formulas())
