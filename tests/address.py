"""The repository's address, in notebooks as in pyproject.toml.

python -m tests.address notebooks/*.py
"""

import pathlib
import re
import sys
import tomllib

PROJECT = pathlib.Path(__file__).parents[1] / "pyproject.toml"


def repository() -> str:
    """Return the address, which pyproject.toml states and nothing else does."""
    with PROJECT.open("rb") as file:
        return tomllib.load(file)["project"]["urls"]["Repository"]


def with_address(text: str, url: str) -> str:
    """Return a notebook's source with another address in its place.

    Args:
        text: the source, with an install cell and a badge of Colab.
        url: `https://github.com/owner/name`.

    Raises:
        ValueError: the address has another form, or the source has none.

    Examples:
        >>> text = "https://colab.research.google.com/github/a/b/blob/x.ipynb"
        >>> text += ' "git+https://github.com/a/b"'
        >>> with_address(text, "https://github.com/c/d")
        'https://colab.research.google.com/github/c/d/blob/x.ipynb
        "git+https://github.com/c/d"'
    """
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", url)
    if found is None:
        raise ValueError(
            f"project.urls.Repository is {url!r}: Colab needs"
            " https://github.com/owner/name."
        )
    for before in (
        r"git\+https://github\.com/",
        r"research\.google\.com/github/",
    ):
        text, count = re.subn(
            rf"({before})[\w.-]+/[\w.-]+", rf"\g<1>{found[1]}", text
        )
        if count != 1:
            raise ValueError(f"{count} addresses after {before!r}, not one.")
    return text


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = pathlib.Path(name)
        text = path.read_text(encoding="utf-8")
        path.write_text(with_address(text, repository()), encoding="utf-8")
