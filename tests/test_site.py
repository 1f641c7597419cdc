"""The site: what its extensions of Sphinx make of pages and docstrings."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re
import runpy
import subprocess
import sys

import nbformat
import pytest

from psi_optax.models import architectures, linen, nnx
from tests.address import repository
from tests.registry import public_names

pytest.importorskip("myst_nb", reason="the site needs the extra `docs`")

from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from site_tools import (
    docstrings,
    languages,
    links,
    mathml,
    navigation,
    notebooks,
    offline,
    reference,
    signatures,
    source,
)

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CONFIG = runpy.run_path(str(DOCS / "conf.py"))


def name_of(path):
    return path.relative_to(DOCS).as_posix()


def text_of(path):
    return path.read_text(encoding="utf-8")


# Names.

EXPORTS = re.compile(
    r"^```\{exports\} (\S+)\n(?::of: (\S+)\n)?```$", re.MULTILINE
)


def public():
    """Every public function and class."""
    networks = [
        getattr(module, name)
        for module in (linen, nnx, architectures)
        for name in module.__all__
    ]
    return {*public_names().values(), *networks}


def described():
    """The names that the pages of the reference describe."""
    text = "\n".join(map(text_of, (DOCS / "reference").glob("*.md")))
    found = EXPORTS.findall(text)
    assert len(found) == text.count("{exports}")
    return [
        name
        for module, room in found
        for name in reference.entries(module, room or None)
    ]


def item_of(name):
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def test_every_public_name_is_in_the_reference_once():
    items = [item_of(name) for name in described()]
    assert len(public()) > 80
    assert public() <= set(items)
    assert len(items) == len(set(items))


def test_a_name_is_described_where_users_import_it():
    assert "psi_optax.psi" in described()
    assert "psi_optax.transforms.retract" in described()
    assert "psi_optax.optimizers.psi" not in described()


def names_of(inventory):
    """The names of an inventory; three lines are its head."""
    return [line.split()[0] for line in text_of(inventory).splitlines()[3:]]


def test_names_of_inventories_exist():
    inventories = sorted((DOCS / "site_tools" / "inventories").glob("*.txt"))
    assert {x.stem for x in inventories} == set(CONFIG["intersphinx_mapping"])
    for name in (x for file in inventories for x in names_of(file)):
        assert pkgutil.resolve_name(name) is not None
    with pytest.raises(AttributeError):
        pkgutil.resolve_name("optax.nothing")


# Navigation.


def missing_pages(sections, pages):
    named = [
        page
        for entries in navigation.filled(sections, pages).values()
        for page in entries
    ]
    assert len(named) == len(set(named))
    return set(pages) - set(named)


def test_every_page_is_in_the_navigation():
    pages = {name_of(page).removesuffix(".md") for page in PAGES} - {"index"}
    assert not missing_pages(CONFIG["navigation"], pages)


def test_patterns_take_what_nothing_else_names():
    pages = ["b", "a", "sub/d", "sub/c", "other/e"]
    sections = {"A": ["b", "*"], "B": ["sub/*"], "C": ["none/*"]}
    filled = navigation.filled(sections, pages)
    assert filled == {"A": ["b", "a"], "B": ["sub/c", "sub/d"]}
    assert missing_pages(sections, pages) == {"other/e"}


def test_notebooks_are_copied_and_old_copies_vanish(tmp_path):
    folder, target = tmp_path / "notebooks", tmp_path / "docs"
    folder.mkdir()
    target.mkdir()
    for path in (folder / "01.ipynb", folder / "01.py", target / "00.ipynb"):
        path.touch()
    notebooks.copy(folder, target)
    assert [path.name for path in target.iterdir()] == ["01.ipynb"]


# Links.


def test_the_site_has_the_address_of_the_project():
    assert CONFIG["html_theme_options"]["repository_url"] == repository()


@pytest.mark.parametrize(
    ("folder", "link", "expected"),
    [
        ("docs", "../README.md#a", "/blob/main/README.md#a"),
        ("docs/sub", "../../a/b.py", "/blob/main/a/b.py"),
        ("docs/sub", "../page.md", "../page.md"),
        ("docs/sub", "../../notebooks/a.ipynb", "../notebooks/a.ipynb"),
        ("docs/sub", "../../notebooks/a.py", "/blob/main/notebooks/a.py"),
        ("docs/notebooks", "../docs/sub/page.md", "../sub/page.md"),
        ("docs/notebooks", "../README.md", "/blob/main/README.md"),
    ],
)
def test_links_out_of_the_pages_lead_into_the_repository(
    folder, link, expected
):
    if expected.startswith("/"):
        expected = repository() + expected
    assert links.on_site(folder, link) == expected
    text = links.with_addresses(f"[a]({link}), {link}", folder)
    assert text == f"[a]({expected}), {link}"


# Markdown.


def rendered(text):
    """The HTML of a page, by the parser of the site."""
    extensions = CONFIG["myst_enable_extensions"]
    config = MdParserConfig(enable_extensions=extensions)
    return create_md_parser(config, RendererHTML).render(text)


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

1. one:

    ```python
    x = 1
    ```

2. two
"""


