"""The repository's address, which stands in pyproject.toml alone."""

import pathlib
import tomllib

ROOT = pathlib.Path(__file__).parents[2]


def repository() -> str:
    """Return the address."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]["urls"]["Repository"]


def in_repository(path: str) -> str:
    """Return the address of a file, given by its path in the repository."""
    return f"{repository()}/blob/main/{path}"
