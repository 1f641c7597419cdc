"""A page loads nothing from other hosts.

An image of another host becomes its description. What the theme or an extension
loads from one is a warning.
"""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.util import logging

_TAG = re.compile(r"<(script|link|img|iframe|source|video|audio)\b([^>]*)>")
_HOST = re.compile(r"\b(?:src|srcset|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")
_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)")
# A link to another version of the page loads nothing.
_NOT_LOADED = re.compile(r"rel=[\"']?(canonical|next|prev|alternate)\b")


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.connect("doctree-read", _on_doctree)
    app.connect("build-finished", _on_finished)
    return {"parallel_read_safe": True}


def _on_doctree(app: Any, doctree: nodes.document) -> None:
    del app
    for image in list(doctree.findall(nodes.image)):
        if "://" in image["uri"]:
            image.replace_self(nodes.Text(image.get("alt", image["uri"])))


def _on_finished(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        logger = logging.getLogger(__name__)
        for path in sorted(pathlib.Path(app.outdir).rglob("*.*")):
            if path.suffix in (".html", ".css"):
                for address in loaded(path.read_text(encoding="utf-8")):
                    logger.warning("%s loads %s", path.name, address)


def loaded(text: str) -> Iterator[str]:
    """Yield the addresses on other hosts that a page or a style loads.

    Examples:
        >>> list(loaded('<img src="a.png"><script src="//host/b.js">'))
        ['//host/b.js']
    """
    for _, attributes in _TAG.findall(text):
        if not _NOT_LOADED.search(attributes):
            yield from _HOST.findall(attributes)
    yield from _STYLE.findall(text)
