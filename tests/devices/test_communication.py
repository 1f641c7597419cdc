"""What a compiled update sends between devices: sums of groups, no weights."""

import math
import re

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding

from psi_optax import ScaleGroup, psi_direction, rotational
from psi_optax.transforms import project_to_tangent, scale_by_group_rms
from tests.compilation import quick_options
from tests.devices.meshes import make_mesh, sharded, spec_of
from tests.devices.network import BLOCKS, step
from tests.registry import ENTRIES

COLLECTIVE = re.compile(
    r"= (?P<type>\(.*?\)|\S+)"
    r" (?P<kind>all-reduce|all-gather|all-to-all|reduce-scatter"
    r"|collective-permute|collective-broadcast)(-start)?\("
)


def collectives(program):
    """The kinds, and the sizes of the arrays, of what a program sends."""
    found = list(COLLECTIVE.finditer(program))
    shapes = [
        shape
        for match in found
        for shape in re.findall(r"\w+\[([\d,]*)\]", match["type"])
    ]
    sizes = [math.prod(int(n) for n in s.split(",") if n) for s in shapes]
    return [match["kind"] for match in found], sizes


def compiled(recipe, axis):
    with jax.set_mesh(make_mesh("auto")):
        tx, params, state = sharded(recipe, "float32", axis, "auto")
        lowered = jax.jit(step(tx)).lower(params, state, params)
        return lowered.compile(quick_options()).as_text()


@pytest.mark.parametrize("recipe", ["psi", "psi_sgdm"])
def test_shards_of_output_channels_send_blocks_and_ties_alone(recipe):
    kinds, sizes = collectives(compiled(recipe, "outputs"))
    assert set(kinds) == {"all-reduce"}
    # The three blocks and the tied layer; a column is whole on its device.
    assert set(sizes) == {BLOCKS, 1}


@pytest.mark.parametrize("recipe", ["psi", "psi_sgdm"])
def test_shards_of_fan_in_send_sums_over_fan_in(recipe):
    kinds, sizes = collectives(compiled(recipe, "fan_in"))
    assert set(kinds) == {"all-reduce"}
    # 32 columns, the tied layer, and the blocks: as three sums or, where the
    # compiler sums over the mesh before it sums over a block, as 24 columns.
    assert {32, 1} <= set(sizes) <= {32, 24, BLOCKS, 1}


@pytest.mark.parametrize("recipe", ["psi", "psi_sgd"])
def test_sums_are_formed_once_and_sent_together(recipe):
    kinds, sizes = collectives(compiled(recipe, "fan_in"))
    # |w|², <w, d> and |d|²: of 32 columns, of the tied kernel and bias, and of
    # the 24 columns that the compiler may add up to blocks later.
    assert sum(sizes) <= 3 * (32 + 1 + 1 + 24)
    # The norms, then what the directions need of them; in the XLA of JAX 0.10
    # one after the other, each with the norms of the next parameter.
    assert len(kinds) <= (2 if jax.__version_info__ >= (0, 12) else 4)


# The XLA of JAX 0.12 keeps the barriers that batch messages.
BATCHES = jax.__version_info__ >= (0, 12)
LEAVES = 5
COLUMNS = ScaleGroup(axes=0)
# The sums of a transported momentum follow those of its transport.
UNBATCHED = ("sgd_g", "adam_g")


def messages(tx):
    """How many sums a step of some leaves sends, their fan-in in shards."""
    mesh = make_mesh("auto")
    x = jnp.ones((24, 16))
    x = jax.device_put(x, NamedSharding(mesh, spec_of(x, 0)))
    params = {str(i): x for i in range(LEAVES)}
    with jax.numpy_dtype_promotion("standard"):
        lowered = jax.jit(step(tx)).lower(params, tx.init(params), params)
    kinds, sizes = collectives(lowered.compile(quick_options()).as_text())
    assert set(kinds) == {"all-reduce"}
    assert set(sizes) <= {16, 1}
    return len(kinds)


# The norms, then what the directions need of them. An earlier XLA sends one
# after the other, each with the norms of the next parameter.
MOST = 2 if BATCHES else LEAVES + 1


def recipes():
    return [
        name
        for name, entry in ENTRIES.items()
        if entry.factory.__module__.startswith("psi_optax.optimizers")
        and not entry.multiplies
        and name not in UNBATCHED
    ]


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_sends_two_messages_for_any_number_of_leaves(name):
    entry = ENTRIES[name]
    assert 1 <= messages(entry.build(COLUMNS)) <= MOST


def test_centering_is_another_message():
    tx = rotational(0.1, optax.trace(0.9), COLUMNS, centered=True)
    assert messages(tx) <= (3 if BATCHES else 2 * LEAVES + 1)


def test_transforms_that_wait_for_each_other_send_more():
    chained = optax.chain(
        optax.trace(0.9),
        project_to_tangent(COLUMNS),
        scale_by_group_rms(COLUMNS),
    )
    assert messages(psi_direction(0.1, chained, COLUMNS)) > MOST


def test_no_norm_is_used_before_all_are_known():
    # The compiler of JAX 0.10 sends them in other turns, with a barrier or not.
    with jax.set_mesh(make_mesh("auto")):
        tx, params, state = sharded("psi", "float32", "fan_in", "auto")
        text = jax.jit(step(tx)).lower(params, state, params).as_text()
    barriers = re.findall(r"optimization_barrier ([^:]*) :", text)
    # Those of the columns, of the blocks, and of the tied layer.
    assert max((len(x.split(",")) for x in barriers), default=0) == 3


def test_a_reshape_in_place_of_a_mask_sends_weights():
    mesh = make_mesh("auto")
    x = jnp.ones((24, 24))
    x = jax.device_put(x, NamedSharding(mesh, spec_of(x, -1)))

    def norms(x):
        return jnp.sqrt(jnp.sum(x.reshape(24, BLOCKS, -1) ** 2, (0, 2)))

    program = jax.jit(norms).lower(x).compile().as_text()
    kinds, sizes = collectives(program)
    assert set(kinds) - {"all-reduce"}
    assert max(sizes) >= 24 * 24 / 8
