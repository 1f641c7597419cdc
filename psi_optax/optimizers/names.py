"""Recipes by name, for configuration files."""

import difflib
import fnmatch
import inspect
import sys
from collections.abc import Callable

import optax

Recipe = Callable[..., optax.GradientTransformationExtraArgs]


def get_optimizer(name: str) -> Recipe:
    """Return the recipe that has this name.

    Call it with the arguments of the configuration as keywords, and with the
    groups of the program. `psi`, `psi_direction`, `rotational`, `hyperball` and
    `weight_rescaling` need an inner transform, which a configuration gives by
    its name in optax.

    Args:
        name: a name in `list_optimizers()`.

    Returns:
        The function of that name in `psi_optax.optimizers`.

    Raises:
        ValueError: no recipe has this name; the error gives the nearest.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> groups = ScaleGroup(axes=0)
        >>> config = {"name": "psi_sgd", "learning_rate": 0.1, "momentum": 0.9}
        >>> tx = get_optimizer(config.pop("name"))(groups=groups, **config)

        With an inner transform:

        >>> config = {
        ...     "name": "psi",
        ...     "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        ... }
        >>> inner = config.pop("optimizer")
        >>> optimizer = getattr(optax, inner.pop("name"))(**inner)
        >>> recipe = get_optimizer(config.pop("name"))
        >>> tx = recipe(optimizer=optimizer, groups=groups, **config)
    """
    recipes = _recipes()
    if name not in recipes:
        text = str(name).lower().replace("-", "_")
        near = difflib.get_close_matches(text, recipes, n=1)
        also = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{name!r} is no optimizer of psi_optax:{also} choose one of"
            f" {', '.join(recipes)}."
        )
    return recipes[name]


def list_optimizers(pattern: str = "*") -> list[str]:
    """Return the names that `get_optimizer` knows, in alphabetical order.

    Args:
        pattern: a pattern of the shell that names match.

    Raises:
        TypeError: the pattern is no string.
        ValueError: no name matches.

    Examples:
        >>> list_optimizers("psi*")
        ['psi', 'psi_adam', 'psi_direction', 'psi_sgd', 'psi_sgdm']
    """
    recipes = _recipes()
    if not isinstance(pattern, str):
        raise TypeError(f"pattern={pattern!r}: pass a string, such as 'psi*'.")
    if not (names := fnmatch.filter(recipes, pattern)):
        raise ValueError(
            f"pattern={pattern!r} matches none of {', '.join(recipes)}."
        )
    return names


def _recipes() -> dict[str, Recipe]:
    """Return the recipes that the room exports, by name."""
    room = sys.modules["psi_optax.optimizers"]
    kind = optax.GradientTransformationExtraArgs
    return {
        name: item
        for name, item in sorted(vars(room).items())
        if inspect.isfunction(item)
        and inspect.signature(item).return_annotation is kind
    }
