"""The oldest versions that pyproject.toml admits, as constraints for pip.

python -m tests.oldest > constraints.txt
"""

import itertools
import pathlib
import re
import tomllib

PROJECT = pathlib.Path(__file__).parents[1] / "pyproject.toml"


def oldest(project: dict) -> list[str]:
    """A constraint for each requirement that has a lower bound.

    Args:
        project: the table `project` of pyproject.toml.

    Returns:
        Lines, in alphabetical order.

    Examples:
        >>> oldest({"dependencies": ["jax>=0.10", "optax>=0.2.8"]})
        ['jax==0.10', 'optax==0.2.8']
    """
    extras = project.get("optional-dependencies", {})
    needed = itertools.chain(project["dependencies"], *extras.values())
    return sorted(
        {x.replace(">=", "==") for x in needed if re.fullmatch(".+>=[^,]+", x)}
    )


if __name__ == "__main__":
    with PROJECT.open("rb") as file:
        print("\n".join(oldest(tomllib.load(file)["project"])))
