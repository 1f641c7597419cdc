"""Options reach all normalizations, and initializers all kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn, nnx
from jax.sharding import Mesh, PartitionSpec

from psi_optax._compat import jaxprs_in_params
from psi_optax.models import linen, nnx as nnx_models

from .twins import (
    BATCH_NORMALIZED,
    CASES,
    IMAGES,
    apply,
    difference,
    load_linen,
    statistics_of,
    variables_of,
)

# Flax computes statistics in float32 by promotion of its inputs.
FLAX_PROMOTION = pytest.mark.usefixtures("optax_promotion")

OPTIONS = {
    "epsilon": 1e-3,
    "momentum": 0.7,
    "axis_name": "batch",
    "dtype": jnp.bfloat16,
}


def linen_norms(model, name):
    """Return the normalizations that a call of the model applies."""
    norms = []

    def note(following, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm | nn.RMSNorm):
            norms.append(context.module)
        return following(*args, **kwargs)

    variables = variables_of(name)  # The first time, by another call.
    inputs = CASES[name].inputs
    with nn.intercept_methods(note):
        jax.eval_shape(lambda v: model.apply(v, inputs, train=False), variables)
    return norms


def nnx_norms(model):
    return [
        module
        for _, module in nnx.iter_graph(model)
        if isinstance(module, nnx.BatchNorm | nnx.RMSNorm)
    ]


def norms_of(name, **options):
    """Return the normalizations of both frameworks."""
    case = CASES[name]
    return (
        *linen_norms(case.linen(**options), name),
        *nnx_norms(case.nnx(**options)),
    )


@FLAX_PROMOTION
@pytest.mark.parametrize("name", BATCH_NORMALIZED)
def test_all_batch_normalizations_have_the_options(name):
    expected = len(jax.tree.leaves(variables_of(name)["batch_stats"])) // 2
    norms = norms_of(name, **OPTIONS)
    assert len(norms) == 2 * expected
    for norm in norms:
        assert not norm.use_fast_variance
        assert {key: getattr(norm, key) for key in OPTIONS} == OPTIONS
    # These are not the defaults.
    for norm in norms_of(name):
        assert not any(getattr(norm, k) == v for k, v in OPTIONS.items())


@FLAX_PROMOTION
@pytest.mark.parametrize(
    ("name", "count"), [("ViT", 5), ("GPT", 5), ("Sandwich", 8)]
)
def test_all_root_mean_squares_have_the_options(name, count):
    options = {"epsilon": 1e-3, "dtype": jnp.bfloat16}
    norms = norms_of(name, **options)
    assert len(norms) == 2 * count
    for norm in norms:
        assert {key: getattr(norm, key) for key in options} == options


def test_momentum_is_the_decay_rate_of_the_running_statistics():
    variables = variables_of("MLP")

    @jax.jit
    def variances(variables):
        models = [CASES["MLP"].linen(momentum=m) for m in (0.0, 0.25, 1.0)]
        return [apply(m, variables)[1]["norm_1"]["var"] for m in models]

    batch, decayed, before = variances(variables)
    np.testing.assert_allclose(decayed, 0.25 * before + 0.75 * batch, rtol=1e-6)
    assert np.abs(batch - before).max() > 1e-2


def products(jaxpr):
    """Yield the dtypes of inputs of convolutions and matrix products."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield {x.aval.dtype for x in equation.invars}
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


@FLAX_PROMOTION
@pytest.mark.parametrize("name", CASES)
def test_dtype_is_that_of_the_computation_before_the_head(name):
    case, variables = CASES[name], variables_of(name)
    twin = case.nnx(dtype=jnp.bfloat16)
    load_linen(twin, variables)
    model = case.linen(dtype=jnp.bfloat16)
    for run in (
        lambda x: model.apply(variables, x, train=False),
        lambda x: nnx.merge(*nnx.split(twin), copy=True)(x),
    ):
        jaxpr = jax.make_jaxpr(run)(case.inputs)
        assert jaxpr.out_avals[0].dtype == jnp.float32
        *body, head = products(jaxpr.jaxpr)
        assert all(dtypes == {jnp.dtype(jnp.bfloat16)} for dtypes in body)
        assert head == {jnp.dtype(jnp.float32)}


def synchronized_linen(axis_name):
    model = CASES["CNN"].linen(momentum=0.0, axis_name=axis_name)
    # Cached here, outside of any trace.
    variables = variables_of("CNN")
    return lambda images: apply(model, variables, images)


def synchronized_nnx(axis_name):
    model = CASES["CNN"].nnx(momentum=0.0, axis_name=axis_name)
    load_linen(model, variables_of("CNN"))
    graph, state = nnx.split(model)

    def run(images):
        model = nnx.merge(graph, state, copy=True)
        return model(images), statistics_of(model)

    return run


def on_two_devices(run):
    """Return all logits, and the statistics of the first device."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
    split = PartitionSpec("batch")

    def local(images):
        logits, statistics = run(images)
        return logits, jax.tree.map(lambda x: x[None], statistics)

    logits, statistics = jax.jit(
        jax.shard_map(local, mesh=mesh, in_specs=split, out_specs=split)
    )(IMAGES)
    return logits, jax.tree.map(lambda x: x[0], statistics)


@pytest.mark.parametrize("make", [synchronized_linen, synchronized_nnx])
def test_statistics_of_two_devices_are_those_of_the_whole_batch(make):
    whole = jax.jit(make(None))(IMAGES)
    together = on_two_devices(make("batch"))
    apart = on_two_devices(make(None))
    # Two layers, of means over 8 images of 8 x 8 pixels at most, in halves:
    # 2 * sqrt(512) * 2^-24 = 3e-6; three times that, for differences.
    assert difference(together, whole) < 1e-5
    assert difference(apart[0], whole[0]) > 1e-2
    assert difference(apart[1], whole[1]) > 1e-2


def linen_kernel(name, *args):
    model = getattr(linen, name)(*args)

    @jax.jit
    def init(key):
        return jax.tree.leaves(model.init(key, IMAGES, train=False)["params"])

    return largest(init(jax.random.key(0)))


def nnx_kernel(name, *args):
    model = getattr(nnx_models, name)(3, *args, rngs=nnx.Rngs(0))
    return largest(jax.tree.leaves(nnx.state(model, nnx.Param)))


def largest(leaves):
    return max(leaves, key=lambda leaf: leaf.size)


@pytest.mark.parametrize("kernel", [linen_kernel, nnx_kernel])
@pytest.mark.parametrize(
    ("name", "args", "fan"),
    [("VGG", (((64,),),), 9 * 64), ("CNN", ((64,),), 9 * 3)],
    ids=["fan_out", "fan_in"],
)
def test_kernels_begin_with_the_variance_of_he(kernel, name, args, fan):
    x = kernel(name, *args)
    # The mean of n = 1728 squares of standard normal numbers has a standard
    # deviation of sqrt(2 / n) = 0.034; five of them are allowed.
    assert x.size == 1728
    assert abs(np.mean(np.square(x)) / (2 / fan) - 1) < 0.17
