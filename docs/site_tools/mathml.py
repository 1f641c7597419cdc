"""Formulas as MathML, which browsers draw without a script or a font."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

# Bars of norms. Browsers take a bar in a row for a relation, with spaces.
_BAR = re.compile(r"<mo(?![^>]*form)(?=[^>]*>&#x(?:0007C|02016);</mo>)")


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    inline, block = (_inline, None), (_block, None)
    app.add_html_math_renderer("mathml", inline, block)
    return {"parallel_read_safe": True}


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(to_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    formula = to_mathml(node.astext(), "block")
    translator.body.append(f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


def to_mathml(formula: str, display: str) -> str:
    """Return a formula of LaTeX as MathML.

    Args:
        formula: without delimiters.
        display: "inline" or "block".
    """
    return _BAR.sub(
        '<mo lspace="0" rspace="0"', convert(formula, display=display)
    )
