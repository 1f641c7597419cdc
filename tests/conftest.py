"""How the tests run: eight CPU devices, nothing promoted or broadcast unseen."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision, for what is compared with mathematics."""
    with jax.enable_x64(True):
        yield
