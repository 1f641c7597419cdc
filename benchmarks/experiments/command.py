"""What the commands of all experiments have in common."""

import argparse
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks import pages
from benchmarks.experiments.results import Results
from benchmarks.harness import files
from benchmarks.harness.files import one_message

__all__ = ["Experiment", "main"]

PAGES = pages.DOCS / "experiments"


class Experiment(NamedTuple):
    """An experiment, as a program.

    Attributes:
        name: that of the module, of the page in docs/experiments/, and of the
            files that are written.
        about: a line on what it is.
        settings: all that the numbers depend on, a NamedTuple.
        smoke: the same, so small that a test can run it.
        measure: gets the settings and the `Results` whose parts it measures.
        table: makes Markdown from the content of the results.
        figure: draws them.
    """

    name: str
    about: str
    settings: Any
    smoke: Any
    measure: Callable[[Any, Results], None]
    table: Callable[[dict[str, Any]], str]
    figure: Callable[[dict[str, Any]], Figure]


@one_message()
def main(
    experiment: Experiment, arguments: Sequence[str] | None = None
) -> None:
    """Run an experiment from the command line.

    Args:
        experiment: the experiment.
        arguments: the command line; that of the process by default.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.experiments.{experiment.name}",
        description=f"{experiment.about} A run that was stopped goes on where"
        " it was when it is started again.",
    )
    add = parser.add_argument
    out = pathlib.Path("results/experiments")
    add("--out", type=pathlib.Path, default=out, help="default: %(default)s")
    add("--smoke", action="store_true", help="as small as it can be")
    add("--docs", action="store_true", help="write the page in docs/ as well")
    given = parser.parse_args(arguments)
    files.make_folder(given.out)
    settings = experiment.smoke if given.smoke else experiment.settings
    stem = given.out / (experiment.name + "-smoke" * given.smoke)
    results = Results(stem.with_suffix(".json"), settings._asdict())
    try:
        experiment.measure(settings, results)
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        sys.exit(130)

    table = experiment.table(results.content)
    print(table)
    image = stem.with_suffix(".png")
    files.write_figure(image, experiment.figure(results.content))
    print(f"written: {results.path}\nwritten: {image}")
    if given.docs:
        _document(experiment.name, table, results, image)


def _document(
    name: str, table: str, results: Results, image: pathlib.Path
) -> None:
    """Fill the page, and put the figure and the numbers beside it."""
    page = PAGES / f"{name}.md"
    for path in (image, results.path):
        files.write(page.with_suffix(path.suffix), path.read_bytes())
    versions = results.content["versions"]
    pages.refill(page, "table", table)
    pages.refill(
        page,
        "command",
        f"    python -m benchmarks.experiments.{name}\n\n"
        f"It took {results.minutes:.0f} minutes on 2 cores that other work"
        f" shared (JAX {versions['jax']}); a run that was stopped goes on."
        f" [All numbers]({name}.json).",
    )
    print(f"written: {page}")
