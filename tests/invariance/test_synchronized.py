"""Means over axes of a mesh: each centring found, beside one that is none."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import pmean, psum
from jax.sharding import Mesh, PartitionSpec as P

from psi_optax import ScaleGroup, find_groups
from tests.invariance.losses import arrays, total

MESH = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("d", "e"))
ROWS, WHOLE = P("d"), P()
X = arrays(x=(16, 3))["x"]
METHODS = ["analysis", "both"]
# Until JAX 0.9 a stack is the concatenation of new arrays: a mean of one is not
# known to be a mean of the array that was stacked.
HAS_STACKS = hasattr(jax.lax, "stack")

pytestmark = pytest.mark.usefixtures("promotion")


@pytest.fixture
def promotion():
    with jax.numpy_rank_promotion("allow"):
        yield


def place(x):
    """Return a device's place along the first axis, in an array's dtype."""
    return jax.lax.axis_index("d").astype(x.dtype)


def mapped(body, *in_specs, check_vma=True, **options):
    """Return a loss of params and rows that lie on the devices of a mesh."""
    run = jax.shard_map(
        body,
        mesh=MESH,
        in_specs=in_specs,
        out_specs=P(),
        check_vma=check_vma,
        **options,
    )
    return lambda params, rows: run(params["w"], params["b"], rows)


def summed(y):
    """Sum over all devices, each of which counts differently."""
    return psum(psum(total(y) * (1 + place(y)), "d"), "e")


def on_devices(norm, bias=WHOLE, x=ROWS, kernel=WHOLE, check_vma=True):
    """Return the loss of a layer whose devices normalize together."""

    def body(w, b, x):
        return summed(norm(x @ w + b))

    return mapped(body, kernel, bias, x, check_vma=check_vma)


def report(loss, method="analysis", length=4, channels=4):
    params = arrays(w=(3, channels), b=(length,))
    return find_groups(loss, params, X, method=method)


def cancels(found):
    """Return whether the bias and the scales of the channels drop out."""
    verdicts = found["b"].kind == "inert", found["w"].group == ScaleGroup(0)
    assert verdicts[0] == verdicts[1]
    return verdicts[0]


def scaled(h, mean, variance):
    return (h - mean) / jnp.sqrt(variance)


def two_passes(h, axes="d", of=lambda h: h.mean(0)):
    mean = pmean(of(h), axes)
    return scaled(h, mean, pmean(of((h - mean) ** 2), axes))


def squares(h, axes="d"):
    mean = pmean(h.mean(0), axes)
    return scaled(h, mean, pmean((h * h).mean(0), axes) - mean**2)


def sums(h, count, axes="d"):
    count = jnp.asarray(psum(count(h), axes), h.dtype)
    mean = psum(h.sum(0), axes) / count
    return scaled(h, mean, psum((h * h).sum(0), axes) / count - mean**2)


def stacked(h, first=0):
    """One message for both, as Flax sends it."""
    both = pmean(jnp.stack([h.mean(0), (h * h).mean(0)]), "d")
    mean, square = both[first], both[1 - first]
    return scaled(h, mean, jnp.abs(square - mean**2))


def unstacked(h):
    both = jnp.stack([h.mean(0), (h * h).mean(0)], axis=-1)
    mean, square = jnp.unstack(pmean(both, "d"), axis=-1)
    return scaled(h, mean, square - mean**2)


def concatenated(h):
    """A stack and its parts, as JAX 0.9 writes them."""
    both = jnp.concatenate([h.mean(0)[None], (h * h).mean(0)[None]])
    mean, square = jnp.split(pmean(both, "d"), 2)
    return scaled(h, mean[0], square[0] - mean[0] ** 2)


def summed_in_one(h):
    """A sum of a stack, along an axis before that of its parts."""
    mean, square = pmean(jnp.stack([h, h * h], axis=1).mean(0), "d")
    return scaled(h, mean, square - mean**2)


def of_flax(h):
    norm = nn.BatchNorm(use_running_average=False, axis_name="d")
    statistics = {"mean": jnp.zeros(4), "var": jnp.ones(4)}
    affine = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    variables = {"params": affine, "batch_stats": statistics}
    return norm.apply(variables, h, mutable=["batch_stats"])[0]


CENTRED = {
    "two passes": two_passes,
    "squares": squares,
    "stacked": stacked,
    "unstacked": unstacked,
    "concatenated": concatenated,
    "summed in one": summed_in_one,
    "sums": functools.partial(sums, count=lambda h: h.shape[0]),
    "counted": functools.partial(
        sums, count=lambda h: jnp.sum(jnp.ones_like(h[:, 0]))
    ),
    "flax": of_flax,
    "over one axis": functools.partial(two_passes, axes="e"),
    "one by one": functools.partial(two_passes, of=lambda h: h.mean(0)[None]),
    "of each device": lambda h: scaled(h, h.mean(0), h.var(0)),
    "plus a number": lambda h: squares(h + 1.0),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name", [x for x in CENTRED if HAS_STACKS or x != "summed in one"]
)
def test_a_bias_before_a_synchronized_norm_is_inert(name, method):
    assert cancels(report(on_devices(CENTRED[name]), method))
    loss = on_devices(CENTRED[name], check_vma=False)
    assert cancels(report(loss, "analysis"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("x", [P(("d", "e")), P("d"), P()])
def test_over_both_axes(x, method):
    norm = functools.partial(squares, axes=("d", "e"))
    assert cancels(report(on_devices(norm, x=x, check_vma=False), method))


@pytest.mark.parametrize("method", METHODS)
def test_channels_of_another_axis(method):
    """Channels over one axis of the mesh, the batch over the other."""
    loss = on_devices(squares, kernel=P(None, "e"), bias=P("e"))
    assert cancels(report(loss, method))


NOT_CENTRED = {
    "a count that is wrong": functools.partial(
        sums, count=lambda h: h.shape[0] - 1
    ),
    "a sum for a mean": lambda h: scaled(h, psum(h.mean(0), "d"), h.var(0)),
    "the statistics swapped": functools.partial(stacked, first=1),
    "a product with the place": lambda h: two_passes(h * (1 + place(h))),
    "the mean of another array": lambda h: scaled(
        h, pmean((2 * h).mean(0), "d"), h.var(0)
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NOT_CENTRED)
def test_what_leaves_a_part_of_the_bias(name, method):
    assert not cancels(report(on_devices(NOT_CENTRED[name]), method))
    loss = on_devices(NOT_CENTRED[name], check_vma=False)
    assert not cancels(report(loss, "analysis"))


@pytest.mark.parametrize("method", METHODS)
def test_biases_that_differ_between_devices(method):
    """Their mean over devices is not theirs; that of one device is."""
    for norm, inert in ((squares, False), (CENTRED["of each device"], True)):
        found = report(on_devices(norm, bias=P("d")), method, length=16)
        assert cancels(found) == inert


@pytest.mark.parametrize("method", METHODS)
def test_kernels_that_differ_between_devices(method):
    """A mean over devices that hold other channels ties these."""
    for axes, apart in (("d", False), ("e", True)):
        norm = functools.partial(two_passes, axes=axes)
        loss = on_devices(norm, kernel=P(None, "d"), bias=P("d"), x=P("e"))
        assert cancels(report(loss, method, length=8, channels=8)) == apart


@pytest.mark.parametrize("method", METHODS)
def test_one_row_on_each_device(method):
    """Arrays have no axis of the batch: it is that of the mesh."""

    def loss_of(norm):
        def body(w, b, x):
            return summed(norm(x[0] @ w + b))

        loss = mapped(body, P(), P(), P("d"))
        return lambda params, x: loss(params, x[:4])

    norm = functools.partial(two_passes, of=lambda h: h)
    assert cancels(report(loss_of(norm), method))
    # The mean over the other axis is that of equal numbers.
    mean = loss_of(lambda h: h - pmean(h, "e") + h / pmean(jnp.abs(h), "d"))
    assert report(mean)["w"].group != ScaleGroup(0)


@pytest.mark.parametrize("groups", [[[0, 1, 2, 3]], [[0, 1], [2, 3]]])
def test_groups_of_devices_are_not_known(groups):
    def norm(h):
        mean = pmean(h.mean(0), "d", axis_index_groups=groups)
        return scaled(h, mean, h.var(0) + pmean(h.var(0), "d"))

    found = report(on_devices(norm, check_vma=False))
    assert found["w"].group is None
    assert found["b"].kind != "inert"


@pytest.mark.parametrize(
    ("bias", "axes", "inert"),
    [
        (P(), "e", True),
        (P(), ("d", "e"), True),
        (P("d"), "e", True),
        (P("d"), ("d", "e"), False),
    ],
)
def test_a_mesh_in_a_mesh(bias, axes, inert):
    """What is equal on the devices of the inner one differs on the outer."""

    def part(w, b, x):
        y = two_passes(x @ w + b, axes)
        return pmean(jnp.sum(jnp.tanh(y) ** 3), "e")

    def body(w, b, x):
        specs = {"in_specs": (P(), P(), P("e")), "out_specs": P()}
        inner = jax.shard_map(part, axis_names={"e"}, **specs)
        return pmean(inner(w, b, x), "d")

    loss = jax.jit(mapped(body, P(), bias, P("d"), axis_names={"d"}))
    found = report(loss, length=16 if bias == P("d") else 4)
    assert (found["b"].kind == "inert") == inert


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name", ["two passes", "squares", "stacked", "unstacked"]
)
def test_names_that_vmap_gives(name, method):
    def loss(params, x):
        h = x @ params["w"] + params["b"]
        return total(jax.vmap(CENTRED[name], axis_name="d")(h.reshape(4, 4, 4)))

    assert cancels(report(loss, method))


# -- stacks --------------------------------------------------------------------


def whole(h):
    return jnp.stack([h.mean(0), (h * h).mean(0)])


@jax.custom_jvp
def doubled(x):
    return 2.0 * x


doubled.defjvp(lambda x, t: (doubled(*x), 2.0 * t[0]))


WHOLES = {
    "as it is": whole,
    "summed over its parts": lambda h: whole(h).sum(0),
    "times itself": lambda h: whole(h) * whole(h),
    "times another": lambda h: whole(h) * whole(jnp.abs(h)),
    "reshaped": lambda h: whole(h).reshape(-1),
    "a part of each": lambda h: whole(h)[:, :2],
    "both parts": lambda h: whole(h)[:2],
    "in a branch": lambda h: jax.lax.cond(
        X[0, 0] > 0, lambda y: y[0], lambda y: y[1], whole(h)
    ),
    "in a loop": lambda h: jax.lax.scan(
        lambda c, y: (c, jnp.tanh(y)), 0.0, whole(h)
    )[1],
    "in a ref": lambda h: jax.new_ref(whole(h))[...],
    "with a derivative": lambda h: doubled(whole(h)),
    "a mean and no centre": lambda h: whole(h)[0],
    "stopped": lambda h: h + jax.lax.stop_gradient(whole(h))[0],
    "in a stack": lambda h: jnp.stack([whole(h), whole(h)])[1, 1],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", WHOLES)
def test_what_a_stack_holds_is_not_lost(name, method):
    """Neither the bias nor the kernel cancels."""

    def loss(params, x):
        return total(WHOLES[name](x @ params["w"] + params["b"]))

    found = report(loss, method)
    assert found["b"].kind == found["w"].kind == "ordinary"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [(0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1)])
def test_parts_of_a_stack_are_told_apart(order, method):
    """A mean that is subtracted from another array leaves its bias."""
    stacked, reduced, part = order

    def loss(params, x):
        h = x @ params["w"] + params["b"]
        both = jnp.stack([h, 2.0 * h], axis=stacked).mean(reduced)
        return total((h - jnp.unstack(both)[part]) / jnp.std(h, 0))

    is_known = HAS_STACKS or stacked == reduced or method != "analysis"
    assert cancels(report(loss, method)) == (part == 0 and is_known)
