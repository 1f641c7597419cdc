"""The factors, and the sizes of a training at each of their values."""

from typing import Any, NamedTuple

FACTORS = {
    "width": "width",
    "batch": "batch, equal steps",
    "examples": "batch, equal examples",
    "scale": "initial scale",
    "depth": "depth",
    "length": "steps",
}
"""The factors by name, with their names in tables and figures."""

ONE_SEED = ("depth", "length")
"""The factors that all methods are trained over with one seed."""


class Point(NamedTuple):
    """A factor and its value; at 1 it is the base, whatever the factor."""

    factor: str
    value: float

    def __str__(self) -> str:
        """Return the name of the point among the parts."""
        return f"{self.factor}/{self.value:g}"


BASE = Point("base", 1)


class Sizes(NamedTuple):
    """Sizes of a training.

    Attributes:
        width: hidden units of a layer, or channels of the residual stream.
        depth: number of layers.
        batch: examples, or pieces of text, in a batch.
        steps: number of steps.
        growth: the width over that of the base.
        scale: factor of the initial scale-invariant weights.
    """

    width: int
    depth: int
    batch: int
    steps: int
    growth: int = 1
    scale: float = 1.0

    def at(self, point: Point) -> "Sizes":
        """Return the sizes at a point, from those of the base.

        Examples:
            >>> Sizes(32, 2, 16, 800).at(Point("examples", 4))[:4]
            (32, 2, 64, 200)
        """
        value = point.value
        if point.factor == "scale":
            return self._replace(scale=value)
        times = int(value)
        return self._replace(
            **{
                "base": {},
                "width": {"width": times * self.width, "growth": times},
                "batch": {"batch": times * self.batch},
                "examples": {
                    "batch": times * self.batch,
                    "steps": self.steps // times,
                },
                "depth": {"depth": times * self.depth},
                "length": {"steps": times * self.steps},
            }[point.factor]
        )


def values(settings: dict[str, Any]) -> dict[str, list[float]]:
    """Return the values of each factor but 1, by the factor's name."""
    names = ("widths", "batches", "batches", "scales", "depths", "lengths")
    return {
        factor: list(settings[name])
        for factor, name in zip(FACTORS, names, strict=True)
    }


def points(settings: dict[str, Any]) -> list[Point]:
    """Return the base and all other points."""
    found = values(settings).items()
    return [BASE, *(Point(name, x) for name, row in found for x in row)]
