"""Pages that scripts write into: between markers, and nowhere else."""

import pytest

from benchmarks.harness import pages
from tests.full_disk import no_file_above

BEGIN, END = "<!-- name: begin -->", "<!-- name: end -->"
PAGE = f"# Title\n{BEGIN}\nold\n{END}\nProse.\n"


def test_a_page_is_filled_between_its_markers_and_nowhere_else():
    once = pages.fill(PAGE, "name", "new")
    assert once == f"# Title\n{BEGIN}\n\nnew\n\n{END}\nProse.\n"
    assert pages.fill(once, "name", "new") == once
    assert pages.fill(once, "name", "other") != once


@pytest.mark.parametrize(
    "wrong", ["", BEGIN, END, END + BEGIN, PAGE + PAGE, PAGE + END, END + PAGE]
)
def test_a_page_without_its_markers_is_refused(wrong):
    with pytest.raises(ValueError, match="<!-- name: begin"):
        pages.fill(wrong, "name", "new")
    with pytest.raises(ValueError, match="<!-- another: begin"):
        pages.fill(PAGE, "another", "new")


def test_lines_of_a_table_are_equally_long():
    rows = [["", "number"], ["a long name", "1"], ["b", "-22.5"]]
    for right in (False, True):
        lines = pages.table(rows, right).splitlines()
        assert len({len(line) for line in lines}) == 1
        cells = [[c.strip() for c in x.split("|")[1:-1]] for x in lines]
        assert [cells[0], *cells[2:]] == rows
    assert lines[1].endswith("-:|")
    assert lines[3].endswith(" -22.5 |")
    with pytest.raises(ValueError, match="'a', 'b'"):
        pages.table([["a", "b"], ["c"]])


def test_a_file_is_filled_or_as_it_was(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    for name in ("other", ""):
        with pytest.raises(ValueError, match="page.md: .*<!--"):
            pages.refill(page, name, "µ")
    with no_file_above(16), pytest.raises(OSError, match="page.md"):
        pages.refill(page, "name", "µ")
    assert page.read_text() == PAGE
    pages.refill(page, "name", "µ")
    assert page.read_text(encoding="utf-8") == pages.fill(PAGE, "name", "µ")
