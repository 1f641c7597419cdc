"""How the tests run: eight CPU devices, no promotion or broadcast unseen."""

import contextlib
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA's threads. A device that waits for the others in an all-reduce keeps its
# thread, so with few of them (on a small machine, as many as devices) two
# programs in flight wait for each other for ever.
os.environ.setdefault("NPROC", "32")

import jax
import pytest

from psi_optax._compat import enable_x64
from psi_optax.geometry import _scheduling, stacks
from tests.compilation import all_quick

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(autouse=True)
def _strict():
    """Nothing is promoted or broadcast across ranks without saying so."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True, scope="module")
def _one_device(request):
    """Choose the forms of steps for one device, outside of tests/devices."""
    with pytest.MonkeyPatch.context() as patch:
        if "devices" not in request.path.relative_to(TESTS).parts:
            for module in (_scheduling, stacks):
                patch.setattr(module, "on_one_device", _no_mesh)
        yield


def _no_mesh():
    return not jax.sharding.get_abstract_mesh().manual_axes


# Where programs are compiled as users compile them. All other tests compile for
# much longer than they compute.
AS_USERS = {"geometry", "precision", "theory", "wrappers"}
TESTS = pathlib.Path(__file__).parent


@pytest.fixture(autouse=True, scope="module")
def _compilation(request):
    """Compile quickly in most folders; drop what another folder compiled.

    A process that kept all of some 8,000 programs ended in a segmentation
    fault of the compiler's.
    """
    global FOLDER
    if request.path.parent != FOLDER:
        jax.clear_caches()
    FOLDER = request.path.parent
    as_users = AS_USERS.intersection(FOLDER.relative_to(TESTS).parts)
    with contextlib.nullcontext() if as_users else all_quick():
        yield


FOLDER = TESTS


@pytest.fixture
def x64():
    """Double precision, for what is compared with mathematics."""
    with enable_x64(True):
        yield


@pytest.fixture
def optax_promotion():
    """Promotion as optax needs it: its Adam takes a float to an int32 power."""
    with jax.numpy_dtype_promotion("standard"):
        yield
