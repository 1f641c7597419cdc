"""Trains: here, or in as many processes as are asked for."""

import sys

from benchmarks.train import processes


def main(argv: list[str]) -> None:
    """Starts the processes, or is one."""
    asked, _ = processes.parser().parse_known_args(argv)
    if asked.processes > 1 and asked.process is None:
        sys.exit(processes.run(argv, asked.processes, asked.out))
    # Here, because the processes import this themselves.
    from benchmarks.train import command

    command.main(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
