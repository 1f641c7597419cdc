"""Time of one optimizer step of torch's libraries, to torch's own.

`make oracles` installs them. The steps run in processes of their own; HeavyBall
compiles its steps in the first ones, which takes half a minute. Torch slows
down several times if other work takes its cores.
"""

import dataclasses
from typing import Annotated, Any

from benchmarks.harness import pages
from benchmarks.harness.measurement import Measurement
from benchmarks.harness.options import one_of
from benchmarks.harness.processes import in_torch
from benchmarks.harness.results import Content, Results
from benchmarks.speed.sets import SETS

Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        set: Set of parameters.
    """

    set: Annotated[str, one_of(SETS)] = "resnet50"


def measure(settings: Settings, results: Results) -> None:
    """Measure the rows of each environment that there is."""
    results.expect(1)
    results.part("peers", lambda: run_peers(settings.set))


def run_peers(name: str) -> list[Found]:
    """Time torch's libraries on a set, in each environment that has them."""
    seen: set[str] = set()
    results = []
    for found in in_torch("benchmarks.speed.torch_steps", [name]):
        rows = [row for row in found["rows"] if row["optimizer"] not in seen]
        seen |= {row["optimizer"] for row in rows}
        if rows:
            results.append({**found, "rows": rows})
    return results


def report(content: Content) -> str:
    """Return a sentence: the ratio of each library to torch's own."""
    rows = [x for part in content["parts"]["peers"] for x in part["rows"]]
    each = [
        f"`{row['optimizer']}` {row['wall']['ratio']:.1f}"
        for row in rows
        if row["optimizer"] != row["baseline"]
    ]
    about = f"Elapsed time on {content['versions']['device']}, as a ratio"
    return pages.wrap(f"{about}: {', '.join(each)}.")


MEASUREMENT = Measurement(
    settings=Settings(),
    smoke=Settings("small"),
    measure=measure,
    report=report,
    page="step-time.md",
    timed=True,
)
