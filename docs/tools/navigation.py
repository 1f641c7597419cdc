"""Patterns in the navigation stand for the files that they match."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any


def on_config(config: Any) -> None:
    """Fills the navigation in, before it is read."""
    folder = pathlib.Path(config.docs_dir)
    config.nav = filled(config.nav, folder, config.repo_url)


def filled(nav: list[Any], folder: pathlib.Path, repository: str) -> list[Any]:
    """The navigation with files in the place of patterns.

    A file that an entry names is in no pattern, and a section that nothing is
    in is left out. A notebook becomes a link into the repository.

    Args:
        nav: names of pages, patterns, and sections `{title: nav}`.
        folder: what they are relative to.
        repository: its address.

    Returns:
        A new navigation.
    """
    named = set(names(nav))

    def fill(nav: list[Any]) -> Iterator[Any]:
        for entry in nav:
            if isinstance(entry, dict):
                ((title, below),) = entry.items()
                if found := list(fill(below)):
                    yield {title: found}
            elif "*" in entry:
                pattern = pathlib.PurePath(entry)
                matches = (folder / pattern.parent).glob(pattern.name)
                for path in sorted(matches):
                    name = (pattern.parent / path.name).as_posix()
                    if name not in named:
                        yield _entry(name, path, repository)
            else:
                yield entry

    return list(fill(nav))


def names(nav: Any) -> Iterator[str]:
    """All names, patterns and addresses in a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        below = nav.values() if isinstance(nav, dict) else nav
        for entry in below:
            yield from names(entry)


def _entry(name: str, path: pathlib.Path, repository: str) -> Any:
    if path.suffix != ".ipynb":
        return name
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join(cells[0]["source"])
    title = text.splitlines()[0].removeprefix("# ")
    return {title: f"{repository}/blob/main/{name.removeprefix('../')}"}