def test_a_list_that_code_breaks_is_found():
    assert not lost_structure(LIST)
    assert lost_structure(LIST.replace("    ", " "))
    assert lost_structure("A list:\n2. two")


def test_code_without_a_language_is_coloured():
    assert languages.language("f(x)\nassert y") == "python"
    assert languages.language(".venv/bin/python -m a --b") == "bash"
    assert languages.language("path  shape\na     (3, 4)") == "text"


def test_bars_of_norms_have_no_spaces():
    assert mathml.to_mathml("|w|", "inline").count('lspace="0"') == 2
    assert "lspace" not in mathml.to_mathml("w + v", "inline")
    assert 'display="block"' in mathml.to_mathml("w", "block")


# Docstrings.

DOCSTRING = r"""Add.

As \(a + b\), or

\[a
  + b\]

Args:
    x: a number: `1`, or
        two lines.
    **options: others.

Attributes:
    y: a field, of
        two lines.
    z: a field.

Returns:
    A line: the sum.

Raises:
    TypeError: no.

Examples:
    >>> add(1,
    ...     2)
    [[3
      4]]

    And so on.

References:
    [A paper](https://example.org).
"""
MYST = r"""Add.

As $a + b$, or

$$a
  + b$$

:param x: a number: `1`, or
    two lines.
:param **options: others.

:Attributes:
    - **y** -- a field, of
      two lines.
    - **z** -- a field.

:returns: A line: the sum.

:raises TypeError: no.

```{rubric} Examples
```

```pycon
>>> add(1,
...     2)
[[3
  4]]
```

And so on.

```{rubric} References
```

[A paper](https://example.org)."""


def test_sections_of_docstrings_become_fields():
    assert docstrings.to_myst(DOCSTRING) == MYST


# What is drawn by itself, and what must not be left of other markup.
DRAWN = re.compile(
    r'<pre.*?</pre>|<code.*?</code>|<(span|div) class="math.*?</\1>', re.DOTALL
)
MARKUP = re.compile(
    r"\$|`|\*\*|&gt;&gt;&gt;|<p>[-:] |(?:^|<p>)[A-Z]\w+:$",
    re.MULTILINE,
)


def lost_markup(docstring):
    """Delimiters and titles of sections that are rendered as text."""
    html = rendered(docstrings.to_myst(docstring))
    return MARKUP.findall(DRAWN.sub("", html))


def test_the_markup_of_docstrings_is_rendered():
    for item in public():
        assert not lost_markup(inspect.cleandoc(item.__doc__)), item
    for wrong in (
        "Args:\n  x: a `name",
        "| a |\n|---|\n| \\(|g|\\) |",
        "Add.\n\nNotes:\n    A section without a name.",
    ):
        assert lost_markup(wrong), wrong


@pytest.mark.parametrize(
    ("name", "file", "start"),
    [
        ("psi", "optimizers/psi.py", "def psi("),
        ("ScaleGroup", "groups/scale_group.py", "@dataclasses.dataclass"),
        ("GroupReport.summary", "invariance/report.py", "    def summary"),
    ],
)
def test_entries_lead_to_their_source(name, file, start):
    address = source.resolve("py", {"module": "psi_optax", "fullname": name})
    found = re.fullmatch(
        r"(\S+/blob/main/)psi_optax/(\S+)#L(\d+)-L\d+", address
    )
    assert found[2] == file
    lines = text_of(ROOT / "psi_optax" / file).splitlines()
    assert lines[int(found[3]) - 1].startswith(start)


def test_signatures_are_those_of_the_source():
    arguments, result = signatures.of_function(item_of("psi_optax.psi"))
    assert "groups: Groups, *, ordinary: optax.Gradient" in arguments
    assert arguments.endswith("tangent: bool=True)")
    assert result == "optax.GradientTransformationExtraArgs"
    state = signatures.of_class(item_of("psi_optax.optimizers.PsiState"))
    assert state.startswith("(count: jax.typing.ArrayLike, radius: Any, ")
    group = signatures.of_class(item_of("psi_optax.ScaleGroup"))
    assert group.startswith("(axes: int | Iterable[int], blocks: ")
    resolve = item_of("psi_optax.ScaleGroup").resolve
    assert signatures.of_function(resolve) == (
        "(shape: tuple[int, ...])",
        "ScaleGroup",
    )
    options = signatures.of_class(item_of("psi_optax.models.linen.MLP"))
    assert re.match(r"\(widths: .*, \*, epsilon: float = 1e-05, ", options)
    assert "parent" not in options


EXAMPLES = [
    docstrings,
    languages,
    links,
    navigation,
    offline,
    reference,
    signatures,
]


@pytest.mark.parametrize("module", EXAMPLES, ids=lambda x: x.__name__)
def test_examples_of_the_extensions_run(module):
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted
    assert not found.failed


# Pages.


