"""Count the lines that a switch changes."""

import difflib
import io
import itertools
import tokenize

_SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def lines(text):
    """Return the lines of a program, without comments and imports."""
    found, statement = [], []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NEWLINE:
            if statement[0].string not in ("import", "from"):
                found += _rows(statement)
            statement = []
        elif token.type not in _SKIPPED:
            statement.append(token)
    return found


def _rows(statement):
    """Return each line of a statement: its column, and its words."""
    for _, row in itertools.groupby(statement, lambda token: token.start[0]):
        first, *rest = row
        yield first.start[1], (first.string, *(x.string for x in rest))


def count_changes(before, after):
    """Return the number of changed lines; a replaced one counts once."""
    matcher = difflib.SequenceMatcher(
        None, lines(before), lines(after), autojunk=False
    )
    return sum(
        max(i2 - i1, j2 - j1)
        for kind, i1, i2, j1, j2 in matcher.get_opcodes()
        if kind != "equal"
    )
