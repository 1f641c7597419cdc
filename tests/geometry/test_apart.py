"""bfloat16 that XLA for CPU widens for each use alone: the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from psi_optax import ScaleGroup, psi_sgd
from psi_optax.geometry import _scheduling
from psi_optax.groups.reductions import to_accumulator
from psi_optax.wrappers import master_weights
from tests.compilation import needs_bounded_memory

GROUPS = ScaleGroup(axes=0)
PATTERNS = jnp.asarray(np.arange(2**16, dtype=np.uint16)).view(jnp.bfloat16)


@jax.jit
def widened(x):
    return to_accumulator(_scheduling.apart(x))


def test_every_number_is_widened_exactly():
    patterns = np.arange(2**16, dtype=np.uint32)
    number = (patterns & 0x7FFF) <= 0x7F80  # Infinity.
    bits = np.asarray(widened(PATTERNS)).view(np.uint32)
    np.testing.assert_array_equal(bits[number], patterns[number] << 16)
    np.testing.assert_array_equal(jnp.isnan(widened(PATTERNS)), ~number)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_array_is_the_same_and_so_is_its_derivative(dtype):
    x = jnp.asarray([0.0, -0.0, np.inf, -7, 1e-3], dtype)
    assert jax.jit(_scheduling.apart)(x).tobytes() == x.tobytes()
    assert _scheduling.apart(x) is x  # Nothing is compiled.
    for differentiate in jax.jacfwd, jax.jacrev:
        slope = jax.jit(differentiate(_scheduling.apart))(x)
        np.testing.assert_array_equal(slope, np.eye(5))

    def cube(x):
        return jnp.sum(_scheduling.apart(x) ** 3)

    curvature = jax.jit(jax.hessian(cube))(x[3:])
    expected = jax.jit(jax.hessian(lambda x: jnp.sum(x**3)))(x[3:])
    np.testing.assert_array_equal(curvature, expected)


def test_it_composes_with_vmap_and_scan():
    rows = jnp.stack([PATTERNS, -PATTERNS])
    mapped = jax.jit(jax.vmap(widened))(rows)
    scanned = jax.lax.scan(lambda _, x: (None, widened(x)), None, rows)[1]
    for got in mapped, scanned:
        np.testing.assert_array_equal(got, rows.astype(jnp.float32))


def test_a_replicated_array_stays_replicated_in_shard_map():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    same = PartitionSpec()
    got = jax.shard_map(widened, mesh=mesh, in_specs=same, out_specs=same)(
        jnp.ones(4, "bfloat16")
    )
    np.testing.assert_array_equal(got, np.ones(4))


@pytest.fixture
def alone(monkeypatch):
    """As if the process had one device: tests have eight."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def compiled_step(tx, width):
    """Return the compiled step of one leaf, and its number of weights."""
    w = jnp.ones((512, width), "bfloat16")

    def step(w, state, g):
        u, state = tx.update(g, state, w)
        return optax.apply_updates(w, u), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(w, tx.init(w), w)
    return lowered.compile(), w.size


def temporaries(tx, width=256):
    """How many leaves' worth of temporaries a step has, in bfloat16."""
    compiled, size = compiled_step(tx, width)
    return compiled.memory_analysis().temp_size_in_bytes / (2 * size)


def traffic(tx, width=256):
    """How many bytes a step reads and writes for each weight."""
    compiled, size = compiled_step(tx, width)
    return compiled.cost_analysis()["bytes accessed"] / size


OPTIMIZERS = [
    psi_sgd(0.1, GROUPS),
    psi_sgd(0.1, GROUPS, momentum=0.9),
    master_weights(psi_sgd(0.1, GROUPS, momentum=0.9)),
]


@needs_bounded_memory
@pytest.mark.parametrize("tx", OPTIMIZERS)
def test_no_float32_copy_of_a_leaf_is_written(alone, tx):
    assert temporaries(tx) < 0.5


@needs_bounded_memory
@pytest.mark.parametrize("tx", OPTIMIZERS)
def test_it_is_written_where_uses_are_not_kept_apart(alone, monkeypatch, tx):
    monkeypatch.setattr(jax.lax, "optimization_barrier", lambda x: x)
    # Another shape, as traces are remembered.
    assert temporaries(tx, width=384) > 1.5


@needs_bounded_memory
def test_a_step_reads_little_more_than_it_must(alone):
    # The sum reads w and g, the update reads both and writes w: 10 bytes. The
    # program also counts the norm's branch, which other code's changes take.
    assert traffic(psi_sgd(0.1, GROUPS)) < 18
    # And 6 for the momentum, 4 for its product with the weights in that branch.
    # Written float32 copies add 8 each.
    assert traffic(psi_sgd(0.1, GROUPS, momentum=0.9)) < 28
