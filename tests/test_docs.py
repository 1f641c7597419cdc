"""The documentation: names, pages, links, examples and one table by hand."""

import importlib
import importlib.util
import pathlib
import re
import types

import pytest
import yaml

import psi_optax
from psi_optax.models import architectures, linen, nnx
from tests.address import repository
from tests.registry import public_names

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SITE = yaml.safe_load((ROOT / "properdocs.yml").read_text(encoding="utf-8"))


def tool(name):
    path = DOCS / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def name_of(path):
    return path.relative_to(DOCS).as_posix()


def text_of(path):
    return path.read_text(encoding="utf-8")


# Names.


def where(item):
    return f"{item.__module__}.{item.__qualname__}"


def public():
    """Where every public function and class is defined."""
    networks = [
        getattr(module, name)
        for module in (linen, nnx, architectures)
        for name in module.__all__
    ]
    return {where(item) for item in [*public_names().values(), *networks]}


def described():
    """What the pages of the reference take docstrings from."""
    pages = (DOCS / "reference").glob("*.md")
    text = tool("reference").expanded("\n".join(map(text_of, pages)))
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


def test_every_public_name_is_in_the_reference_once():
    assert len(public()) > 80
    assert public() <= set(described())
    assert len(described()) == len(set(described()))


def test_what_the_reference_describes_is_where_it_says():
    """A package has a module `psi` and a function of this name."""
    for name in described():
        module, _, last = name.rpartition(".")
        assert where(getattr(importlib.import_module(module), last)) == name


def unknown_names(text):
    names = re.findall(r"\bpsi_optax\.([a-z]\w*|[A-Z]\w*)", text)
    return {name for name in names if not hasattr(psi_optax, name)}


def test_names_in_the_pages_exist():
    for page in PAGES:
        # Addresses and files are not names.
        text = re.sub(r"\S*/\S*", "", text_of(page))
        assert not unknown_names(text), page
    assert unknown_names("psi_optax.psi and psi_optax.psy") == {"psy"}


# Pages.


def missing_pages(nav, folder):
    filled = tool("navigation").filled(nav, folder, "https://repository")
    named = list(tool("navigation").names(filled))
    assert len(named) == len(set(named))
    pages = {p.relative_to(folder).as_posix() for p in folder.rglob("*.md")}
    return pages - set(named)


def test_every_page_is_in_the_navigation():
    assert not missing_pages(SITE["nav"], DOCS)


def test_patterns_take_what_nothing_else_names(tmp_path):
    for name in ("a.md", "b.md", "sub/c.md", "sub/d.md", "other/e.md"):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    notebook = tmp_path / "notebooks" / "01.ipynb"
    notebook.parent.mkdir()
    notebook.write_text('{"cells": [{"source": ["# First\\n", "text"]}]}')
    nav = [
        {"A": ["b.md", "*.md"]},
        {"B": ["sub/*.md"]},
        {"C": ["none/*.md"]},
        {"D": ["../notebooks/*.ipynb"]},
    ]
    folder = tmp_path / "docs"
    assert tool("navigation").filled(nav, folder, "https://x") == [
        {"A": ["b.md", "a.md"]},
        {"B": ["sub/c.md", "sub/d.md"]},
        {"D": [{"First": "https://x/blob/main/notebooks/01.ipynb"}]},
    ]
    assert missing_pages(nav, folder) == {"other/e.md"}


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


def test_the_site_has_the_address_of_the_project():
    config = types.SimpleNamespace(config_file_path=ROOT / "properdocs.yml")
    tool("address").on_config(config)
    assert config.repo_url == repository()
    assert "repo_url" not in (ROOT / "properdocs.yml").read_text()


def test_links_out_of_the_pages_lead_into_the_repository():
    outside = tool("links").outside
    assert outside("", "https://x", "../README.md#a").endswith("/README.md#a")
    assert outside("sub", "https://x", "../../a/b.py") == (
        "https://x/blob/main/a/b.py"
    )
    assert outside("sub", "https://x", "../page.md") == "../page.md"


def test_formulas_become_mathml_and_code_stays():
    markdown = pytest.importorskip("markdown")
    pytest.importorskip("latex2mathml")
    config = type("Config", (), {"markdown_extensions": []})
    tool("mathml").on_config(config)
    convert = markdown.Markdown(extensions=config.markdown_extensions).convert
    assert "<math" in convert(r"a \(r\,g\) b")
    assert 'display="block"' in convert("\\[a\n  b\\]")
    assert "<math" not in convert(r"`\(r\,g\)` and r g")


# What the site makes of the pages.


def rendered(text):
    """The HTML of a page, by the extensions of the site."""
    markdown = pytest.importorskip("markdown")
    pytest.importorskip("pymdownx")
    names, options = ["toc", "fenced_code"], {}
    for item in SITE["markdown_extensions"]:
        item = item if isinstance(item, dict) else {item: {}}
        names += item
        options |= item
    return markdown.markdown(text, extensions=names, extension_configs=options)


def lost_structure(text):
    """Items of lists and fences of code that are rendered as text."""
    html = rendered(text)
    paragraphs = re.findall(r"<p>(.*?)</p>", html, re.DOTALL)
    lost = [p for p in paragraphs if re.search(r"^\s*(- |\d+\. )", p, re.M)]
    lost += re.findall(r"```.*", html)
    # Code that belongs to an item is inside of it.
    items = re.sub(r"<pre.*?</pre>", "CODE", html, flags=re.DOTALL)
    inside = sum("CODE" in x for x in re.findall(r"<li>.*?</li>", items, re.S))
    if inside < len(re.findall(r"^ +```\w*\n", text, re.MULTILINE)) // 2:
        lost.append("code outside of its item")
    return lost


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lists_and_code_are_rendered_as_such(page):
    assert not lost_structure(text_of(page))


LIST = """A list:

- one:

    ```python
    x = 1
    ```

- two
"""


def test_a_list_that_code_breaks_is_found():
    assert not lost_structure(LIST)
    assert lost_structure(LIST.replace("    ", "  "))
    assert lost_structure(LIST.replace(":\n\n- one", ":\n- one"))


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
