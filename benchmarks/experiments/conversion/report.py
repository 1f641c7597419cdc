"""Tables and claims of the experiment on converted learning rates."""

from collections.abc import Iterator
from typing import Any

from benchmarks.harness import pages
from benchmarks.harness.results import Content

TOLERANCE = 0.1
"""Largest relative error of a mean rotation."""

Part = dict[str, Any]


def ratios(part: Part) -> dict[str, float]:
    """Return quotients of rotations; those that are claimed to be 1.

    Examples:
        >>> part = {"psi": 2.0, "source": 1.0, "returned": 1.0}
        >>> ratios(part | {"rotational": 3.0, "angle": 1.5})
        {'psi': 2.0, 'returned': 1.0, 'rotational': 2.0}
    """
    source = part["source"]
    claimed = {
        "psi": part["psi"] / source,
        "returned": part["returned"] / source,
        "rotational": part["rotational"] / part["angle"],
    }
    return claimed | ({"own": part["own"] / source} if "own" in part else {})


def faults(content: Content) -> list[str]:
    """Return the rotations that are not as asked.

    A few steps are not enough for norms to settle, and for a median.
    """
    if content["settings"]["steps"] < 100:
        return []
    return [
        f"{name}, {kind}: {ratio:.3f} of the rotation that was asked."
        for name, part in content["parts"].items()
        for kind, ratio in ratios(part).items()
        if abs(ratio - 1) > TOLERANCE
    ]


def report(content: Content) -> str:
    """Return a table without decay, and one at its equilibrium."""
    parts = content["parts"].items()
    plain = [(k, x) for k, x in parts if "decay" not in x]
    decayed = [(k, x) for k, x in parts if "decay" in x]
    versions = content["versions"]
    return "\n\n".join(
        [
            pages.wrap(pages.settings(content)),
            pages.table([_HEAD, *_plain(plain)], right=True),
            pages.table([_DECAYED_HEAD, *_decayed(decayed)], right=True),
            f"JAX {versions['jax']}, optax {versions['optax']}.",
        ]
    )


_HEAD = (
    *("", "rate", "spread", "rate for `psi`", "rotation", "norms grow by"),
    *("`psi`", "own rates", "returned", "under noise"),
    "`rotational`",
)
_DECAYED_HEAD = (
    *("", "rate", "decay", "rate for `psi`", "rotation", "`psi`"),
    *("by norms", "returned", "law", "`rotational`"),
)


def _plain(parts: list[tuple[str, Part]]) -> Iterator[list[str]]:
    for name, part in parts:
        ratio = {k: f"{x:.3f}" for k, x in ratios(part).items()}
        yield [
            *(name, f"{part['rate']:g}", f"{part['spread']:.2f}"),
            *(f"{part['psi rate']:.3g}", f"{part['source']:.5f}"),
            *(f"{part['growth'] - 1:.1%}", ratio["psi"], ratio["own"]),
            *(ratio["returned"], f"{part['noise'] / part['source']:.3f}"),
            ratio["rotational"],
        ]


def _decayed(parts: list[tuple[str, Part]]) -> Iterator[list[str]]:
    for name, part in parts:
        ratio = {k: f"{x:.3f}" for k, x in ratios(part).items()}
        law = part["law"]
        by_norms = part["psi by norms"] / part["source"]
        yield [
            *(name, f"{part['rate']:g}", f"{part['decay']:g}"),
            *(f"{part['psi rate']:.3g}", f"{part['source']:.5f}"),
            *(ratio["psi"], f"{by_norms:.3f}", ratio["returned"]),
            *("" if law is None else f"{law / part['source']:.3f}",),
            ratio["rotational"],
        ]
