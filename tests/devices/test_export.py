"""Lowering for TPUs, of which none is needed here."""

import jax
import jax.numpy as jnp
import pytest
from jax import export

from tests.registry import ENTRIES, draw


def lowered(function, *shapes):
    return export.export(jax.jit(function), platforms=["tpu"])(*shapes)


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.usefixtures("optax_promotion")
def test_update_lowers_for_tpu(name):
    tx = ENTRIES[name].build()
    params = jax.eval_shape(lambda: draw(0))
    state = jax.eval_shape(tx.init, params)
    exported = lowered(tx.update, params, state, params)
    assert exported.platforms == ("tpu",)
    assert len(exported.out_avals) == len(jax.tree.leaves((params, state)))
    # A TPU multiplies matrices in bfloat16: no norm may be formed that way.
    multiplies = "dot_general" in exported.mlir_module()
    assert multiplies == ENTRIES[name].multiplies


def test_a_contraction_would_be_seen():
    x = jax.ShapeDtypeStruct((6, 4), jnp.float32)
    exported = lowered(lambda x: jnp.einsum("ij,ij->j", x, x), x)
    assert "dot_general" in exported.mlir_module()
