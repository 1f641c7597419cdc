"""The pages: names, links, examples and one table by hand."""

import pathlib
import re

import pytest

import psi_optax.models

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def name_of(path):
    return path.relative_to(DOCS).as_posix()


def text_of(path):
    return path.read_text(encoding="utf-8")


# Names.


def unknown_names(text):
    names = re.findall(r"\bpsi_optax\.([a-z]\w*|[A-Z]\w*)", text)
    return {name for name in names if not hasattr(psi_optax, name)}


def test_names_in_the_pages_exist():
    for page in PAGES:
        # Addresses and files are not names.
        text = re.sub(r"\S*/\S*", "", text_of(page))
        assert not unknown_names(text), page
    assert unknown_names("psi_optax.psi and psi_optax.psy") == {"psy"}


# Links.

LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text):
    """Those of the headings, as the site and GitHub form them."""
    titles = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", title.lower()) for title in titles]
    return {re.sub(r"[-\s]+", "-", title.strip()) for title in plain}


def without_code(text):
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`", "`", text)


def broken_links(page, text):
    for link in LINK.findall(without_code(text)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.is_relative_to(ROOT) or not target.exists():
            yield link
        elif anchor:
            found = anchors(text if target == page else text_of(target))
            if anchor not in found:
                yield link


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md"], ids=lambda x: f"{x.relative_to(ROOT)}"
)
def test_links_and_images_lead_somewhere(page):
    assert not list(broken_links(page, text_of(page)))


def test_broken_links_are_found():
    text = """# One, two\n
    [a](#one-two) [b](limits.md) [c](limits.md#floating-point) `[d](none.md)`
    [e](https://example.org/none) ![f](scaling.png) [g](../README.md)

    [h](#two) [i](none.md) [j](limits.md#none) ![k](none.png) [l](../../etc)
    """
    assert list(broken_links(DOCS / "index.md", text)) == [
        *("#two", "none.md", "limits.md#none", "none.png", "../../etc")
    ]


def test_formulas_are_those_of_code_hosts():
    """They draw $...$, and show other delimiters as text."""
    for page in PAGES:
        assert not re.search(r"\\[(\[]", without_code(text_of(page))), page


# What is guaranteed, and by which tests.

TESTS = re.compile(r"\]\(\.\./(tests/[\w/.]+)\)")


def without_a_test(text):
    """Lines that link no file of tests, or one that is not there."""
    for line in text.splitlines():
        if not line.startswith("| ") or line.startswith(("| ---", "| guar")):
            continue
        found = TESTS.findall(line)
        if not found or not all((ROOT / file).is_file() for file in found):
            yield line


def test_what_is_guaranteed_links_its_tests():
    text = text_of(DOCS / "guarantees.md")
    assert len(set(TESTS.findall(text))) > 50
    assert not list(without_a_test(text))


def test_a_line_without_a_test_is_found():
    wrong = """| guaranteed | tests |
| --- | --- |
| a | [`docs`](../tests/test_docs.py) |
| b | [`nothing`](../tests/test_nothing.py) |
| c | by hand |"""
    names = [line[2] for line in without_a_test(wrong)]
    assert names == ["b", "c"]


# Examples.

# Whose Python needs a network, which the test of its script gives it.
ELSEWHERE = {"matching-weight-decay.md"}


def blocks(page, language="python"):
    fenced = rf"^```{language}\n(.*?)^```$"
    return re.findall(fenced, text_of(page), re.DOTALL | re.MULTILINE)


WITH_BLOCKS = [p for p in PAGES if blocks(p) and name_of(p) not in ELSEWHERE]


def test_there_are_examples():
    names = {name_of(page) for page in WITH_BLOCKS}
    assert {"getting-started.md", "concepts.md", "limits.md"} <= names


def lines_without_numbers(text):
    """Deviations and norms are rounded differently by other versions."""
    numberless = re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", text)
    return {" ".join(line.split()) for line in numberless.splitlines()}


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_the_python_of_a_page_runs_and_prints_what_it_says(page, capsys):
    """From the top to the bottom, as a reader would type it in."""
    names = {}
    for block in blocks(page):
        exec(compile(block, "train.py", "exec"), names)
    printed = lines_without_numbers(capsys.readouterr().out)
    shown = lines_without_numbers("".join(blocks(page, "text")))
    assert shown <= printed
    assert not lines_without_numbers("1 of 2 parameters are wrong") <= printed


# The table of choosing.md, by hand, against what was measured.

# Its methods, with the rows of equivariance.md that they are.
MEASURED = {
    "SGD, momentum": ["sgd(momentum)"],
    "AdamW": ["adamw"],
    "`psi_sgd`, `psi` around SGD, `psi_direction`": [
        "psi_sgd",
        "psi(optax.sgd(momentum))",
    ],
    "`psi_adam`, `psi` around Adam": ["psi_adam", "psi(optax.adamw)"],
    "`psi_sgdm`": ["psi_sgdm"],
    "`sgd_g`": ["sgd_g"],
    "`adam_g`": ["adam_g"],
    "`rotational`": [
        "rotational(optax.trace)",
        "rotational(optax.scale_by_adam)",
    ],
    "`hyperball`, `adamh`, `muonh`": [
        f"{name}(per_tensor=True, equivariant=True)"
        for name in ("hyperball", "adamh", "muonh")
    ],
    '`psi_sgd` with `joint_groups(tie="network")`': [
        "psi_sgd(momentum, joint_groups(network))"
    ],
    "`weight_rescaling`": ["weight_rescaling(optax.sgd(momentum))"],
    "`sgdp`, `adamp`": ["sgdp", "adamp"],
}
# Decay is not in that table.
UNMEASURED = {"SGD, decay"}
FINEST = {
    "nothing": "none",
    "filters": "filter",
    "tensors": "tensor",
    "the network": "network",
}


def rows(page, head):
    """Rows of the tables of a page whose first column has this head."""
    table = None
    for line in text_of(page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            table = None
        elif table is None:
            table = cells
        elif table[0] == head and set(cells[0]) != {"-"}:
            yield dict(zip(table, cells, strict=True))


def wrong_statements(said, measured):
    """Methods of which what is said is not what was measured."""
    for row in said:
        for name in MEASURED.get(row["method"], []):
            found = measured[f"`{name}`"]
            finest = FINEST[re.split("[,;]", row["may be rescaled"])[0]]
            # Growth is that of filters, which a tensor's norm leaves free.
            kept = row["norms"].startswith("kept") and finest == "filter"
            if finest != found["may be rescaled"] or (
                kept and found["growth"] != "1.00"
            ):
                yield name


def test_what_choosing_says_was_measured():
    said = list(rows(DOCS / "choosing.md", "method"))
    found = rows(DOCS / "equivariance.md", "optimizer")
    measured = {row["optimizer"]: row for row in found}
    assert {row["method"] for row in said} == MEASURED.keys() | UNMEASURED
    assert not list(wrong_statements(said, measured))
    for row in said:
        row["may be rescaled"] = "nothing"
    assert "psi_sgd" in set(wrong_statements(said, measured))


def test_choosing_names_the_whole_family():
    family = set(psi_optax.optimizers.list_optimizers())
    table = " ".join(x["method"] for x in rows(DOCS / "choosing.md", "method"))
    assert len(family) > 10
    assert family <= set(re.findall(r"`(\w+)[`(]", table))
