"""Links to files that are not pages lead into the repository.

So `../README.md` works where the page is read as a file, and on the site.
"""

import functools
import posixpath
import re
from typing import Any

_RELATIVE = re.compile(r"(?<=\]\()\.\./[^)\s]*(?=\))")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """The page's text with the links of the site."""
    folder = posixpath.dirname(page.file.src_uri)
    target = functools.partial(outside, folder, config.repo_url)
    return _RELATIVE.sub(lambda found: target(found.group()), markdown)


def outside(folder: str, repository: str, link: str) -> str:
    """A link, as an address in the repository if it leaves the pages.

    Args:
        folder: that of the page, relative to the pages.
        repository: its address.
        link: a relative link.

    Returns:
        The link or the address.
    """
    path = posixpath.normpath(posixpath.join(folder, link))
    if not path.startswith("../"):
        return link
    return f"{repository}/blob/main/{path.removeprefix('../')}"
