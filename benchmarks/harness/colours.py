"""Colours and markers of figures: a method has the same in each of them.

The colours are those of Okabe and Ito, which the colour-blind tell apart, and a
dark red, which they tell from these. Markers differ wherever colours do.
"""

from collections.abc import Iterable
from typing import TypedDict

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, BLACK, DARK_RED = "#CC79A7", "#56B4E9", "#000000", "#7A1F1F"
GREY, DARK_GREY = "#B0B0B0", "#606060"


class Look(TypedDict):
    """Options of `Axes.plot`."""

    color: str
    marker: str


METHODS: dict[str, Look] = {
    name: {"color": color, "marker": marker}
    for name, color, marker in (
        ("sgd", RED, "o"),
        ("sgd_renormalize", RED, "<"),
        ("sgd_unit", RED, ">"),
        ("momentum", RED, "p"),
        ("sgd_usual_decay", DARK_RED, "H"),
        ("sgd_decay", DARK_RED, "h"),
        ("adamw", ORANGE, "s"),
        ("adamw_usual_decay", ORANGE, ">"),
        ("adamw_mup", ORANGE, "*"),
        ("adamp", ORANGE, "<"),
        ("psi_sgd", BLUE, "D"),
        ("psi_sgdm", BLUE, "d"),
        ("psi_sgd_decay", BLUE, "H"),
        ("psi_sgd_unit", BLUE, "8"),
        ("psi_momentum", BLUE, "p"),
        ("psi_adam", SKY, "^"),
        ("psi_adam_decay", SKY, ">"),
        ("rotational", GREEN, "v"),
        ("adamh", PURPLE, "P"),
        ("muonh", BLACK, "X"),
        ("sgd_g", DARK_GREY, "<"),
        ("weight_rescaling", DARK_GREY, ">"),
    )
}
"""Methods in the order in which figures list them; variants share a colour."""

_SAME = {
    "gd": "sgd",
    "GD": "sgd",
    "SGD": "sgd",
    "adam": "adamw",
    "Adam": "adamw",
    "psi": "psi_sgd",
    "PSI-GD": "psi_sgd",
}

LOOKS: tuple[Look, ...] = tuple(
    {"color": color, "marker": marker}
    for color, marker in (
        *((BLUE, "o"), (RED, "s"), (GREEN, "^"), (ORANGE, "D")),
        *((PURPLE, "v"), (SKY, "P"), (BLACK, "X"), (DARK_RED, "*")),
    )
)
"""Looks of kinds that are no methods, in their order."""


def look(name: str) -> Look:
    """Return colour and marker of a method.

    Examples:
        >>> look("psi_sgd") == look("PSI-GD"), look("sgd") == look("adam")
        (True, False)
    """
    return METHODS[_SAME.get(name, name)]


def in_order(names: Iterable[str]) -> list[str]:
    """Sort names of methods as figures list them.

    Examples:
        >>> in_order(["psi_sgd", "adam", "sgd"])
        ['sgd', 'adam', 'psi_sgd']
    """
    places = list(METHODS)
    return sorted(names, key=lambda x: places.index(_SAME.get(x, x)))


def ordered(count: int) -> list[Look]:
    """Return looks of ascending values, from light to dark.

    Examples:
        >>> [x["marker"] for x in ordered(3)]
        ['o', 's', '^']
    """
    shades = colormaps["viridis_r"](np.linspace(0.25, 1, count))
    return [
        {"color": to_hex(shade), "marker": marker}
        for shade, marker in zip(shades, "os^vPX*h", strict=False)
    ]
