"""The reasons of a report: which parameters, which line, what to do."""

import inspect

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from psi_optax import ScaleGroup, check_groups, find_groups, psi
from tests.invariance.holds import site
from tests.invariance.losses import arrays, unit

X, Y = arrays(seed=0, x=(8, 3), y=(8,)).values()
PARAMS = arrays(kernel=(3, 4), head=(4,))
GROUPS = {"kernel": ScaleGroup(0), "head": None}


def batch_norm(y):
    y = y - jnp.mean(y, axis=0, keepdims=True)
    return y / jnp.sqrt(jnp.mean(y * y, axis=0, keepdims=True) + 1e-5)


def network(params, x):
    return jnp.tanh(batch_norm(x @ params["kernel"])) @ params["head"]


def data_loss(params, x):
    return jnp.mean(network(params, x))


def analysed(loss, params=PARAMS, *args):
    return find_groups(loss, params, *(args or (X,)), method="analysis")


def line_of(function, marker):
    """Return the number of a function's line with a marker."""
    lines, first = inspect.getsourcelines(function)
    [found] = [k for k, line in enumerate(lines) if marker in line]
    return first + found


def words(reason):
    """Return a reason without its site, which names functions."""
    return reason.partition(", at ")[0]


# -- penalties ---------------------------------------------------------------

EVERYTHING = {"kernel", "head"}


def sum_over_leaves(p):
    return 0.5 * sum(jnp.sum(w**2) for w in jax.tree.leaves(p))


def of_sizes(p):
    return sum(jnp.sum(jnp.abs(w)) for w in jax.tree.leaves(p))


def of_kernel(p):
    return jnp.vdot(p["kernel"], p["kernel"])


def by_l2_loss(p):
    return optax.tree.sum(jax.tree.map(lambda w: optax.l2_loss(w).mean(), p))


def raveled(p):
    flat, _ = jax.flatten_util.ravel_pytree(p)
    return flat @ flat


PENALTIES = {
    "sum over leaves": (sum_over_leaves, EVERYTHING),
    "by optax": (lambda p: optax.tree.norm(p, squared=True), EVERYTHING),
    "by norm": (lambda p: optax.tree.norm(p) ** 2, EVERYTHING),
    "by reduce": (
        lambda p: jax.tree.reduce(lambda t, w: t + jnp.sum(w**2), p, 0.0),
        EVERYTHING,
    ),
    "by l2_loss": (by_l2_loss, EVERYTHING),
    "raveled": (raveled, EVERYTHING),
    "of sizes": (of_sizes, EVERYTHING),
    "compiled": (lambda p: jax.jit(sum_over_leaves)(p), EVERYTHING),
    "of kernel": (of_kernel, {"kernel"}),
    "by linalg": (lambda p: jnp.linalg.norm(p["kernel"]) ** 2, {"kernel"}),
}


@pytest.mark.parametrize("how", PENALTIES)
def test_a_penalty_is_named_with_its_line(how):
    penalty, penalized = PENALTIES[how]

    def loss(params, x, decay):
        data = data_loss(params, x)
        size = penalty(params)
        return data + decay * size  # here

    report = analysed(loss, PARAMS, X, jnp.float32(1e-4))
    name = "L1 penalty" if penalty is of_sizes else "L2 penalty"
    place = "test_reasons.py", line_of(loss, "# here")
    for path, finding in report.findings.items():
        assert finding.kind == "ordinary"
        named = name in finding.reason
        assert named == (path in penalized)
        if named:
            assert " penalty" in finding.reason
            assert site(finding.reason) == place
    *_, footer = str(report).splitlines()
    assert name in footer
    assert site(footer) == place
    assert "?" not in footer


def squared_direction(p):
    w = p["kernel"]
    return jnp.sum((p["head"][None] * w / jnp.linalg.norm(w)) ** 2)


@pytest.mark.parametrize(
    "term",
    [
        squared_direction,
        lambda p: jnp.sum((p["kernel"] - 1) ** 2),
        lambda p: jnp.sum(jnp.arange(12.0).reshape(3, 4) * p["kernel"] ** 2),
        lambda p: jnp.sum(p["kernel"]),
    ],
)
def test_what_is_no_penalty_is_not_named_so(term):
    report = analysed(lambda p, x: data_loss(p, x) + 1e-4 * term(p))
    assert report["head"].kind == "ordinary"
    assert " penalty" not in str(report)


def test_what_goes_through_a_function_is_no_penalty():
    report = analysed(
        lambda p, x: jnp.exp(data_loss(p, x) + sum_over_leaves(p))
    )
    assert " penalty" not in str(report)
    # Nor is a loss that consists of nothing else, nor one times zero.
    assert " penalty" not in str(analysed(lambda p, x: sum_over_leaves(p)))
    report = analysed(lambda p, x: data_loss(p, x) + 0.0 * of_kernel(p))
    assert report["kernel"].kind == "proved up to epsilon"
    assert " penalty" not in str(report)


