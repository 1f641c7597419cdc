"""Tries faults, and says which of them the fast tests let pass.

    python -m tests.mutation                  those that were thought of
    python -m tests.mutation radius           of them, those that say "radius"
    python -m tests.mutation --generated 12   12 of each room, drawn at random

The exit status is 1 if one was not noticed.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.mutation.faults import FAULTS
from tests.mutation.run import PACKAGE, noticed_by


def try_one(fault) -> bool:
    """Whether a fault is noticed; prints by what."""
    test = noticed_by(fault)
    print(f"{fault.what}: {test or 'NOT NOTICED'}", flush=True)
    if test is None and hasattr(fault, "change"):
        print(fault.change(PACKAGE), flush=True)
    return test is not None


def chosen(options):
    """The faults that are to be tried."""
    if not options.generated:
        faults = FAULTS
    else:
        from tests.mutation.generated import sample

        faults = sample(PACKAGE, options.generated, options.seed)
    return [f for f in faults if all(word in f.what for word in options.words)]


def main(arguments: list[str] | None = None) -> int:
    """Tries every fault; returns how many were not noticed."""
    parser = argparse.ArgumentParser(
        "tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*")
    parser.add_argument("--generated", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    faults = chosen(options)
    if not faults:
        parser.error(f"no fault says {options.words}")
    for fault in faults:
        fault.apply(PACKAGE)
    with ThreadPoolExecutor(options.jobs) as pool:
        noticed = sum(pool.map(try_one, faults))
    print(f"{noticed} of {len(faults)} faults were noticed")
    return len(faults) - noticed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
