"""Descriptions of measurements, and the command that runs them."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import tyro

from benchmarks.harness import files, pages
from benchmarks.harness.machine import give_threads, machine
from benchmarks.harness.results import Content, Results, read

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Settings, the measurement of its parts, and how these are shown.

    Attributes:
        settings: a frozen dataclass, whose fields are options of the command
            line. The numbers depend on all of them.
        smoke: the same, as small as a test can run it.
        measure: adds the parts to the results, from the settings.
        report: text in Markdown, from the content of the results. It is printed
            and put between the markers `name` of the page.
        page: below docs/, or empty for none. Its markers `command`, if it has
            them, get the command and how long it took.
        figures: drawn from the content, by file name without suffix.
        sections: further texts, by page below docs/ and name of markers.
        faults: sentences that say which claims do not hold. The exit status is
            1 if there are any.
        selects: settings that say which parts are measured, on which the
            numbers of a part do not depend.
        timed: whether the parts are times of this machine. Then a part that is
            asked for is always measured, and the others of the file stay.
        devices: number of virtual CPU devices.
    """

    settings: Any
    smoke: Any
    measure: Callable[[Any, Results], None]
    report: Callable[[Content], str]
    page: str = ""
    figures: Callable[[Content], dict[str, "Figure"]] = lambda _: {}
    sections: Callable[[Content], dict[tuple[str, str], str]] = lambda _: {}
    faults: Callable[[Content], list[str]] = lambda _: []
    selects: tuple[str, ...] = ()
    timed: bool = False
    devices: int | None = None


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of every measurement.

    Attributes:
        out: Folder to write to.
        smoke: Measure as little as possible, to try the command.
        anew: Measure what was measured before as well.
        docs: Fill the pages of docs/, and keep numbers and figures there.
        refill: Fill the pages from the numbers in docs/; measure nothing.
    """

    out: pathlib.Path = pathlib.Path("results")
    smoke: bool = False
    anew: bool = False
    docs: bool = False
    refill: bool = False


@files.one_message()
def run(
    name: str, measurement: Measurement, about: str, arguments: Sequence[str]
) -> None:
    """Run a measurement from the command line; print and write the results.

    Raises:
        SystemExit: an option is wrong, a file cannot be read or written, the
            measurement was interrupted, or a claim does not hold.
    """
    settings, options = _parse(name, measurement, about, arguments)
    if options.smoke and options.docs:
        sys.exit("--docs shows full measurements: omit it, or --smoke.")
    if not measurement.page and (options.docs or options.refill):
        sys.exit(f"{name} has no page: omit --docs and --refill.")
    if options.refill:
        fill_pages(name, measurement, read(_numbers(name)))
        return
    files.make_folder(options.out)
    if measurement.devices:
        give_threads(measurement.devices)
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", measurement.devices)
    suffix = "-smoke" * options.smoke
    path = options.out / f"{name}{suffix}.json"
    content = _measured(measurement, settings, path, options.anew)
    print(measurement.report(content))
    written = [path, *_draw(measurement, content, options.out, suffix)]
    if options.docs:
        files.write(_numbers(name), path.read_bytes())
        written += fill_pages(name, measurement, content)
    print(*(f"written: {file}" for file in written), sep="\n")
    if found := measurement.faults(content):
        sys.exit("\n".join(found))


def fill_pages(
    name: str, measurement: Measurement, content: Content
) -> list[pathlib.Path]:
    """Put text and figures into docs/; return the files."""
    if not content["parts"]:
        raise files.InputError(f"{_numbers(name)} has no parts: measure them.")
    page = pages.DOCS / measurement.page
    texts = {
        (measurement.page, name): measurement.report(content),
        **measurement.sections(content),
    }
    if pages.has(page, "command"):
        texts[measurement.page, "command"] = _command(name, content, page)
    for (where, marker), text in texts.items():
        pages.refill(pages.DOCS / where, marker, text)
    written = {pages.DOCS / where: None for where, _ in texts}
    # Of a page outside of docs/, such as the README, the figures lie there too.
    beside = pages.DOCS in page.resolve().parents
    folder = page.parent if beside else pages.DOCS
    return [*written, *_draw(measurement, content, folder)]


def _command(name: str, content: Content, page: pathlib.Path) -> str:
    """Return how the numbers of a page were measured."""
    minutes = round(sum(content["seconds"].values()) / 60)
    numbers = os.path.relpath(_numbers(name), page.parent)
    return (
        f"    python -m benchmarks {name}\n\n"
        f"It took {minutes} minute{'s' * (minutes != 1)} on 2 cores that other"
        f" work shared (JAX {content['versions']['jax']}); a run that was"
        " stopped goes on."
        f" [All numbers]({numbers})."
    )


def _parse(
    name: str, measurement: Measurement, about: str, arguments: Sequence[str]
) -> tuple[Any, Options]:
    defaults = measurement.smoke if "--smoke" in arguments else None
    defaults = defaults or measurement.settings
    command = dataclasses.make_dataclass(
        "Command",
        [
            ("settings", type(defaults), defaults),
            ("options", Options, Options()),
        ],
        frozen=True,
    )
    given = tyro.cli(
        command,
        prog=f"python -m benchmarks {name}",
        description=about,
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return given.settings, given.options


def _measured(
    measurement: Measurement, settings: Any, path: pathlib.Path, anew: bool
) -> Content:
    """Measure the parts that the file does not have yet."""
    asked = dataclasses.asdict(settings)
    kept = {k: v for k, v in asked.items() if k not in measurement.selects}
    here = machine() if measurement.timed else None
    with Results(path, kept, here, anew, progress=True) as results:
        try:
            measurement.measure(settings, results)
        except KeyboardInterrupt:
            how = "the same command" + " without --anew" * anew
            print(f"\nstopped: {how} goes on", file=sys.stderr)
            sys.exit(130)
    return results.content


def _draw(
    measurement: Measurement,
    content: Content,
    folder: pathlib.Path,
    suffix: str = "",
) -> list[pathlib.Path]:
    """Draw the figures into a folder; return the files."""
    # Some machines measure without matplotlib.
    from matplotlib import rc_context

    from benchmarks.harness.figures import STYLE

    written = []
    with rc_context(STYLE):
        for name, figure in measurement.figures(content).items():
            written.append(folder / f"{name}{suffix}.png")
            files.write_figure(written[-1], figure)
    return written


def _numbers(name: str) -> pathlib.Path:
    return pages.DOCS / "numbers" / f"{name}.json"
