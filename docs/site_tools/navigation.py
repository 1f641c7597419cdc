"""Patterns in the navigation stand for the pages that they match."""

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.add_config_value("navigation", {}, "env")
    app.connect("source-read", _on_source)
    return {"parallel_read_safe": True}


def _on_source(app: Any, name: str, source: list[str]) -> None:
    """Append the navigation to the front page, where code hosts hide none."""
    if name == app.config.root_doc:
        pages = app.env.found_docs - {name}
        source[0] += toctrees(filled(app.config.navigation, pages))


def filled(
    navigation: Mapping[str, Iterable[str]], pages: Iterable[str]
) -> dict[str, list[str]]:
    """Return a navigation with pages in the place of patterns.

    A page that an entry names is in no pattern, and a section without pages is
    omitted. `*` matches no slash.

    Args:
        navigation: names of pages and patterns, by section.
        pages: all names.

    Examples:
        >>> filled({"A": ["b", "*"], "B": ["c/*"]}, ["a", "b", "c/d", "e"])
        {'A': ['b', 'a', 'e'], 'B': ['c/d']}
    """
    named = {entry for entries in navigation.values() for entry in entries}
    free = sorted(set(pages) - named)
    sections = {
        title: [page for entry in entries for page in _matches(entry, free)]
        for title, entries in navigation.items()
    }
    return {title: found for title, found in sections.items() if found}


def _matches(entry: str, pages: Iterable[str]) -> list[str]:
    if "*" not in entry:
        return [entry]
    depth = entry.count("/")
    found = fnmatch.filter(pages, entry)
    return [page for page in found if page.count("/") == depth]


def toctrees(sections: Mapping[str, Iterable[str]]) -> str:
    """Return the navigation in Markdown."""
    return "".join(map(_toctree, sections, sections.values()))


def _toctree(title: str, pages: Iterable[str]) -> str:
    lines = [":hidden:", f":caption: {title}", "", *pages]
    return "\n\n```{toctree}\n" + "\n".join(lines) + "\n```\n"
