"""Links to files that are not pages lead into the repository.

So `../README.md` works where the page is read as a file, and on the site.
"""

import functools
import posixpath
import re
from typing import Any

from site_tools.address import in_repository

_RELATIVE = re.compile(r"(?<=\]\()\.\./[^)\s]*(?=\))")
# Where the notebooks are, and where the site has them.
_NOTEBOOKS, _COPIES = "notebooks", "docs/notebooks"


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", _on_source)
    return {"parallel_read_safe": True}


def _on_source(app: Any, name: str, source: list[str]) -> None:
    del app
    folder = posixpath.dirname(f"docs/{name}")
    source[0] = with_addresses(source[0], folder)


def with_addresses(text: str, folder: str) -> str:
    """Return the text of a page with the links of the site.

    Args:
        text: Markdown, or a notebook.
        folder: that of the page, below the root of the repository.
    """
    target = functools.partial(on_site, folder)
    return _RELATIVE.sub(lambda found: target(found.group()), text)


def on_site(folder: str, link: str) -> str:
    """Return a relative link as it is on the site.

    Args:
        folder: that of the page, below the root of the repository.
        link: to a page, a notebook or another file.

    Returns:
        The link; for a file that is not on the site, its address.

    Examples:
        >>> on_site("docs", "../notebooks/01.ipynb")
        'notebooks/01.ipynb'
    """
    origin = _NOTEBOOKS if folder == _COPIES else folder
    path = posixpath.normpath(posixpath.join(origin, link))
    if posixpath.dirname(path) == _NOTEBOOKS and path.endswith(".ipynb"):
        path = f"docs/{path}"
    if path.startswith("docs/"):
        return posixpath.relpath(path, folder)
    return in_repository(path)
