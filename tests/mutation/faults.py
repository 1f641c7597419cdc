"""Faults that were thought of, from `faults.toml`."""

import pathlib
import tomllib
from typing import NamedTuple

from tests.mutation.structure import replaced


class Fault(NamedTuple):
    """One replacement in one file of the package.

    The code is found by its structure: its names may have been changed.

    Attributes:
        what: the mistake, in words.
        file: where, from psi_optax on.
        right: the code that stands there, in one place.
        wrong: the code that stands there instead.
    """

    what: str
    file: str
    right: str
    wrong: str

    def apply(self, package: pathlib.Path) -> str:
        """Return the text of the file with the fault in it.

        Raises:
            ValueError: the right code is not there, or is there twice.
        """
        text = (package / self.file).read_text()
        try:
            return replaced(text, self.right, self.wrong)
        except ValueError as error:
            raise ValueError(f"{self.what}: in {self.file} {error}") from None


_STORED = pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8")
FAULTS = [Fault(**entry) for entry in tomllib.loads(_STORED)["faults"]]