def test_a_mean_over_examples_keeps_the_penalty():
    def of_one(params, x):
        y = x @ params["kernel"]
        y = jnp.tanh(y / jnp.linalg.norm(y)) @ params["head"]
        return -(y - 1e-4 * sum_over_leaves(params))

    def loss(params, x):
        return jnp.mean(jax.vmap(of_one, (None, 0))(params, x))

    assert "L2 penalty" in analysed(loss)["kernel"].reason


@pytest.mark.parametrize("method", ["both", "probe"])
def test_a_penalty_is_named_where_it_is_measured(method):
    def loss(params, x):
        return data_loss(params, x) + 1e-4 * sum_over_leaves(params)

    report = find_groups(loss, PARAMS, X, method=method)
    assert "L2 penalty" in report["kernel"].reason
    with pytest.raises(ValueError, match="'kernel'.*L2 penalty"):
        check_groups(loss, PARAMS, GROUPS, X)
    # Without it both find the groups.
    assert find_groups(data_loss, PARAMS, X).groups == GROUPS
    check_groups(data_loss, PARAMS, GROUPS, X)


CLIPPED = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1))


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize(
    ("inner", "penalty", "same"),
    [
        (optax.sgd(0.1), sum_over_leaves, True),
        (optax.sgd(0.1), of_sizes, False),
        (optax.adam(0.1), sum_over_leaves, False),
        (CLIPPED, sum_over_leaves, False),
    ],
)
def test_psi_drops_the_gradient_of_squares_alone(inner, penalty, same):
    """It is radial; squares of gradients and their norms see it before."""

    def step(penalized):
        def loss(params):
            size = penalty({"kernel": params["kernel"]})
            return data_loss(params, X) + (size if penalized else 0.0)

        tx = psi(inner, GROUPS)
        gradient = jax.grad(loss)(PARAMS)
        return tx.update(gradient, tx.init(PARAMS), PARAMS)[0]["kernel"]

    # Of the penalty, a step in direction space has 0.1 r^2 < 1 times v. Taken
    # away in single precision it leaves a few roundings of 6e-8, times r < 4.
    same_steps = np.allclose(step(True), step(False), rtol=0, atol=1e-6)
    assert same_steps == same


# -- targets and running averages --------------------------------------------


def normed_output(params, x):
    return batch_norm(x @ params["kernel"]) @ params["head"]


def test_a_target_is_no_running_average():
    def loss(params, x, y):
        out = normed_output(params, x) + params["bias"]
        return jnp.mean((out - y) ** 2)  # here

    def reverse(params, x, y):
        out = normed_output(params, x) + params["bias"]
        return jnp.mean(optax.l2_loss(y, out))  # here

    for f in (loss, reverse):
        report = analysed(f, {**PARAMS, "bias": jnp.ones(())}, X, Y)
        for path in ("head", "bias"):
            reason = report[path].reason
            assert "target" in words(reason)
            assert "average" not in words(reason)
            assert site(reason) == ("test_reasons.py", line_of(f, "# here"))


def test_averages_are_no_target():
    def loss(params, x, mean, deviation):
        y = x @ params["kernel"]
        y = (y - mean[None]) / deviation[None]  # here
        return jnp.mean(jnp.tanh(y) @ params["head"])

    report = analysed(loss, PARAMS, X, jnp.ones(4), jnp.ones(4))
    reason = report["kernel"].reason
    assert "averages" in words(reason)
    assert "target" not in words(reason)
    assert site(reason) == ("test_reasons.py", line_of(loss, "# here"))


def test_what_cannot_be_told_apart_is_called_both():
    def masked(params, x, y, mask):
        return jnp.mean(((normed_output(params, x) - y) * mask) ** 2)

    reason = analysed(masked, PARAMS, X, Y, jnp.ones(8))["head"].reason
    assert "target" in words(reason)
    assert "averages" in words(reason)


def test_what_is_made_of_weights_is_no_data():
    def loss(params, x):
        y = x @ params["kernel"]
        return jnp.mean((y - jnp.sign(y)) ** 2) + jnp.sum(params["head"])

    reason = analysed(loss)["kernel"].reason
    assert "target" not in words(reason)
    assert "averages" not in words(reason)


# -- skip connections ---------------------------------------------------------


def gelu(params, x):
    y = x @ params["up"]
    y = 0.5 * y * (1 + jnp.tanh(y + 0.044715 * y**3))
    return jnp.mean(batch_norm(y @ params["down"]))


def test_a_skip_connection_is_named():
    params = arrays(up=(3, 4), down=(4, 3))
    bias = {**params, **arrays(bias=(3,))}

    def with_bias(params, x):
        y = jax.nn.relu(x @ params["up"]) @ params["down"]
        y = x + (y + params["bias"][None])  # here
        return jnp.mean(jnp.tanh(batch_norm(jnp.cumsum(y, axis=0))))

    reason = analysed(with_bias, bias)["bias"].reason
    assert "skip connection" in words(reason)
    place = "test_reasons.py", line_of(with_bias, "# here")
    assert site(reason) == place
    # The cubic term of an activation is none.
    assert "skip connection" not in str(analysed(gelu, params))


# -- rescaling symmetries -----------------------------------------------------