def test_what_is_loaded_from_other_hosts_is_found():
    local = """<script src="a.js"></script><link rel="stylesheet" href="b.css">
    <a href="https://example.org">a</a> <img src="data:image/png;base64,xx">
    <link rel="canonical" href="https://example.org/page.html"/>"""
    assert not list(offline.loaded(local))
    remote = """<script src="https://a.org/a.js"> <link href='//b.org/b.css'>
    <img src="http://c.org/c.png"> <style>@import "https://d.org/d.css"; a
    {background: url(//e.org/e.png)}</style>"""
    hosts = [re.search(r"//(\w)", x)[1] for x in offline.loaded(remote)]
    assert hosts == ["a", "b", "c", "d", "e"]


PAGE = r"""# A page

$|w|$ and `$|w|$`; [out](../README.md), [in](../notebooks/a.ipynb).
![a badge](https://example.org/badge.svg)

`psi`, `optax.sgd(0.1)`, `jnp.where`, `rescale(x)` and `nothing`:

    x = 1

```{exports} psi_optax.batch_stats
```

```{exports} psi_optax
:of: psi_optax.optimizers
```
"""
# The configuration of the site, for other pages and notebooks.
CONF = f"""import runpy

site = runpy.run_path({str(DOCS / "conf.py")!r})
globals().update((k, v) for k, v in site.items() if not k.startswith("__"))
navigation = {{"Notebooks": ["notebooks/*"]}}
notebooks = "notebooks"
"""


def write_notebook(path):
    cells = [
        nbformat.v4.new_markdown_cell("# A notebook\n\n[a](../docs/index.md)"),
        nbformat.v4.new_code_cell(
            "raise ValueError",
            outputs=[nbformat.v4.new_output("stream", text="stored")],
        ),
    ]
    language = {"language_info": {"name": "python"}}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=language), path
    )


def build(folder, page):
    """Build a site of one page and one notebook, as `make docs` does."""
    for name, text in {"index.md": page, "conf.py": CONF}.items():
        path = folder / "docs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "notebooks").mkdir()
    write_notebook(folder / "notebooks" / "a.ipynb")
    options = ["--fail-on-warning", "--keep-going", "--quiet"]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "docs", "built"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A site that is built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    done = build(folder, PAGE)
    assert done.returncode == 0, done.stderr
    return folder / "built"


@pytest.fixture(scope="module")
def html(built):
    """The front page."""
    return text_of(built / "index.html")


def test_notebooks_are_shown_with_the_outputs_that_they_store(built):
    html = text_of(built / "notebooks" / "a.html")
    assert 'href="../index.html">a</a>' in re.sub(
        r"<span[^>]*>|</span>", "", html
    )
    assert ">stored" in html


def test_formulas_become_mathml_and_code_stays(html):
    assert re.search(r"<p><math [^>]*><mrow><mo [^>]*>&#x0007C;</mo>", html)
    assert '<span class="pre">$|w|$</span>' in html


def test_links_lead_to_pages_and_into_the_repository(html):
    assert f'href="{repository()}/blob/main/README.md"' in html
    assert 'href="notebooks/a.html"' in html


def test_images_of_other_hosts_are_words(html):
    assert "a badge" in html
    assert "badge.svg" not in html


def test_names_in_code_lead_to_their_entries(html):
    first, last = html.index('<span class="pre">psi<'), html.index(">nothing<")
    text = html[html.rindex("<p>", 0, first) : last]
    targets = re.findall(r'href="([^"]+)"', text)
    assert targets[0] == "#psi_optax.psi"
    assert targets[1].startswith("https://optax.readthedocs.io/")
    assert targets[1].endswith("#optax.sgd")
    assert targets[2].endswith("#jax.numpy.where")
    assert targets[3:] == ["#psi_optax.batch_stats.rescale"]


def test_an_entry_has_a_signature_sections_and_an_example(html):
    start = html.index('id="psi_optax.psi"')
    entry = html[start : html.index("</dd></dl>", start)]
    assert "#optax.GradientTransformation" in entry
    assert ">Groups</span>" in entry
    for part in ("Parameters", "Returns", "Raises", "Examples", "References"):
        assert part in entry
    assert "highlight-pycon" in entry
    assert "Warns" in entry
    assert "<math" in entry
    assert "<p>:" not in entry


def test_code_is_coloured(html):
    assert re.search(
        r'highlight-python notranslate"><div class="highlight"><pre>'
        r'<span></span><span class="n">x</span>',
        html,
    )


def test_faults_of_a_page_fail_the_build(tmp_path):
    page = """# A page

[a](none.md) [b](#none) ![c](none.png) `[d](none.md)`

```{py:function} f(x: optax.Nothing)
```

<script src="https://example.org/a.js"></script>
"""
    done = build(tmp_path, page)
    assert done.returncode == 1
    for fault in (
        "'none.md'",
        "'none'",
        "none.png",
        "optax.Nothing",
        "https://example.org/a.js",
    ):
        assert fault in done.stderr, done.stderr
    assert done.stderr.count("WARNING") == 5, done.stderr
