"""Reasons for a line of a summary: short, and the same for all layers."""

import re

from psi_optax.invariance.finding import Findings
from psi_optax.invariance.formats.layers import patterns_by_path, shared_start

# Long words of reasons, which the full table has.
_SHORTER = {
    "rescaling symmetry: its scale cancels only against": "cancels against",
    "rescaling symmetry: its parts cancel only": "its parts cancel only",
    "a subtracted array does not come from the weights": "subtracts data",
    ": leave it out of the loss passed to find_groups, at": ", at",
    ": split it into separate parameters, one for each part": ": split it",
}
# The function and the module of a site; a path in a reason, or a word.
_AFTER_LINE = re.compile(r"(, at \S+:\d+) .*$")
_WORD = re.compile(r"[^\s,;:()'`]+")


def general_reasons(findings: Findings) -> dict[str, str]:
    """Return reasons by path, with patterns in the place of paths."""
    patterns = patterns_by_path(findings)

    def general(reason: str) -> str:
        text = _WORD.sub(lambda word: patterns.get(word[0], word[0]), reason)
        return _without_repetition(text)

    return {path: general(finding.reason) for path, finding in findings.items()}


def _without_repetition(text: str) -> str:
    """Drop items of a list that are there already."""
    seen: set[str] = set()
    kept = []
    for item in text.split(", "):
        *others, last = item.split(" ")
        if others or last not in seen:
            kept.append(item)
        seen.add(last)
    return ", ".join(kept)


def words_before_paths(reason: str) -> str:
    """Return a reason up to the first path, which differs between layers."""
    words, *_ = re.split(r"\S*[/*]", reason, maxsplit=1)
    return words


def shorten_reason(reason: str, pattern: str) -> str:
    """Return a reason without functions, and without the start of a pattern.

    Examples:
        >>> reason = "rescaling symmetry: its scale cancels only against a/b/c"
        >>> shorten_reason(reason, "a/b/d")
        'cancels against .../c'
    """
    for long, short in _SHORTER.items():
        reason = reason.replace(long, short)

    def shorten(word: re.Match[str]) -> str:
        shared = shared_start([pattern, word[0]])
        rest = word[0][len(shared) :]
        return f"...{rest}" if shared and rest else word[0]

    return _WORD.sub(shorten, _AFTER_LINE.sub(r"\1", reason))
