"""Trains: here, or in as many processes as are asked for."""

import argparse
import sys

from benchmarks.train import processes


def main(argv: list[str]) -> None:
    """Starts the processes, or is one."""
    asked, _ = processes.parser().parse_known_args(argv)
    try:
        if asked.processes > 1 and asked.process is None:
            sys.exit(_start(argv, asked))
        # Here, because the processes import this themselves.
        from benchmarks.train import command

        command.main(argv)
    except KeyboardInterrupt:
        print("stopped.", *processes.go_on(asked.out), file=sys.stderr)
        sys.exit(processes.STOPPED)


def _start(argv: list[str], asked: argparse.Namespace) -> int:
    """Starts the processes, if that can be; the exit status."""
    try:
        processes.check(asked)
        return processes.run(argv, asked.processes, asked.out)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return processes.REFUSED


if __name__ == "__main__":
    main(sys.argv[1:])
