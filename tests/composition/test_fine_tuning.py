"""Groups and steps as docs/fine-tuning.md states them, with controls."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import psi_optax
from psi_optax import ScaleGroup, batch_stats, check_groups, find_groups

pytestmark = pytest.mark.usefixtures("optax_promotion")

WIDTH = 8
FILTERS = ScaleGroup(axes=(0,))


class Network(nnx.Module):
    """A layer in front of BatchNorm, one in front of LayerNorm, a head."""

    def __init__(self, rngs, *, lora=False):
        def linear(bias):
            return nnx.Linear(WIDTH, WIDTH, use_bias=bias, rngs=rngs)

        self.stem = linear(False)
        self.stem_norm = nnx.BatchNorm(WIDTH, momentum=0.5, rngs=rngs)
        self.hidden = linear(not lora)
        if lora:
            self.hidden = nnx.LoRA(
                *(WIDTH, 2, WIDTH), base_module=self.hidden, rngs=rngs
            )
            pair = self.hidden.lora_a[...]
            self.hidden.lora_b[...] = pair.T
        self.hidden_norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, x):
        x = jnp.tanh(self.stem_norm(self.stem(x)))
        return self.head(jnp.tanh(self.hidden_norm(self.hidden(x))))


X = jax.random.normal(jax.random.key(0), (16, WIDTH))
LORA = nnx.Any(nnx.LoRAParam, nnx.PathContains("stem"))


def loss_fn(model):
    return jnp.mean((model(X) - 1) ** 2)


def split(model, wrt):
    """Return a loss of what trains, and that."""
    graph, params, rest = nnx.split(model, wrt, ...)

    def loss(params):
        return loss_fn(nnx.merge(graph, params, rest, copy=True))

    return loss, params


def groups_of(model, wrt=nnx.Param):
    return find_groups(*split(model, wrt))


def pretrained():
    """A network whose norms are far from 1, with statistics that fit."""
    model = Network(nnx.Rngs(0))
    scales = jnp.geomspace(0.5, 4, WIDTH)
    model.stem.kernel[...] = model.stem.kernel[...] * scales[None]
    for _ in range(10):
        model(X)
    return model


def train(model, tx, wrt):
    optimizer = nnx.Optimizer(model, tx, wrt=wrt)

    @nnx.jit
    def step(model, optimizer):
        trained = nnx.DiffState(0, wrt)
        optimizer.update(model, nnx.grad(loss_fn, argnums=trained)(model))

    for _ in range(3):
        step(model, optimizer)


def evaluate(model):
    copy = nnx.clone(model)
    copy.eval()
    return np.asarray(copy(X))


def weights(model):
    """Return copies of all parameters by path."""
    state = nnx.to_flat_state(nnx.state(nnx.clone(model), nnx.Param))
    return {"/".join(path): np.asarray(x[...]) for path, x in state}


def test_norms_of_a_checkpoint_are_kept_and_others_do_not_fit():
    model = pretrained()
    groups = groups_of(model).select("stem/kernel")
    before = weights(model)["stem/kernel"]
    trained = nnx.clone(model)
    tx = psi_optax.psi_sgd(0.1, groups, momentum=0.9)
    train(trained, tx, nnx.Param)
    after = weights(trained)["stem/kernel"]
    norms = np.linalg.norm(before, axis=0)
    # Eight roundings of weights and of both norms.
    np.testing.assert_allclose(
        np.linalg.norm(after, axis=0), norms, rtol=8 * 2.0**-24
    )
    assert np.max(np.abs(after - before)) > 0.01
    expected = evaluate(model)
    changed = nnx.clone(model)
    old = nnx.state(model, nnx.Param)
    new = psi_optax.normalize(old, groups)
    nnx.update(changed, new)
    # An epsilon of 1e-5 beside variances of 0.2 and more.
    assert np.max(np.abs(evaluate(changed) - expected)) > 0.1
    stats = batch_stats.rescale(
        *(nnx.state(model, nnx.BatchStat), old, new, groups),
        {"stem_norm": "stem/kernel"},
    )
    nnx.update(changed, stats)
    np.testing.assert_allclose(evaluate(changed), expected, atol=1e-3)


def test_frozen_weights_are_data():
    model = pretrained()
    whole = groups_of(model)
    assert whole["hidden/kernel"].group.tie == whole["hidden/bias"].group.tie
    wrt = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("bias")))
    report = groups_of(model, wrt)
    assert report["hidden/kernel"].group is None
    assert report["stem/kernel"].group == whole["stem/kernel"].group == FILTERS
    loss, params = split(model, wrt)
    wrong = psi_optax.groups_from_paths({"hidden/kernel": ScaleGroup((0, 1))})
    with pytest.raises(ValueError, match="hidden/kernel"):
        check_groups(loss, params, wrong)


def is_in_stem(tree):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[0].key == "stem", tree
    )


def test_frozen_parts_keep_every_bit_and_others_do_not_notice():
    wrt = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("stem")))
    model = pretrained()
    before = weights(model)
    groups = groups_of(model, wrt)
    filtered, labelled = nnx.clone(model), nnx.clone(model)
    tx = psi_optax.psi_sgd(0.1, groups, momentum=0.9)
    train(filtered, tx, wrt)
    labels = {False: tx, True: optax.set_to_zero()}
    partition = optax.partition(labels, is_in_stem)
    train(labelled, partition, nnx.Param)
    one, other = weights(filtered), weights(labelled)
    for path, x in before.items():
        if path == "stem/kernel":
            np.testing.assert_array_equal(one[path], x)
            np.testing.assert_array_equal(other[path], x)
        else:
            # Three steps of weights below 1, in another program.
            np.testing.assert_allclose(one[path], other[path], atol=1e-6)
            assert np.max(np.abs(one[path] - x)) > 1e-3


def test_lora_pairs_have_inverse_scales_and_nothing_else_is_invariant():
    model = Network(nnx.Rngs(0), lora=True)
    report = groups_of(model, LORA)
    pair = ("hidden/lora_a", "hidden/lora_b")
    for path, other in (pair, pair[::-1]):
        assert report[path].group is None
        assert f"only against {other}" in report[path].reason
    assert report["stem/kernel"].group == FILTERS
    loss, params = split(model, LORA)

    def at(a, b):
        moved = nnx.clone(model)
        moved.hidden.lora_a[...] = a * moved.hidden.lora_a[...]
        moved.hidden.lora_b[...] = b * moved.hidden.lora_b[...]
        return loss_fn(moved).item()

    # Powers of two: the product is the same to the bit.
    assert at(4.0, 0.25) == at(1.0, 1.0)
    assert abs(at(4.0, 1.0) - at(1.0, 1.0)) > 1e-3
    for path in pair:
        wrong = psi_optax.groups_from_paths({path: ScaleGroup((0, 1))})
        with pytest.raises(ValueError, match=path):
            check_groups(loss, params, wrong)


def test_with_its_base_a_pair_shares_one_scale():
    """So it is not to be searched for with nnx.Param."""
    report = groups_of(Network(nnx.Rngs(0), lora=True))
    kernel = report["hidden/base_module/kernel"].group
    assert kernel is not None
    pair = [report[f"hidden/lora_{x}"].group for x in "ab"]
    assert [group and group.tie for group in pair].count(kernel.tie) == 1


def test_ordinary_is_for_lora_pairs():
    model = Network(nnx.Rngs(0), lora=True)
    before = weights(model)
    groups = groups_of(model, LORA)
    tx = psi_optax.psi_sgd(0.1, groups, ordinary=optax.sgd(0.1))
    train(model, tx, LORA)
    after = weights(model)
    moved = {k for k, x in before.items() if not np.array_equal(x, after[k])}
    assert moved == {"hidden/lora_a", "hidden/lora_b", "stem/kernel"}
    norms = [np.linalg.norm(x["stem/kernel"], axis=0) for x in (before, after)]
    np.testing.assert_allclose(*norms, rtol=8 * 2.0**-24)


def test_normalized_products():
    """DoRA adds a frozen W; without it all of A and columns of B are groups."""
    draw = jax.random.normal
    keys = jax.random.split(jax.random.key(1), 3)
    params = {
        "a": draw(keys[0], (WIDTH, 2)),
        "b": draw(keys[1], (2, WIDTH)),
        "m": jnp.ones(WIDTH),
    }

    def loss(params, base):
        v = base + params["a"] @ params["b"]
        v = v / jnp.linalg.norm(v, axis=0, keepdims=True)
        return jnp.sum(jnp.tanh(X @ (params["m"][None] * v)))

    dora = find_groups(loss, params, draw(keys[2], (WIDTH, WIDTH)))
    assert not any(finding.group for finding in dora.findings.values())
    assert "only against b" in dora["a"].reason
    alone = find_groups(lambda params: loss(params, 0.0), params)
    assert alone["a"].group == ScaleGroup(axes=(0, 1))
    assert alone["b"].group == FILTERS
    assert alone["m"].group is None


def test_batchnorm_in_evaluation_mode():
    model = pretrained()
    stated = psi_optax.groups_from_paths({"stem/kernel": FILTERS})
    check_groups(*split(model, nnx.Param), stated)
    model.eval()
    report = groups_of(model)
    assert report["stem/kernel"].group is None
    assert report["hidden/kernel"].group is not None
    with pytest.raises(ValueError, match="stem/kernel"):
        check_groups(*split(model, nnx.Param), stated)
    before = weights(model)
    tuned = nnx.clone(model)
    train(tuned, psi_optax.psi(optax.adam(0.01), report), nnx.Param)
    train(model, psi_optax.psi(optax.adam(0.01), stated), nnx.Param)
    norms = [
        np.linalg.norm(x["stem/kernel"], axis=0)
        for x in (before, weights(tuned), weights(model))
    ]
    # Adam moves each weight by 0.01 per step; groups by hand hold the norms.
    assert np.max(np.abs(norms[1] / norms[0] - 1)) > 0.01
    np.testing.assert_allclose(norms[2], norms[0], rtol=8 * 2.0**-24)
