"""Freezes what other libraries do: writes tests/oracles/data/*.npz.

`make oracles` runs this in environments of its own below build/oracles: one
with what requirements.txt beside this file lists, and, where there is a Python
of 3.12 or newer, one with requirements-emerging.txt.

    python -m tests.oracles.make                   all of requirements.txt
    python -m tests.oracles.make emerging          Emerging-Optimizers
    python -m tests.oracles.make --sources FOLDER  and what is on no registry

FOLDER holds clones of two repositories of GitHub, whose code is never copied
here: MinhyungCho/riemannian-batch-normalization-pytorch (SGD-G, Adam-G) and
epfml/REQ at 29ffb09ca296cb275590fa51c84c720bf84b03a8 (RotationalWrapper).

Every file holds the first weights, the gradients that the optimizer was given,
the weights after each step, the optimizer's settings and the versions that
made it (of clones, the SHA-256 of the files used). `frozen.load` reads it. A
file that was there before is compared with the new one; the same versions on
the same machine make the same file, bit for bit.
"""

import argparse
import hashlib
import importlib
import importlib.metadata
import json
import pathlib
import platform
import sys

import numpy as np

from benchmarks.harness import files
from benchmarks.harness.files import one_message
from benchmarks.harness.names import unknown
from tests.oracles.frozen import DATA

INSTALLED = (
    "torch_optim",
    "torch_parametrizations",
    "projected",
    "geoopt_spheres",
    "pymanopt_oblique",
)
KNOWN = (*INSTALLED, "emerging")
CLONED = {
    "riemannian_bn": "riemannian-batch-normalization-pytorch",
    "rotational": "REQ",
}


@one_message()
def main():
    """Reads the command line and makes what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "peers",
        nargs="*",
        type=_known,
        help="modules of tests.oracles.peers; without any, all that need "
        "no more than requirements.txt installs",
    )
    parser.add_argument("--sources", type=_folder, help="a folder of clones")
    arguments = parser.parse_args()
    for peer in arguments.peers or INSTALLED:
        make(peer)
    if not arguments.peers:
        make_from_clones(arguments.sources)


def _known(text):
    if text not in KNOWN:
        raise argparse.ArgumentTypeError(unknown(text, KNOWN))
    return text


def _folder(text):
    if not pathlib.Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return pathlib.Path(text)


def make_from_clones(folder):
    """Makes what is on no registry, as far as it is in the folder."""
    for peer, repository in CLONED.items():
        clone = folder / repository if folder else None
        if clone and clone.is_dir():
            sys.path.insert(0, str(clone))
            make(peer, clone)
        else:
            print(f"{peer}: skipped, no clone of {repository} in --sources")


def make(peer, clone=None):
    """Writes the files of one module of peers."""
    module = importlib.import_module(f"tests.oracles.peers.{peer}")
    versions = {"python": platform.python_version()}
    for name in module.DISTRIBUTIONS:
        versions[name] = importlib.metadata.version(name)
    for name in module.SOURCES if clone else ():
        source = (clone / name).read_bytes()
        versions[name] = f"sha256 {hashlib.sha256(source).hexdigest()}"
    for name, arrays in module.cases():
        write(name, {**arrays, "versions": json.dumps(versions)})


def write(name, arrays):
    """Writes one file, and says how far it is from what was there."""
    path = DATA / f"{name}.npz"
    change = difference(path, arrays) if path.exists() else "new"
    with files.whole(path) as file:
        np.savez_compressed(file, **arrays)
    print(f"{name}: {change}, {path.stat().st_size} bytes")


def difference(path, arrays):
    """The largest difference of a number from what the file holds."""
    numbers = {k: x for k, x in arrays.items() if isinstance(x, np.ndarray)}
    with np.load(path) as old:
        if any(
            k not in old or old[k].shape != x.shape for k, x in numbers.items()
        ):
            return "of other shapes than before"
        worst = max(np.abs(old[k] - x).max() for k, x in numbers.items())
    return "the same numbers" if worst == 0 else f"changed by {worst:.1e}"


if __name__ == "__main__":
    main()