def test_layers_around_a_relu_are_named_against_each_other():
    def loss(params, x):
        y = jax.nn.relu(x @ params["first"] + params["bias"][None])
        return jnp.mean(jnp.exp(y @ params["second"]))

    params = arrays(first=(3, 4), bias=(4,), second=(4, 2))
    report = analysed(loss, params)
    for path in ("first", "bias"):
        reason = report[path].reason
        assert "rescaling symmetry" in reason
        assert reason.endswith("second")
    assert report["second"].reason.endswith("bias, first")
    # It is one: up by four and down by four change nothing.
    scaled = {**params, "second": params["second"] / 4}
    scaled |= {path: 4 * params[path] for path in ("first", "bias")}
    # Powers of two pass unchanged through products, sums and the ReLU.
    assert loss(scaled, X) == loss(params, X)
    assert loss({**scaled, "bias": params["bias"]}, X) != loss(params, X)


def test_parts_of_one_kernel_that_cancel_are_no_groups():
    def loss(params, x, second):
        y = x @ params["kernel"]
        return jnp.sum(jnp.tanh(y[:, :3] * second(y[:, 3:])))

    params = arrays(kernel=(3, 6))
    report = analysed(lambda p, x: loss(p, x, lambda y: y), params)
    assert report["kernel"].kind == "ordinary"
    assert "cancel" in report["kernel"].reason
    apart = analysed(lambda p, x: loss(p, x, lambda y: unit(y, 0)), params)
    assert apart["kernel"].kind == "partly"


# -- sites ---------------------------------------------------------------------


def test_what_a_loss_returns_has_a_site():
    def loss(params, x):
        y = x @ params["kernel"]
        return jnp.sum(y)  # here

    reason = analysed(loss)["kernel"].reason
    assert site(reason) == ("test_reasons.py", line_of(loss, "# here"))


def test_a_program_of_a_library_alone_has_the_site_of_its_function():
    report = analysed(jax.nn.logsumexp, jnp.ones(3), None)
    assert report[""].kind == "ordinary"
    assert site(report[""].reason) is not None


# -- inert ---------------------------------------------------------------------


class Net(nnx.Module):
    """A layer before a BatchNorm, a frozen gain, and one that is not used."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.frozen = nnx.Param(jnp.ones(3))
        self.spare = nnx.Param(jnp.ones(3))

    def __call__(self, x):
        gain = jax.lax.stop_gradient(self.frozen[...])
        y = self.norm(self.layer(x * gain[None]))
        return jnp.tanh(y)


@pytest.mark.usefixtures("optax_promotion")
def test_only_what_cancels_is_advised_to_be_dropped():
    model = Net(nnx.Rngs(0))

    def loss(model, x):
        return jnp.mean(model(x))

    report = find_groups(loss, model, X, method="analysis")
    inert = {path for path, f in report.findings.items() if f.kind == "inert"}
    assert inert == {"layer/bias", "frozen", "spare"}
    dropped = {path for path in inert if "drop" in report[path].reason}
    assert dropped == {"layer/bias"}
    assert "its value matters" in report["frozen"].reason


def counted(w):
    def before(i):
        return i < jnp.argmax(w)

    count = jax.lax.while_loop(before, lambda i: i + 1, jnp.argmin(X[0]))
    return count.astype(jnp.float32)


@pytest.mark.parametrize(
    "use",
    [
        lambda w: jnp.where(w > 0, 1.0, 2.0),
        lambda w: jnp.argmax(w).astype(jnp.float32),
        jnp.sign,
        lambda w: w.astype(jnp.int32).astype(jnp.float32),
        jax.lax.stop_gradient,
        lambda w: jax.lax.top_k(w, 2)[1].astype(jnp.float32),
        lambda w: jax.lax.cond(w[0] > 0, lambda: 1.0, lambda: 2.0),
        counted,
    ],
)
def test_a_value_that_matters_without_a_gradient_is_kept(use):
    def loss(params, x):
        return data_loss(params, x) * jnp.sum(use(params["w"]))

    report = analysed(loss, {**PARAMS, **arrays(w=(3,))})
    assert report["w"].kind == "inert"
    assert "drop" not in report["w"].reason
    assert "its value matters" in report["w"].reason


# -- reports -------------------------------------------------------------------


def test_groups_of_none_are_asked_nothing():
    nothing = {"kernel": None, "head": None}
    assert "?" not in str(check_groups(data_loss, PARAMS, nothing, X))


def test_a_report_keeps_its_advice():
    def loss(params, x):
        head = {"head": params["head"]}
        return data_loss(params, x) + 1e-4 * sum_over_leaves(head)

    report = analysed(loss)
    assert report["kernel"].group == ScaleGroup(0)
    assert "L2 penalty" in report.advice
    assert report.select("kernel").advice == report.advice
    assert report != analysed(data_loss)


def test_a_state_of_other_shapes_is_named():
    tx = psi(optax.sgd(0.1, momentum=0.9), GROUPS)
    state = tx.init({**PARAMS, **arrays(kernel=(5, 4))})
    with pytest.raises(ValueError, match=r"kernel.*\(5, 4\).*\(3, 4\).*init"):
        tx.update(PARAMS, state, PARAMS)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS)
