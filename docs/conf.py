"""Configuration of the documentation site, which `make docs` builds."""

import pathlib
import sys

TOOLS = pathlib.Path(__file__).parent / "site_tools"
# The extensions, and the package that lies beside them.
sys.path[:0] = map(str, TOOLS.parents[:2])

from site_tools.address import repository  # noqa: E402
from site_tools.source import resolve  # noqa: E402

project = "psi_optax"
author = "The psi_optax authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.linkcode",
    "sphinx_copybutton",
    "site_tools.docstrings",
    "site_tools.languages",
    "site_tools.links",
    "site_tools.mathml",
    "site_tools.names",
    "site_tools.navigation",
    "site_tools.notebooks",
    "site_tools.offline",
    "site_tools.reference",
    "site_tools.signatures",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["site_tools", "**.ipynb_checkpoints"]
# Every reference must lead somewhere; `make docs` makes warnings errors.
nitpicky = True
nitpick_ignore = [("py:class", "optax.ScalarOrSchedule")]

# A pattern stands for all pages that match and that no other entry names
# (site_tools/navigation.py): a new page of these kinds needs no entry.
navigation = {
    "Guide": [
        "getting-started",
        "cheat-sheet",
        "concepts",
        "finding-groups",
        "architectures",
        "choosing",
        "learning-rates",
        "composing",
        "recipes",
        "landscape",
        "reparametrizations",
        "initialization",
        "migrating",
        "fine-tuning",
        "coming-from-torch",
        "faq",
        "limits",
        "guarantees",
        "systems",
        "testing",
        "releases",
        "citing",
    ],
    "Measured": [
        "evidence",
        "equivariance",
        "matching-weight-decay",
        "step-time",
        "*",
    ],
    "Experiments": ["experiments/*"],
    "Notebooks": ["notebooks/*"],
    "Reference": [
        "reference/index",
        "reference/groups",
        "reference/finding",
        "reference/optimizers",
        "reference/transforms",
        "reference/wrappers",
        "reference/reparametrize",
        "reference/initialize",
        "reference/diagnostics",
        "reference/dynamics",
        "reference/landscape",
        "reference/batch_stats",
        "reference/models",
    ],
}

# Pages. Of quotes, dashes and ellipses, dashes alone are made of ASCII.
smartquotes_action = "D"
myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
notebooks = str(TOOLS.parents[1] / "notebooks")
nb_execution_mode = "off"
nb_ipywidgets_js = {}
html_math_renderer = "mathml"

# Reference.
autodoc_default_options = {"members": True, "member-order": "bysource"}
maximum_signature_line_length = 72
toc_object_entries_show_parents = "hide"
linkcode_resolve = resolve
# Names of other projects that pages and docstrings use. Nothing is fetched: the
# inventories are lists by hand, in the first format of Sphinx, which is text.
intersphinx_mapping = {
    name: (address, str(TOOLS / "inventories" / f"{name}.txt"))
    for name, address in {
        "flax": "https://flax.readthedocs.io/en/latest",
        "flax-linen": "https://flax-linen.readthedocs.io/en/latest",
        "jax": "https://docs.jax.dev/en/latest",
        "optax": "https://optax.readthedocs.io/en/latest",
    }.items()
}

# Appearance.
html_theme = "sphinx_book_theme"
html_title = "psi_optax"
html_static_path = [str(TOOLS / "static")]
html_css_files = ["style.css"]
html_context = {"default_mode": "auto"}
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "repository_url": repository(),
    "use_repository_button": True,
    "use_download_button": False,
    "home_page_in_toc": True,
    # The sidebar has the field.
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}
