"""find_groups and check_groups: what they take, what they refuse, reports."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, check_groups, find_groups, psi_sgd
from psi_optax.groups import make_plan
from psi_optax.invariance import finder, jaxprs
from psi_optax.invariance.finding import Finding
from psi_optax.invariance.probe import evaluation


def draw(seed, *shape):
    normal = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(normal, jnp.float32)


PARAMS = {"kernel": draw(0, 3, 4), "bias": draw(1, 4), "head": draw(2, 4)}
GROUPS = {"kernel": ScaleGroup(0), "bias": None, "head": None}
X = draw(3, 8, 3)


def shape(*lengths):
    return jax.ShapeDtypeStruct(lengths, jnp.float32)


def analysed(loss, params=PARAMS, *args):
    return find_groups(loss, params, *(args or (X,)), method="analysis")


def norm(y, epsilon=1e-5):
    centered = y - jnp.mean(y, axis=0, keepdims=True)
    variance = jnp.mean(centered**2, axis=0, keepdims=True)
    return centered / jnp.sqrt(variance + epsilon)


def loss(params, x, epsilon=1e-5):
    y = x @ params["kernel"] + params["bias"][None]
    return jnp.mean(jnp.tanh(norm(y, epsilon)) @ params["head"])


def test_what_is_known_of_each_parameter():
    report = find_groups(loss, PARAMS, X)
    assert report.groups == GROUPS
    kernel = report["kernel"]
    assert kernel.kind == "proved up to epsilon"
    assert kernel.epsilon == pytest.approx(1e-5)
    assert 0 < kernel.deviation < 1e-4
    assert report["bias"].kind == "inert"
    assert "drop" in report["bias"].reason
    assert report["head"].kind == "ordinary"
    assert "the loss" in report["head"].reason


def test_without_epsilon_it_is_proved_exactly():
    report = find_groups(lambda p, x: loss(p, x, 0.0), PARAMS, X)
    assert report["kernel"].kind == "proved"
    assert report["kernel"].deviation < 1e-12


def test_a_large_epsilon_is_no_epsilon():
    def f(params, x):
        return loss(params, x, 0.5)

    assert find_groups(f, PARAMS, X)["kernel"].kind == "ordinary"
    allowed = find_groups(f, PARAMS, X, max_epsilon=1.0, method="analysis")
    assert allowed["kernel"].epsilon == 0.5


def test_deviation_falls_with_the_square_of_the_weights():
    small, large = (
        find_groups(loss, {**PARAMS, "kernel": size * PARAMS["kernel"]}, X)
        for size in (0.1, 1.0)
    )
    ratio = small["kernel"].deviation / large["kernel"].deviation
    assert 20 < ratio < 500


def test_shapes_are_enough_for_the_analysis():
    shapes = jax.eval_shape(lambda: (PARAMS, X))
    report = find_groups(loss, *shapes)
    assert report.groups == find_groups(loss, PARAMS, X).groups
    assert report["kernel"].deviation is None
    with pytest.raises(ValueError, match='method="probe"'):
        find_groups(loss, *shapes, method="probe")


@pytest.mark.parametrize("method", ["analysis", "probe", "both"])
def test_methods_agree(method):
    report = find_groups(loss, PARAMS, X, method=method)
    assert report.groups["kernel"] == ScaleGroup(0)
    assert report.groups["head"] is None
    assert report["bias"].kind == "inert"
    known = "measured" if method == "probe" else "proved up to epsilon"
    assert report["kernel"].kind == known


def test_arguments_that_are_no_arrays_are_left_as_they_are():
    def f(params, x, train, name=None, options=None):
        assert name == "net"
        assert options["deep"] == (None, 3)
        y = x @ params["kernel"]
        return jnp.sum(jnp.tanh(norm(y) if train else y) @ params["head"])

    args = X, True, "net", {"deep": (None, 3)}
    assert find_groups(f, PARAMS, *args).groups["kernel"] == ScaleGroup(0)
    frozen = find_groups(f, PARAMS, X, False, *args[2:])
    assert frozen.groups["kernel"] is None


def test_random_keys_are_arguments():
    def f(params, x, key):
        keep = jax.random.bernoulli(key, 0.5, x.shape)
        return loss(params, jnp.where(keep, x, 0))

    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        report = find_groups(f, PARAMS, X, key)
        assert report.groups["kernel"] == ScaleGroup(0)


def test_a_report_is_groups_wherever_groups_are_taken():
    report = find_groups(loss, PARAMS, X)
    assert make_plan(report, PARAMS) == make_plan(report.groups, PARAMS)
    tx = optax.inject_hyperparams(psi_sgd)(0.1, report)
    state = tx.init(PARAMS)
    gradient = jax.grad(loss)(PARAMS, X)
    updates, _ = tx.update(gradient, state, PARAMS)
    new = optax.apply_updates(PARAMS, updates)
    np.testing.assert_allclose(
        jnp.linalg.norm(new["kernel"], axis=0),
        jnp.linalg.norm(PARAMS["kernel"], axis=0),
        rtol=3e-7,
    )


def test_the_table():
    text = str(find_groups(loss, PARAMS, X, method="analysis"))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][:4] == ["path", "shape", "axes", "groups"]
    [kernel] = [line for line in lines if line[0] == "kernel"]
    assert kernel[:6] == ["kernel", "(3,", "4)", "0", "4", "proved"]
    assert "epsilon 1e-05" in text
    assert lines[-1][:3] == ["1", "of", "3"]


def test_select():
    def f(params, x):
        y = jnp.maximum(norm(x @ params["a"]) * params["scale"][None], 0)
        return jnp.sum(jnp.tanh(norm(y @ params["b"])))

    params = {
        "a": draw(0, 3, 4),
        "b": draw(1, 4, 2),
        "scale": 1 + draw(2, 4) / 9,
    }
    report = analysed(f, params)
    assert all(report[path].group is not None for path in params)
    kernels = report.select("a|b")
    assert kernels.groups["scale"] is None
    assert kernels["scale"].reason == "not selected"
    with pytest.raises(ValueError, match="where='c'"):
        report.select("c")


def rows(params, x):
    y = x @ params["kernel"] + params["bias"][None]
    return y / jnp.sqrt(jnp.sum(y * y, axis=1, keepdims=True))


def test_select_cuts_no_tie():
    def f(params, x):
        return jnp.sum(jnp.tanh(rows(params, x)) @ params["head"])

    report = analysed(f)
    assert report["kernel"].group == ScaleGroup((0, 1), tie="bias")
    with pytest.raises(ValueError, match="'bias' of shape .* tie"):
        report.select("kernel")


def test_check_groups():
    report = check_groups(loss, PARAMS, GROUPS, X)
    assert report["kernel"].kind == "stated"
    assert 0 < report["kernel"].deviation < 1e-4
    assert report["head"].deviation is None
    wrong = {**GROUPS, "head": ScaleGroup(0)}
    with pytest.raises(ValueError, match=r"'head' of shape \(4,\)"):
        check_groups(loss, PARAMS, wrong, X)


def test_check_groups_is_not_taken_in_by_what_large_weights_hide():
    # At large weights tanh is a sign, and 0.5 is nothing beside a variance.
    def saturating(params, x):
        return jnp.sum(jnp.tanh(x @ params["kernel"]) @ params["head"])

    for f in (saturating, lambda p, x: loss(p, x, 0.5)):
        with pytest.raises(ValueError, match="'kernel' of shape"):
            check_groups(f, PARAMS, GROUPS, X)


def test_the_probe_is_not_taken_in_by_what_large_weights_hide():
    # A small part of the loss, of weights up to a bound that they do not reach
    # unless they are made much larger.
    def bounded(params, x):
        part = jnp.clip(x @ params["kernel"], -10, 10)
        return loss(params, x) + 1e-7 * jnp.sum(part)

    report = find_groups(bounded, PARAMS, X, method="probe")
    assert report["kernel"].kind == "ordinary"


def test_an_epsilon_at_the_bound_counts_in_any_precision():
    report = analysed(lambda p, x: loss(p, x, 1e-3))
    assert report["kernel"].epsilon == pytest.approx(1e-3)


def test_a_constant_that_is_no_epsilon_is_found_out():
    def f(params, x):
        y = x @ params["kernel"]
        return jnp.sum(jnp.tanh(y / (jax.nn.relu(y) + 1e-4)))

    assert find_groups(f, PARAMS, X)["kernel"].kind == "ordinary"


def test_arrays_that_are_closed_over_may_be_others_tomorrow():
    mean = jnp.zeros(4)

    def f(params, x):
        y = x @ params["kernel"] - mean[None]
        return jnp.sum(jnp.tanh(y / jnp.linalg.norm(y, axis=1, keepdims=True)))

    report = analysed(f)
    assert report["kernel"].kind == "ordinary"
    assert "averages" in report["kernel"].reason


def test_a_report_is_on_params_of_these_shapes():
    report = analysed(loss)
    other = {**PARAMS, "kernel": jnp.ones((4, 3))}
    with pytest.raises(ValueError, match=r"'kernel' has shape \(4, 3\)"):
        make_plan(report, other)
    with pytest.raises(KeyError, match="'kernels'"):
        report["kernels"]


def test_a_report_without_groups_asks_for_the_loss_of_training():
    def in_evaluation(params, x):
        y = x @ params["kernel"] / 2 + params["bias"][None]
        return jnp.mean(jnp.tanh(y) @ params["head"])

    assert "training" in str(analysed(in_evaluation))
    assert "?" not in str(analysed(loss))


def test_contradiction_is_an_error(monkeypatch):
    def mistaken(*args, **kwargs):
        return {
            "kernel": Finding("kernel", (3, 4), ScaleGroup(0), "proved"),
            "bias": Finding("bias", (4,), None, "inert"),
            "head": Finding("head", (4,), ScaleGroup(0), "proved"),
        }

    monkeypatch.setattr(finder, "analyse", mistaken)
    with pytest.raises(RuntimeError, match="contradict.*'head'"):
        find_groups(loss, PARAMS, X)


def test_of_two_sets_that_scale_together_the_larger_is_tied():
    # The matrix scales with either vector; the small one is held first.
    def f(params):
        y = params["a"][:, None] * params["b"][None] + params["matrix"]
        y = y / jnp.linalg.norm(y)
        return jnp.sum(jnp.tanh(y))

    params = {"a": shape(2), "b": shape(3), "matrix": shape(2, 3)}
    report = find_groups(f, params, method="analysis")
    assert report["a"].kind == "ordinary"
    assert re.search("matrix .*tie b", report["a"].reason)
    assert report["b"].group == ScaleGroup(0, tie="b")
    assert report["matrix"].group == ScaleGroup((0, 1), tie="b")


def test_who_lost_its_tie_is_told_of_it():
    # With c, either of a and b scales; d goes up when a goes down.
    def f(params):
        a, b, c, d, e = (params[name] for name in "abcde")
        y = a * d + b * d + c + e
        return jnp.sum(jnp.tanh(y / jnp.linalg.norm(y)))

    params = {**dict.fromkeys("abce", shape(3)), "d": shape(1)}
    report = find_groups(f, params, method="analysis")
    assert {p for p in params if report[p].group} == set("abce")
    assert re.search("c, e .*tie a", report["d"].reason)


def test_fused_kernels_are_tied_by_what_moves_a_part_of_each():
    # a and d, b and e share a part each; c moves the other part of all four.
    # Of any basis two or more have to move.
    def normed(*terms):
        y = sum(terms)
        return jnp.tanh(y / jnp.linalg.norm(y)).sum()

    def f(params):
        a, b, c, d, e = (params[name] for name in "abcde")
        middle = normed(a[1], d[1], b[0], e[0], c)
        return normed(a[0], d[0]) + middle + normed(b[1], e[1])

    params = {**dict.fromkeys("abde", shape(2, 5)), "c": shape(5)}
    report = find_groups(f, params, method="analysis")
    for path in "abde":
        assert report[path].group == ScaleGroup((0, 1), tie="a")
    assert report["c"].group == ScaleGroup(0, tie="a")


def test_the_analysis_traces_the_loss_once(monkeypatch):
    # Traces are counted, not calls: JAX may remember a trace.
    traces = []

    def counted(trace):
        def call(*args):
            traces.append(trace.__name__)
            return trace(*args)

        return call

    for where, name in ((jaxprs, "make_jaxpr"), (jax, "eval_shape")):
        monkeypatch.setattr(where, name, counted(getattr(where, name)))
    assert analysed(loss)["kernel"].group is not None
    assert traces == ["make_jaxpr"]


def work_of(monkeypatch, loss):
    """Count how often the probe compiles a loss, and evaluates it."""
    work = {"programs": 0, "runs": 0}

    def counted(name, method):
        def call(*args):
            work[name] += 1
            return method(*args)

        return call

    for name, method in (("programs", "_compile"), ("runs", "__call__")):
        call = counted(name, getattr(evaluation.Evaluator, method))
        monkeypatch.setattr(evaluation.Evaluator, method, call)
    find_groups(loss, PARAMS, X)
    return work


def test_a_gradient_is_compiled_only_where_it_is_needed(monkeypatch):
    def without_bias(params, x):
        y = norm(x @ params["kernel"]) + params["bias"][None]
        return jnp.mean(jnp.tanh(y) @ params["head"])

    work = work_of(monkeypatch, without_bias)
    assert work["programs"] == 1
    # Moved, 2; large, 1 + 4; given, 1 + 4. Of two that are ordinary, 1 + 2,
    # and of their pair.
    assert work["runs"] <= 2 + 5 + 5 + 3 * 3


def test_what_is_inert_takes_a_gradient(monkeypatch):
    assert work_of(monkeypatch, loss)["programs"] == 2


def test_of_many_parameters_the_tied_pair_is_measured():
    def f(params, x):
        y = rows(params, x) * params["gain"][None] + params["shift"][None]
        return jnp.mean(jnp.tanh(y) @ params["head"])

    params = {**PARAMS, "gain": 1 + draw(5, 4) / 9, "shift": draw(6, 4)}
    report = find_groups(f, params, X, method="probe")
    assert report["kernel"].group == ScaleGroup((0, 1), tie="bias")
    assert report["bias"].group == ScaleGroup(0, tie="bias")
    for path in ("gain", "shift", "head"):
        assert report[path].kind == "ordinary"


def test_the_deviation_is_that_of_all_groups_at_once():
    def f(params, x):
        return loss(params, x) + loss({**params, "kernel": params["other"]}, x)

    params = {**PARAMS, "other": PARAMS["kernel"] / 30}
    report = find_groups(f, params, X)
    assert report["kernel"].deviation == report["other"].deviation > 1e-4
    # The control: each by its own.
    each = check_groups(f, params, report.select("kernel"), X)
    assert each["kernel"].deviation < 1e-4


def test_what_the_analysis_does_not_know_is_measured():
    def f(params, x):
        w = params["kernel"]  # The head is projected on the rows of w.
        solved = jnp.linalg.solve(w @ w.T, w @ params["head"])
        return jnp.sum(jnp.tanh(solved @ w)) * jnp.sum(x)

    report = find_groups(f, PARAMS, X)
    assert report["kernel"].kind == "measured"
    assert "no rule" in report["kernel"].reason
    assert "test_finder.py" in report["kernel"].reason
    alone = analysed(f)
    assert alone["kernel"].kind == "ordinary"
    assert alone["bias"].kind == "inert"


def not_traceable(params, x):
    return params["kernel"].sum() if params["bias"][0] > 0 else 0.0


def noisy(params, x):
    shape = jax.ShapeDtypeStruct((), x.dtype)
    return loss(params, x) + jax.pure_callback(RANDOM.normal, shape)


RANDOM = np.random.default_rng(0)
TRACING = jax.errors.ConcretizationTypeError
REFUSED = [
    (ValueError, "return the loss", lambda p, x: None, PARAMS, X),
    (ValueError, "gradient", lambda p, x: jnp.argmax(p["head"]), PARAMS, X),
    (TypeError, "'act'", loss, {**PARAMS, "act": jnp.tanh}, X),
    (TypeError, "floating-point", loss, {"w": jnp.ones(3, jnp.int32)}, X),
    (KeyError, "structure", loss, {"w": X}, X),
    (TRACING, "traceable", not_traceable, PARAMS, X),
    (ValueError, "random keys", noisy, PARAMS, X),
    (ValueError, "not finite", loss, PARAMS, X * jnp.nan),
]


@pytest.mark.parametrize(("error", "word", "loss", "params", "x"), REFUSED)
def test_losses_and_params_that_are_refused(error, word, loss, params, x):
    with pytest.raises(error) as caught:
        find_groups(loss, params, x)
    notes = getattr(caught.value, "__notes__", [])
    assert word in "".join([str(caught.value), *notes])


def test_methods_and_shapes_that_are_refused():
    with pytest.raises(ValueError, match="method='guess'"):
        find_groups(loss, PARAMS, X, method="guess")
    with pytest.raises(ValueError, match="arrays"):
        check_groups(loss, PARAMS, GROUPS, shape(8, 3))


def test_a_loss_that_returns_more_than_itself_is_told():
    def with_statistics(params, x):
        return loss(params, x), jnp.mean(x @ params["kernel"], axis=0)

    report = find_groups(with_statistics, PARAMS, X)
    assert report["kernel"].group is None
    assert "2 arrays" in str(report)
    assert "arrays" not in str(find_groups(loss, PARAMS, X))
    with pytest.raises(ValueError, match="2 arrays.*loss_fn"):
        check_groups(with_statistics, PARAMS, GROUPS, X)
    check_groups(loss, PARAMS, GROUPS, X)


def test_a_loss_in_single_precision_only_is_measured_in_it():
    def f(params, x):
        if x.dtype != jnp.float32:
            raise TypeError("single precision, please")
        return loss(params, x)

    report = find_groups(f, PARAMS, X)
    assert report.groups["kernel"] == ScaleGroup(0)
    assert report["kernel"].deviation < 1e-4
    probed = find_groups(f, PARAMS, X, method="probe")
    assert probed.groups["kernel"] == ScaleGroup(0)
    assert probed.groups["head"] is None


@pytest.mark.parametrize("check", [False, True])
def test_groups_of_norm_zero_are_pointed_out(check):
    """In double precision and elsewhere they are as invariant as any."""

    def loss(params, x):
        x = jax.nn.standardize(x @ params["w"], axis=0, epsilon=1e-5)
        return jnp.mean(jnp.tanh(x) @ params["head"])

    w = jnp.arange(1.0, 13.0).reshape(4, 3).at[:, 1].set(0)
    params = {"w": w.at[0, 2].set(0), "head": jnp.zeros(3)}
    x = jax.random.normal(jax.random.key(0), (6, 4))
    groups = {"w": ScaleGroup(axes=0), "head": None}

    def report(params):
        if check:
            return check_groups(loss, params, groups, x)
        return find_groups(loss, params, x)

    assert report(params)["w"].group == groups["w"]
    assert "1 of 3 norm zero" in report(params)["w"].note
    assert "norm zero" in str(report(params))
    assert not report(params)["head"].note
    assert not report({**params, "w": w + 1})["w"].note


def test_shapes_have_no_norms():
    report = find_groups(lambda w: jnp.sum(jnp.sign(w)), shape(4, 3))
    assert not report[""].note
