"""Archives of arrays by name, which are equal if their arrays are."""

import io
import pathlib
import zipfile

import jax
import numpy as np


def named(tree):
    """The leaves of a tree by the names of their places."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): x for path, x in leaves}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the arrays of an archive by name; of none, none."""
    if not path.exists():
        return {}
    with np.load(path) as archive:
        return dict(archive)


def write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name."""
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[key]))
            # With a date of its own an archive would never be the same twice.
            info = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content.getvalue())
