"""How the tests run: eight CPU devices, no promotion or broadcast unseen."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA's threads. A device that waits for the others in an all-reduce keeps its
# thread, so with few of them (on a small machine, as many as devices) two
# programs in flight wait for each other for ever.
os.environ.setdefault("NPROC", "32")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True)
def _strict():
    """Nothing is promoted or broadcast across ranks without saying so."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


# Tests that compile for much longer than they compute. What is claimed of
# programs as users compile them is tested elsewhere: theory, geometry, devices.
ROUGH = {"benchmarks", "diagnostics", "invariance", "models", "oracles"}
TESTS = pathlib.Path(__file__).parent


@pytest.fixture(autouse=True)
def _rough(request):
    """Compilation in less time; the machine code is left rough."""
    folder, *_ = request.path.relative_to(TESTS).parts
    jax.config.update("jax_disable_most_optimizations", folder in ROUGH)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True, scope="module")
def _forget(request):
    """What is compiled for a folder is dropped before the next one.

    A process that kept all of some 8,000 programs ended in a segmentation
    fault of the compiler's.
    """
    global FOLDER
    folder, FOLDER = FOLDER, request.path.parent
    if folder != FOLDER:
        jax.clear_caches()


FOLDER = TESTS


@pytest.fixture
def x64():
    """Double precision, for what is compared with mathematics."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def optax_promotion():
    """Promotion as optax needs it: its Adam takes a float to an int32 power."""
    with jax.numpy_dtype_promotion("standard"):
        yield
