"""Notebooks as pages: Sphinx reads what lies below its own folder alone.

They are copied to docs/notebooks, which git ignores.
"""

import pathlib
import shutil
from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    # The folder that has them.
    app.add_config_value("notebooks", "", "env", str)
    app.connect("builder-inited", _on_start)
    return {"parallel_read_safe": True}


def _on_start(app: Any) -> None:
    source = pathlib.Path(app.config.notebooks)
    copy(source, pathlib.Path(app.srcdir) / "notebooks")


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Replace a folder by one with the notebooks of another.

    Args:
        source: the folder with notebooks.
        target: the folder that is made anew.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in sorted(source.glob("*.ipynb")):
        shutil.copy2(path, target)
