"""Tables of best rates, their moves, and the rules that predict these."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.experiments.transfer.analysis import Move, Verdict, judge
from benchmarks.experiments.transfer.choices import (
    chosen,
    moves,
    problems,
    row,
    spread,
)
from benchmarks.experiments.transfer.curves import (
    Curve,
    best_rate,
    interval,
    resamples,
)
from benchmarks.experiments.transfer.methods import METHODS, is_trained
from benchmarks.experiments.transfer.points import (
    BASE,
    FACTORS,
    ONE_SEED,
    Point,
    values,
)
from benchmarks.experiments.transfer.problems import LABELS
from benchmarks.experiments.tuning import is_at_edge
from benchmarks.harness import pages
from benchmarks.harness.results import Content

EXACT = ("psi_sgd", "psi_adam")
"""Methods on proven groups, whose losses do not depend on the scale."""

KINDS = ("train", "validation", "test")


def report(content: Content) -> str:
    """Return a table of the base, and one of each factor."""
    texts = [pages.settings(content), _base(content)]
    for factor in FACTORS:
        texts += [_sentence(content, factor), _factor(content, factor)]
    together = (
        "**Rules** that are fitted on all problems together, with the median"
        " error in octaves; those in brackets do not hold."
    )
    return "\n\n".join([*texts, together, _together(content)])


def _rows(content: Content, factor: str) -> Iterator[tuple[str, str]]:
    """Yield problems and methods that are trained over a factor."""
    settings = content["settings"]
    for problem in problems(content):
        for name in settings["methods"]:
            if is_trained(name, factor):
                yield problem, name


def label(problem: str, name: str) -> str:
    """Return the name of a row."""
    return f"{LABELS[problem]}, {METHODS[name].label}"


def _base(content: Content) -> str:
    """Return the tuned values, best rates and losses of the base."""
    rows = [["base", "tuned", "log2 of the best rate", *KINDS, "failures"]]
    for problem, name in _rows(content, "base"):
        at = row(content, problem, name, BASE)
        kinds = [row(content, problem, name, BASE, kind) for kind in KINDS]
        losses = [pages.spread(x.losses[at.lowest], 3) for x in kinds]
        cells = [
            _tuned(content, problem, name),
            _best(at),
            *losses,
            _failures(at),
        ]
        rows.append([label(problem, name), *cells])
    return pages.table(rows, right=True)


def _tuned(content: Content, problem: str, name: str) -> str:
    """Return the tuned value, with a star at the edge of those tried."""
    value, tried = chosen(content, problem, name), METHODS[name].tuned
    edge = is_at_edge(value, content["settings"][tried])
    return f"{value:g}{'★' * edge}"


def _best(at: Curve) -> str:
    """Return the best rate with its interval."""
    count = at.losses.shape[1]
    draws = resamples(count) if count > 1 else []
    found = interval([best_rate(at.seeds(x)) for x in draws])
    return _octaves(best_rate(at), found, bool(at.edge), sign="")


def _octaves(
    value: float,
    found: tuple[float, float] | None,
    edge: bool,
    sign: str = "+",
) -> str:
    """Return octaves with an interval, and a star at an edge."""
    if not np.isfinite(value):
        return "failed"
    shown = f"{value:{sign}.1f}{'★' * edge}"
    if found is None:
        return shown
    return f"{shown} [{found[0]:{sign}.1f}, {found[1]:{sign}.1f}]"


def _failures(at: Curve) -> str:
    return f"{at.failures} of {at.losses.size}"


def _sentence(content: Content, factor: str) -> str:
    """Return the heading of a factor's table."""
    seeds = 1 if factor in ONE_SEED else content["settings"]["seeds"]
    most = "one seed" if seeds == 1 else f"up to {seeds} seeds"
    return f"**{FACTORS[factor].capitalize()}** ({most})."


def _factor(content: Content, factor: str) -> str:
    """Return the table of a factor."""
    found = values(content["settings"])[factor]
    head = [f"x {x:g}" for x in found]
    rows = [
        [
            *("octaves that the best rate moves", *head),
            *("lost", "gained", "failures", *_RULE),
        ]
    ]
    for problem, name in _rows(content, factor):
        moved = moves(content, problem, name, factor, found)
        cells = [_octaves(x.octaves, x.interval, x.edge) for x in moved]
        cells += _costs(content, problem, name, moved)
        verdict = verdict_of(content, [problem], name, factor)
        rows.append([label(problem, name), *cells, *_verdict(verdict)])
    return pages.table(rows, right=True)


def verdict_of(
    content: Content, names: list[str], name: str, factor: str
) -> Verdict | None:
    """Judge the rule of a method and a factor on some problems."""
    found = values(content["settings"])[factor]
    return judge(
        [moves(content, x, name, factor, found) for x in names],
        [spread(content, x, factor, found) for x in names],
    )


def _together(content: Content) -> str:
    """Return the table of rules for all problems, by method and factor."""
    measured = problems(content)
    rows = [["", *FACTORS.values()]]
    for name in content["settings"]["methods"]:
        found = (
            verdict_of(content, measured, name, factor)
            if is_trained(name, factor)
            else None
            for factor in FACTORS
        )
        rows.append([METHODS[name].label, *map(_short, found)])
    return pages.table(rows, right=True)


def _short(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    shown = f"{verdict.rule}, {verdict.error:.1f}"
    return shown if verdict.holds else f"[{shown}]"


def _costs(
    content: Content, problem: str, name: str, moved: list[Move]
) -> list[str]:
    """Return what is lost by the base's rate, and gained, at the last value."""
    last = moved[-1]
    count = last.curve.losses.shape[1]
    base = row(content, problem, name, BASE).seeds(range(count))
    gained = base.means.min() - last.curve.means.min()
    failures = sum(x.curve.failures for x in moved)
    runs = sum(x.curve.losses.size for x in moved)
    kept, gained = (_loss(x) for x in (last.kept, gained))
    return [kept, gained, f"{failures} of {runs}"]


def _loss(value: float) -> str:
    if math.isnan(value):
        return "outside"
    return f"{value:.3f}" if math.isfinite(value) else "failed"


_RULE = ("rule", "error", "excess", "spread", "holds")


def _verdict(verdict: Verdict | None) -> list[str]:
    if verdict is None:
        return [""] * len(_RULE)
    losses = _loss(verdict.excess), _loss(verdict.spread)
    holds = "yes" if verdict.holds else "no"
    return [verdict.rule, f"{verdict.error:.1f}", *losses, holds]


def faults(content: Content) -> list[str]:
    """Return the claims that do not hold.

    On proven groups, factors that are powers of two change no training loss, to
    the bit. Those of validation depend on initial running statistics, which
    have a scale, until many steps have replaced them.
    """
    settings = content["settings"]
    scales = [x for x in settings["scales"] if math.frexp(x)[0] == 0.5]
    return [
        f"{label(problem, name)}: losses depend on the scale {scale:g}."
        for problem in problems(content)
        for name in settings["methods"]
        for scale in scales
        if name in EXACT and not _is_same(content, problem, name, scale)
    ]


def _is_same(content: Content, problem: str, name: str, scale: float) -> bool:
    """Tell whether training losses are those of the base."""
    parts: Any = content["parts"]
    base, other = (
        parts[f"{problem}/{name}/{point}/0"]
        for point in (BASE, Point("scale", scale))
    )
    return base["train"] == other["train"]
