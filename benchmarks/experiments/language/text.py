"""English text that Python has: the topics of its interactive help."""

from pydoc_data.topics import topics
from typing import NamedTuple

import numpy as np

VOCABULARY = 96
"""The end of a line, and the printable characters of ASCII."""


class Text(NamedTuple):
    """Tokens, int32: eight tenths, a tenth and the last tenth."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load() -> Text:
    """Load the text, without paragraphs that repeat earlier ones.

    It differs a little between versions of Python.
    """
    paragraphs = "\n\n".join(topics[name] for name in sorted(topics))
    unique = dict.fromkeys(paragraphs.split("\n\n"))
    tokens = encode("\n\n".join(unique))
    tenth = len(tokens) // 10
    return Text(*np.split(tokens, [-2 * tenth, -tenth]))


def encode(text: str) -> np.ndarray:
    r"""Return tokens of characters, a question mark for others than ASCII.

    Examples:
        >>> encode("\n !~é").tolist(), encode("?").tolist()
        ([0, 1, 2, 95, 32], [32])
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    return np.maximum(codes.astype(np.int32) - 31, 0)


def windows(tokens: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Return pieces of a text, each with the token behind it, on a last axis.

    Examples:
        >>> windows(np.arange(9), np.array([0, 5]), 2).tolist()
        [[0, 1, 2], [5, 6, 7]]
    """
    return tokens[starts[..., None] + np.arange(length + 1)]
