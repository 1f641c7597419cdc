"""Primitives that people's models have: each found, beside one that is not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec

from psi_optax import ScaleGroup, find_groups, geometry
from psi_optax.groups import make_plan
from psi_optax.invariance.analysis.rules.shapes import axis_sources
from tests.invariance.losses import (
    normalized,
    report_on,
    shapes,
    total,
    unit,
)

X, W = shapes(x=(8, 6), w=(6, 4)).values()


def found(function):
    """Return the group of w in the total of a function of x @ w."""
    return report_on(lambda p, x: function(x @ p["w"]), {"w": W}, X)["w"].group


SAME_ELEMENTS = {
    "checkpoint_name": lambda h: checkpoint_name(h, "h"),
    "device_put": jax.device_put,
    "unstack": lambda h: jnp.stack(jnp.unstack(h)),
    "composite": jax.lax.composite(lambda h: 2.0 * h, "my.op"),
    "scatter-mul": lambda h: h.at[0].multiply(2.0),
    "tile": lambda h: jnp.tile(h, (2, 1)),
}


@pytest.mark.parametrize("name", SAME_ELEMENTS)
def test_the_same_elements_keep_their_channels(name):
    function = SAME_ELEMENTS[name]
    assert found(lambda h: normalized(function(h))) == ScaleGroup(0)
    assert found(function) is None


def test_a_fourier_transform_mixes_its_axes_alone():
    def spectrum(h):
        y = jnp.fft.fft(h, axis=1)
        return jnp.abs(jnp.real(y)) + jnp.abs(jnp.imag(y))

    assert found(lambda h: unit(spectrum(h), 0)) == ScaleGroup((0, 1))
    # Transposed, the channels are apart from the axis of the transform.
    assert found(lambda h: unit(spectrum(h.T), 1)) == ScaleGroup(0)
    assert found(spectrum) is None


def test_tiles_repeat_channels():
    def tiled(h):
        return jnp.tile(h, (1, 3))

    assert found(lambda h: normalized(tiled(h))) == ScaleGroup(0)
    # Each norm is over one copy: the channels have one scale.
    assert found(
        lambda h: unit(tiled(h).reshape(8, 3, 4)).reshape(8, 12)
    ) == ScaleGroup((0, 1))
    # Sums over the copies, and over neighbours.
    assert found(
        lambda h: normalized(tiled(h).reshape(8, 3, 4).sum(1), 0)
    ) == ScaleGroup(0)
    assert found(
        lambda h: normalized(tiled(h).reshape(8, 4, 3).sum(2), 0)
    ) == ScaleGroup((0, 1))


ROWS = jnp.array([1, 2, 3, 4, 5, 6, 7, 0])


@pytest.mark.parametrize("name", ["add", "subtract", "set", "max", "min"])
def test_scatters_keep_what_is_free(name):
    def scattered(h, axis):
        h = jnp.moveaxis(h, axis, 0)
        at = jnp.zeros_like(h).at[ROWS[: len(h)] % len(h)]
        return jnp.moveaxis(getattr(at, name)(h), 0, axis)

    assert found(lambda h: normalized(scattered(h, 0), 0)) == ScaleGroup(0)
    # Along the channels: they are mixed.
    assert found(lambda h: unit(scattered(h, 1), 0)) == ScaleGroup((0, 1))
    assert found(lambda h: scattered(h, 0)) is None


def test_scatters_of_a_part_and_of_batches():
    def part(h):
        return jnp.zeros_like(h).at[0, 1:3].set(h[0, 0:2])

    def batches(h):
        return jax.vmap(lambda y: jax.ops.segment_sum(y, ROWS % 3, 3))(h.T).T

    assert found(lambda h: normalized(h + part(h), 0)) == ScaleGroup((0, 1))
    assert found(lambda h: normalized(batches(h), 0)) == ScaleGroup(0)
    assert found(batches) is None


def test_a_factor_that_scales_is_no_factor():
    def multiplied(h):
        return normalized(h.at[0].multiply(h[1]), 0)

    assert found(multiplied) is None


def test_experts_by_ragged_products():
    sizes, w = jnp.array([3, 5]), shapes(w=(2, 6, 4))

    def group(norm):
        def experts(params, x):
            return norm(jax.lax.ragged_dot(x, params["w"], sizes))

        return report_on(experts, w, X)["w"].group

    # Each expert has a scale, and none of its columns.
    assert group(unit) == ScaleGroup((1, 2))
    # Over all rows, the experts have one for each column.
    assert group(lambda y: unit(y, 0)) == ScaleGroup((0, 1))
    assert group(lambda y: y) is None


# -- meshes ---------------------------------------------------------------


MESH = Mesh(np.array(jax.devices()[:4]), ("d",))
ROW_SHARDS, COLUMN_SHARDS = PartitionSpec("d"), PartitionSpec(None, "d")


def sharded(function, w_spec):
    """Return the group of a kernel (8, 8) of whose shards there is a loss."""
    mapped = jax.shard_map(
        lambda w, x: jax.lax.psum(total(function(w, x)), "d"),
        mesh=MESH,
        in_specs=(w_spec, PartitionSpec()),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    w, x = shapes(w=(8, 8), x=(12, 8)).values()
    report = find_groups(mapped, w, x, method="analysis")
    return report[""].group


def gathered(w, axis, tiled=True):
    return jax.lax.all_gather(w, "d", axis=axis, tiled=tiled)


@pytest.mark.parametrize(
    ("axis", "spec"), [(0, ROW_SHARDS), (1, COLUMN_SHARDS)]
)
def test_gathered_weights_are_whole(axis, spec):
    def group(norm):
        return sharded(lambda w, x: norm(x @ gathered(w, axis)), spec)

    assert group(normalized) == ScaleGroup(0)
    assert group(unit) == ScaleGroup((0, 1))
    # Of eight columns, those of one half are those of two devices.
    halves = ScaleGroup((0, 1), {1: 2})
    assert group(lambda h: unit(h.reshape(12, 2, 4))) == halves
    assert group(lambda h: h) is None


def test_gathered_along_a_new_axis():
    def norm(w, x):
        parts = gathered(w, 1, tiled=False)  # (8, 4, 2)
        return normalized(jnp.einsum("bi,idk->bdk", x, parts))

    assert sharded(norm, COLUMN_SHARDS) == ScaleGroup(0)


def test_sums_that_are_scattered():
    def product(w, x):
        rows = jax.lax.axis_index("d") * 2
        part = jax.lax.dynamic_slice_in_dim(x, rows, 2, 1)
        return jax.lax.psum_scatter(
            part @ w, "d", scatter_dimension=1, tiled=True
        )

    def norm(w, x):
        return normalized(product(w, x))

    assert sharded(norm, ROW_SHARDS) == ScaleGroup(0)
    assert sharded(product, ROW_SHARDS) is None


@pytest.mark.parametrize(("axis", "axes"), [(0, 0), (1, (0, 1))])
def test_arrays_that_are_exchanged(axis, axes):
    def norm(w, x):
        h = x @ w  # All rows, two columns on each device.
        h = jax.lax.all_to_all(h, "d", 0, 1, tiled=True)  # (3, 8)
        return unit(h, axis)

    assert sharded(norm, COLUMN_SHARDS) == ScaleGroup(axes)


# The neighbour's column over the norm of one's own.
@pytest.mark.parametrize(("move", "axes"), [(False, 0), (True, (0, 1))])
def test_arrays_that_move_on(move, axes):
    def norm(w, x):
        h = x @ w
        other = jax.lax.ppermute(h, "d", [(i, (i + 1) % 4) for i in range(4)])
        return (other if move else h) / jnp.linalg.norm(h, axis=0)[None]

    assert sharded(norm, COLUMN_SHARDS) == ScaleGroup(axes)


# -- guards ---------------------------------------------------------------


def guarded(size):
    return jnp.where(size == 0, 1.0, size)


def size_of(h, axis=-1):
    return jnp.linalg.norm(h, axis=axis, keepdims=True)


GUARDS = {
    "zero": lambda h: h / guarded(size_of(h)),
    "not zero": lambda h: h / jnp.where(size_of(h) != 0, size_of(h), 1.0),
    "positive": lambda h: h / jnp.where(size_of(h) > 0, size_of(h), 1.0),
    "mirrored": lambda h: (
        h / jnp.where(jnp.less(0.0, size_of(h)), size_of(h), 1.0)
    ),
    "safe_norm": lambda h: h / optax.safe_norm(h, 1e-6, axis=-1, keepdims=True),
    "over the batch": lambda h: h / guarded(size_of(h, 0)),
    "nothing": lambda h: jnp.where(size_of(h) == 0, 0.0, h / size_of(h)),
}


@pytest.mark.parametrize("name", GUARDS)
def test_guards_of_norms(name):
    function = GUARDS[name]
    axes = 0 if name == "over the batch" else (0, 1)
    for before in (lambda h: h, jax.nn.relu):
        assert found(lambda h, f=before: function(f(h))) == ScaleGroup(axes)


# A row of zeros is divided by one, and what is divided is not zero there.
NO_GUARDS = {
    "of another": lambda h: jnp.abs(h) / guarded(size_of(jax.nn.relu(h))),
    "of another axis": lambda h: (lambda r: r / guarded(size_of(r)).T)(h[:4]),
    "the wrong way": lambda h: h / jnp.where(size_of(h) > 0, 1.0, size_of(h)),
    "of a large bound": lambda h: (
        h / jnp.where(size_of(h) > 1, size_of(h), 1.0)
    ),
    "of what may be negative": lambda h: (
        h / jnp.where(h[:, :1] > 0, size_of(h), 1.0)
    ),
    "whose mean is taken": lambda h: h / jnp.mean(guarded(size_of(h))),
    "that is summed": lambda h: h / jnp.sum(guarded(size_of(h)), 0)[None],
    "used otherwise": lambda h: h / size_of(h) + jnp.tanh(guarded(size_of(h))),
}


@pytest.mark.parametrize("name", NO_GUARDS)
def test_what_is_no_guard(name):
    assert found(NO_GUARDS[name]) is None


def test_a_weight_that_is_zero_is_not_guarded_against():
    def group(guard):
        def divided(params, x):
            size = size_of(params["w"], 0)
            return x @ (guard(params["w"]) / guarded(size))

        return report_on(divided, {"w": W}, X)["w"].group

    # A group of norm zero is, and never moves.
    assert group(lambda w: w) == ScaleGroup(0)
    assert group(lambda w: jnp.where(w == 0, 1.0, w)) is None
    assert group(lambda w: jnp.where(w * w == 0, 1.0, w)) is None


@pytest.mark.parametrize(("more", "found"), [(0, True), (2, False)])
def test_integers_wrap_around(more, found):
    def penalized(params, x):
        number = jnp.full((), 255, jnp.uint8) + jnp.full((), more, jnp.uint8)
        number = number.astype(jnp.float32) - jnp.float32(255 + more)
        penalty = number * jnp.sum(params["w"] ** 2)
        return normalized(x @ params["w"]) + penalty

    group = report_on(penalized, {"w": W}, X)["w"].group
    assert (group is not None) == found


# -- centring through reshapes -----------------------------------------------


@pytest.mark.parametrize(
    ("shape", "inert"), [((2, 4, 4), True), ((2, 16), False)]
)
def test_a_bias_before_ghost_batches_is_inert(shape, inert):
    """Of a mean over the channels too it leaves a part."""

    def ghosts(params, x):
        h = x @ params["w"] + params["b"][None]
        return normalized(h.reshape(shape), 1)

    report = report_on(ghosts, shapes(w=(6, 4), b=(4,)), X)
    assert (report["b"].kind == "inert") == inert
    assert (report["w"].group == ScaleGroup(0)) == inert


def shapes_of(size):
    for a, b in itertools.product(range(1, size + 1), repeat=2):
        if size % (a * b) == 0:
            yield a, b, size // (a * b)


@pytest.mark.parametrize("size", [6, 8, 12])
def test_the_sources_of_the_axes_of_a_reshape(size):
    """An array that is constant along axes is so along what they become."""
    random = np.random.RandomState(0)
    known = 0
    for shape, other in itertools.product(shapes_of(size), repeat=2):
        made = axis_sources(shape, other)
        for flat in itertools.product([False, True], repeat=3):
            own = [1 if f else n for f, n in zip(flat, shape, strict=True)]
            x = np.broadcast_to(random.normal(size=own), shape).reshape(other)
            constant = {a for a in range(3) if own[a] == 1}
            for axis, axes in enumerate(made):
                if axes <= constant:
                    known += other[axis] > 1
                    assert np.all(np.diff(x, axis=axis) == 0)
    assert known


def test_the_mean_of_groups_is_known_as_one():
    """A shift that `geometry.center` removes has no effect."""

    def function(centers):
        def shifted(params, x):
            w = params["w"] + params["shift"][None]
            if centers:
                plan = make_plan(ScaleGroup(0), w)
                w = geometry.center(plan, {"": w})[""]
            return x @ unit(w, 0)

        return shifted

    params = shapes(w=(6, 4), shift=(4,))
    report = report_on(function(centers=True), params, X)
    assert report["w"].group == ScaleGroup(0)
    assert report["shift"].kind == "inert"
    report = report_on(function(centers=False), params, X)
    assert report["w"].group == ScaleGroup(0, tie=report["w"].group.tie)
    assert report["w"].group.tie == report["shift"].group.tie is not None
