"""What is measured where a proof ends, and where nothing can be measured."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas

from psi_optax import ScaleGroup, check_groups, find_groups

X = jax.random.normal(jax.random.key(0), (5, 3))
PARAMS = {
    "w": jax.random.normal(jax.random.key(1), (3, 4)),
    "u": jax.random.normal(jax.random.key(2), (4,)),
    "v": 0.3 * jax.random.normal(jax.random.key(3), (4, 2)),
}
GROUPS = {"w": ScaleGroup(0), "u": None, "v": None}


def kernel(x):
    """Twice an array, by a kernel that a CPU does not run."""

    def double(x_ref, out_ref):
        out_ref[...] = x_ref[...] * 2.0

    return pallas.pallas_call(double, out_shape=x)(x)


def callback(x):
    """Twice an array, by a callback that has no derivative."""
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(lambda x: 2 * x, shape, x)


def loss_with(function):
    def loss(params, x):
        w = params["w"] / jnp.linalg.norm(params["w"], axis=0, keepdims=True)
        head = jnp.sum(jnp.tanh(x @ w @ params["v"]) ** 3)
        # What is not known to the analysis, and does not see the scale of u.
        u = function(params["u"]) / function(jnp.linalg.norm(params["u"]))
        return head + jnp.sum(jnp.tanh(u) ** 3)

    return loss


@pytest.mark.parametrize("function", [kernel, callback])
def test_what_cannot_be_measured_is_left_to_the_analysis(function):
    loss = loss_with(function)
    report = find_groups(loss, PARAMS, X)
    alone = find_groups(loss, PARAMS, X, method="analysis")
    assert report.groups == alone.groups == GROUPS
    assert report["w"].deviation is None
    assert "analysis alone" in str(report)
    assert "no rule for" in report["u"].reason
    with pytest.raises(ValueError, match="the loss"):
        find_groups(loss, PARAMS, X, method="probe")


def test_what_can_be_measured_is():
    report = find_groups(loss_with(jnp.sin), PARAMS, X)
    assert report["w"].deviation is not None
    assert "analysis alone" not in str(report)


def test_a_loss_that_does_not_run_is_not_checked():
    with pytest.raises(ValueError, match="does not run"):
        check_groups(loss_with(kernel), PARAMS, GROUPS, X)
    # No derivative is needed.
    assert check_groups(loss_with(callback), PARAMS, GROUPS, X)["w"].group


def median_norm(h):
    center = jnp.median(h, axis=0, keepdims=True)
    return (h - center) / jnp.std(h, axis=0, keepdims=True)


def test_a_bias_without_effect_is_cut_from_its_kernel():
    def loss(params, x, norm):
        h = norm(x @ params["w"] + params["u"][None])
        return jnp.sum(jnp.tanh(h @ params["v"]) ** 3)

    def found(norm, method="both"):
        def one(params, x):
            return loss(params, x, norm)

        return find_groups(one, PARAMS, X, method=method)

    alone = found(median_norm, "analysis")
    assert alone["w"].group == ScaleGroup(0, tie="u")
    assert alone["u"].group == ScaleGroup((), tie="u")
    both = found(median_norm)
    assert both["w"].group == ScaleGroup(0)
    assert (both["w"].kind, both["u"].kind) == ("measured", "inert")
    # The control: a norm that the bias passes through.
    kept = found(lambda h: h / jnp.std(h, axis=0, keepdims=True) ** 0.5)
    assert kept["u"].kind == "ordinary"
    tied = found(lambda h: h / jnp.linalg.norm(h, axis=0, keepdims=True))
    assert tied["u"].group == ScaleGroup((), tie="u")
    assert tied["w"].group == ScaleGroup(0, tie="u")


def test_all_terms_of_a_sum_have_gradients():
    """Their scales are fixed before, where no gradient goes."""

    def loss(params, x, norm):
        b, c = params["b"], params["c"]
        fixed = jnp.sum(jnp.tanh(jax.lax.stop_gradient(b * c)))
        fixed += jnp.sum(jnp.tanh(jax.lax.stop_gradient(b)))
        h = (x + b[None]) + (2.0 * x + c[None])
        return fixed + jnp.sum(jnp.tanh(norm(h)))

    params = {"b": jnp.ones(3), "c": jnp.full(3, 2.0)}

    def kinds(norm):
        def one(params, x):
            return loss(params, x, norm)

        report = find_groups(one, params, X, method="analysis")
        return {report[path].kind for path in params}

    assert kinds(lambda h: h) == {"ordinary"}
    assert kinds(lambda h: h - jnp.mean(h, 0, keepdims=True)) == {"inert"}


def test_a_branch_that_begins_small_counts():
    def loss(params, x, branch):
        stream = params["g"][None] * x + branch(params, x)
        # The sum is in single precision; the analysis ends at a logarithm.
        square = jnp.sum(jnp.square(stream.astype(jnp.float32)), 1)
        norm = jnp.exp(0.5 * jnp.log(square)).astype(x.dtype)
        return jnp.sum(jnp.tanh(stream / norm[:, None]) ** 3)

    def kind(branch):
        params = {
            "g": jnp.ones(3),
            "w": PARAMS["w"][:, :3],
            "ls": jnp.full(3, 1e-6),
        }
        report = find_groups(lambda p, x: loss(p, x, branch), params, X)
        return report["g"].group

    def small(params, x):
        return params["ls"][None] * jnp.tanh(x @ params["w"])

    assert kind(lambda params, x: 0.0 * x) == ScaleGroup(0)
    assert kind(small) in (None, ScaleGroup(0, tie="g"))
