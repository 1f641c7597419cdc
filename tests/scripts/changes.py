"""Count the lines that a switch changes."""

import difflib
import io
import tokenize

_SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def statements(text):
    """Return the lines of a program, with their columns.

    A call that a formatter breaks into several lines is one line. Comments,
    blank lines and imports are left out.
    """
    found, line = [], []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NEWLINE:
            if line[0].string not in ("import", "from"):
                words = tuple(token.string for token in line)
                found.append((line[0].start[1], words))
            line = []
        elif token.type not in _SKIPPED:
            line.append(token)
    return found


def count_changes(before, after):
    """Return the number of changed lines; a replaced one counts once."""
    matcher = difflib.SequenceMatcher(
        None, statements(before), statements(after), autojunk=False
    )
    return sum(
        max(i2 - i1, j2 - j1)
        for kind, i1, i2, j1, j2 in matcher.get_opcodes()
        if kind != "equal"
    )
