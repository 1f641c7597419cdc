"""States through Orbax and back: the run goes on as if nothing had been.

    python -m tests.conformance.test_checkpoints

adds the states of kinds that have none: later versions must go on from them.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.conformance.archive import named, read, write
from tests.conformance.checks import assert_equal
from tests.registry import ENTRIES, KINDS, draw
from tests.theory.training import walk

each_kind = pytest.mark.parametrize("name", KINDS)
STORED = pathlib.Path(__file__).parent / "data" / "states.npz"

# Fields that had another name in stored states.
RENAMED = {".place": ".base_point"}


def at_the_middle(tx):
    """Weights and state when the run is interrupted."""
    path, state = walk(tx, draw(0), map(draw, (1, 2)))
    return path[-1], state


def to_the_end(tx, params, state):
    path, state = walk(tx, params, map(draw, (3, 4)), state)
    return path[-1], state


def through_orbax(saved, folder, target):
    """What comes back into arrays like those of the target."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "checkpoint", saved)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "checkpoint", target)


@each_kind
def test_a_run_that_was_interrupted(tx, tmp_path):
    saved = at_the_middle(tx)
    target = jax.eval_shape(lambda: (draw(0), tx.init(draw(0))))
    restored = through_orbax(saved, tmp_path, target)
    assert_equal(restored, saved)
    expected = to_the_end(tx, *saved)
    # Committed to no device, as operations compile anew for those that are.
    restored = jax.tree.map(jnp.asarray, jax.device_get(restored))
    assert_equal(to_the_end(tx, *restored), expected)
    anew = to_the_end(tx, restored[0], tx.init(restored[0]))
    if jax.tree.leaves(saved[1]):  # A state that is forgotten is missed.
        different = jax.tree.map(np.array_equal, anew, expected)
        assert not all(jax.tree.leaves(different))


def spread_out(x, mesh):
    """The same, its last axis on two devices where there are two of it."""
    divides = x.ndim > 0 and x.shape[-1] % 2 == 0
    axes = [None] * (x.ndim - 1) + ["d"] if divides else []
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


@each_kind
def test_another_sharding(tx, tmp_path):
    mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
    saved = at_the_middle(tx)
    target = jax.tree.map(lambda x: spread_out(x, mesh), saved)
    restored = through_orbax(saved, tmp_path, target)
    assert_equal(jax.device_get(restored), jax.device_get(saved))
    for x, wanted in zip(
        *map(jax.tree.leaves, (restored, target)), strict=True
    ):
        assert x.sharding == wanted.sharding
    assert any(not x.is_fully_replicated for x in jax.tree.leaves(restored))


def write_stored(path=STORED):
    """Weights and states in the middle and at the end, of kinds without."""
    arrays = read(path)
    kept = {key.partition("/")[0] for key in arrays}
    for name in sorted(set(KINDS) - kept):
        with jax.numpy_dtype_promotion("standard"):
            tx = ENTRIES[name].build()
            middle = at_the_middle(tx)
            end, _ = to_the_end(tx, *middle)
        for part, tree in (("middle", middle), ("end", end)):
            for place, x in named(tree).items():
                arrays[f"{name}/{part}{place}"] = np.asarray(x)
    write(path, arrays)


def read_stored():
    """Return the stored arrays by the names that fields have now."""
    arrays = read(STORED)
    for old, new in RENAMED.items():
        arrays = {key.replace(old, new): x for key, x in arrays.items()}
    return arrays


@each_kind
def test_the_state_of_an_earlier_version(tx, name):
    arrays = read_stored()
    middle = at_the_middle(tx)
    found = {
        place: arrays.pop(f"{name}/middle{place}") for place in named(middle)
    }
    left = [key for key in arrays if key.startswith(f"{name}/middle")]
    assert not left
    for place, x in named(middle).items():
        assert (found[place].shape, found[place].dtype) == (x.shape, x.dtype)
    restored = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(found[jax.tree_util.keystr(path)]), middle
    )
    params, _ = to_the_end(tx, *restored)
    for place, x in named(params).items():
        # Another version of JAX or processor may sum in another order: 20
        # roundings, in the step and before it, of the largest weight. That is
        # less than 8, unless nothing retracts: there it has grown to 1000.
        end = arrays[f"{name}/end{place}"]
        rounding = 2.0**-24 * max(8, np.abs(end).max())
        np.testing.assert_allclose(x, end, rtol=0, atol=20 * rounding)
        if name != "scale_by_group_norm":
            assert not np.array_equal(end, found[f"[0]{place}"])


if __name__ == "__main__":
    write_stored()
