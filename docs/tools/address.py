"""The repository's address, which stands in pyproject.toml alone."""

import pathlib
import tomllib
from typing import Any


def on_config(config: Any) -> None:
    """Sets what the site says of the repository."""
    folder = pathlib.Path(config.config_file_path).parent
    with (folder / "pyproject.toml").open("rb") as file:
        urls = tomllib.load(file)["project"]["urls"]
    config.repo_url, config.repo_name = urls["Repository"], "Repository"
