"""Models of frameworks are taken as a training script has them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from psi_optax import ScaleGroup, check_groups, find_groups, psi_sgd
from psi_optax.groups.paths import leaves_with_paths

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (6, 5))
Y = jnp.arange(6) % 3


@pytest.fixture(autouse=True)
def _promotion():
    """Frameworks promote dtypes and ranks, as scripts do."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def cross_entropy(logits, labels=Y):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


class Script(NamedTuple):
    """A training script: a loss with its inputs, and a step of its loop.

    Attributes:
        loss: returns a pair (loss, aux).
        inputs: the model and the other arguments of the loss.
        path: a kernel before the normalization.
        group: its groups.
        weights: returns the tree that the optimizer gets.
        step: makes a step with a transform; returns the new weights.
        evaluate: returns the inputs in evaluation mode.
        shapes: the inputs with shapes in place of arrays.
    """

    loss: Callable[..., Any]
    inputs: tuple[Any, ...]
    path: str
    group: ScaleGroup
    weights: Callable[[], Any]
    step: Callable[[optax.GradientTransformation], Any]
    evaluate: Callable[[], tuple[Any, ...]]
    shapes: Callable[[], tuple[Any, ...]]


# -- Flax NNX ------------------------------------------------------------------


class NnxNet(nnx.Module):
    def __init__(self, rngs, is_normalized=True):
        self.layer = nnx.Linear(5, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)
        self.is_normalized = is_normalized

    def __call__(self, x):
        x = self.layer(x)
        x = self.norm(x) if self.is_normalized else x
        return self.head(self.dropout(nnx.relu(x)))


def nnx_loss(model, batch):
    logits = model(batch["x"])
    return cross_entropy(logits, batch["y"]), logits


def nnx_script(is_normalized):
    def make():
        return NnxNet(nnx.Rngs(0), is_normalized)

    model, batch = make(), {"x": X, "y": Y}

    def step(tx):
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        _, gradient = nnx.value_and_grad(nnx_loss, has_aux=True)(model, batch)
        optimizer.update(model, gradient)
        return nnx.state(model, nnx.Param)

    def evaluate():
        evaluated = make()
        evaluated.eval()
        return evaluated, batch

    return Script(
        nnx_loss,
        (model, batch),
        "layer/kernel",
        ScaleGroup(0),
        lambda: nnx.state(model, nnx.Param),
        step,
        evaluate,
        lambda: (nnx.eval_shape(make), batch),
    )


# -- Equinox -------------------------------------------------------------------


class EqxNet(eqx.Module):
    layer: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    spectral: eqx.nn.SpectralNorm
    head: eqx.nn.Linear
    table: jax.Array
    activation: Callable
    name: str
    is_normalized: bool

    def __init__(self, key, is_normalized=True, mode="batch"):
        keys = jax.random.split(key, 4)
        self.layer = eqx.nn.Linear(5, 4, key=keys[0])
        self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode=mode)
        self.spectral = eqx.nn.SpectralNorm(
            eqx.nn.Linear(4, 4, key=keys[1]), "weight", key=keys[2]
        )
        self.head = eqx.nn.Linear(4, 3, key=keys[3])
        self.table = jnp.arange(4)[::-1]
        self.activation, self.name = jax.nn.relu, "net"
        self.is_normalized = is_normalized

    def __call__(self, x, state):
        x = self.layer(x)
        if self.is_normalized:
            x, state = self.norm(x, state)
            x, state = self.spectral(x, state)
        return self.head(self.activation(x)[self.table]), state


def eqx_loss(model, state, x, y):
    run = jax.vmap(
        model, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    logits, state = run(x, state)
    return cross_entropy(logits, y), state


def eqx_script(is_normalized, mode="batch"):
    make = eqx.nn.make_with_state(
        functools.partial(EqxNet, is_normalized=is_normalized, mode=mode)
    )
    model, state = make(KEY)

    def weights():
        return eqx.filter(model, eqx.is_inexact_array)

    def step(tx):
        gradient, _ = eqx.filter_grad(eqx_loss, has_aux=True)(
            model, state, X, Y
        )
        updates, _ = tx.update(gradient, tx.init(weights()), weights())
        new = eqx.apply_updates(model, updates)
        return eqx.filter(new, eqx.is_inexact_array)

    return Script(
        eqx_loss,
        (model, state, X, Y),
        "layer/weight",
        ScaleGroup(1),
        weights,
        step,
        lambda: (eqx.nn.inference_mode(model), state, X, Y),
        lambda: (*eqx.filter_eval_shape(make, KEY), X, Y),
    )


# -- Flax Linen ----------------------------------------------------------------


class LinenNet(nn.Module):
    is_normalized: bool = True

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(4, name="layer")(x)
        if self.is_normalized:
            x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(3)(nn.relu(x))


def linen_script(is_normalized):
    model = LinenNet(is_normalized)
    variables = model.init(KEY, X, True)

    def loss(variables, x, train=True):
        logits, new = model.apply(variables, x, train, mutable=["batch_stats"])
        return cross_entropy(logits), new

    def step(tx):
        state = TrainState.create(
            apply_fn=model.apply, params=variables["params"], tx=tx
        )
        gradient, _ = jax.grad(
            lambda params: loss({**variables, "params": params}, X),
            has_aux=True,
        )(state.params)
        return state.apply_gradients(grads=gradient).params

    return Script(
        loss,
        (variables, X),
        "layer/kernel",
        ScaleGroup(0),
        lambda: variables["params"],
        step,
        lambda: (variables, X, False),
        lambda: (jax.eval_shape(lambda: model.init(KEY, X, True)), X),
    )


# -- Haiku ---------------------------------------------------------------------


def haiku_script(is_normalized):
    def network(x, train):
        x = hk.Linear(4, name="layer")(x)
        if is_normalized:
            x = hk.BatchNorm(True, True, 0.9)(x, train)
        return hk.Linear(3)(jax.nn.relu(x))

    model = hk.transform_with_state(network)
    params, state = model.init(KEY, X, True)

    def loss(params, state, key, train=True):
        logits, state = model.apply(params, state, key, X, train)
        return cross_entropy(logits), state

    def step(tx):
        gradient, _ = jax.grad(loss, has_aux=True)(params, state, KEY)
        updates, _ = tx.update(gradient, tx.init(params), params)
        return optax.apply_updates(params, updates)

    return Script(
        loss,
        (params, state, KEY),
        "layer/w",
        ScaleGroup(0),
        lambda: params,
        step,
        lambda: (params, state, KEY, False),
        lambda: (*jax.eval_shape(lambda: model.init(KEY, X, True)), KEY),
    )


SCRIPTS = {
    "nnx": nnx_script,
    "equinox": eqx_script,
    "linen": linen_script,
    "haiku": haiku_script,
}
each_framework = pytest.mark.parametrize("name", SCRIPTS)


def found(script, inputs=None, **options):
    inputs = script.inputs if inputs is None else inputs
    return find_groups(script.loss, *inputs, has_aux=True, **options)


# -- all of them ---------------------------------------------------------------


@each_framework
def test_a_script_trains_with_the_report(name):
    script = SCRIPTS[name](is_normalized=True)
    before = script.weights()
    report = found(script)
    assert report[script.path].group == script.group
    assert report[script.path].kind == "proved up to epsilon"
    assert report[script.path].deviation < 1e-3
    leaves = leaves_with_paths(before)
    assert report.findings.keys() == {
        x.path for x in leaves if not x.is_placeholder
    }
    grouped = leaves_with_paths(report.groups)
    assert [x.path for x in grouped] == [x.path for x in leaves]
    held = {x.path: jnp.copy(x.leaf) for x in leaves if not x.is_placeholder}
    after = dict(leaves_with_paths(script.step(psi_sgd(0.1, report))))
    w, new = held[script.path], after[script.path]
    assert jnp.max(jnp.abs(new - w)) > 1e-3
    [axis] = script.group.axes
    # A radius is kept to 2 ulp, and so are the norms computed here.
    np.testing.assert_allclose(
        jnp.linalg.norm(new, axis=axis),
        jnp.linalg.norm(w, axis=axis),
        rtol=4 * 1.2e-7,
    )


@each_framework
def test_without_normalization_there_are_no_groups(name):
    report = found(SCRIPTS[name](is_normalized=False), method="analysis")
    assert {finding.group for finding in report.findings.values()} == {None}


@each_framework
def test_shapes_are_enough(name):
    script = SCRIPTS[name](is_normalized=True)
    report = found(script, script.shapes())
    assert report[script.path].group == script.group
    assert report.findings == found(script, method="analysis").findings


@each_framework
def test_training_mode_is_advised_for_running_averages(name):
    script = SCRIPTS[name](is_normalized=True)
    report = found(script, script.evaluate(), method="analysis")
    assert report[script.path].group is None
    assert "training mode" in report.advice
    assert "training mode" not in found(script, method="analysis").advice


@each_framework
def test_groups_are_checked_on_a_model(name):
    script = SCRIPTS[name](is_normalized=True)
    groups = {x.path: None for x in leaves_with_paths(script.weights())}
    groups[script.path] = script.group
    report = check_groups(
        script.loss, script.inputs[0], groups, *script.inputs[1:], has_aux=True
    )
    assert report[script.path].deviation < 1e-3


# -- has_aux -------------------------------------------------------------------


def test_aux_is_no_part_of_the_loss():
    """New running averages are scaled, as the layer before them is."""
    script = haiku_script(is_normalized=True)
    both = find_groups(script.loss, *script.inputs, method="analysis")
    assert both[script.path].group is None
    assert "has_aux=True" in str(both)
    alone = found(script, method="analysis")
    assert alone[script.path].group == script.group
    assert "has_aux" not in str(alone)
    groups = alone.groups
    params, *args = script.inputs
    with pytest.raises(ValueError, match=f"{script.path}.*has_aux"):
        check_groups(script.loss, params, groups, *args)


@pytest.mark.parametrize("result", [lambda x: x, lambda x: (x, x, x)])
def test_aux_without_a_pair_is_an_error(result):
    with pytest.raises(TypeError, match="pair"):
        find_groups(lambda w: result(jnp.sum(w)), jnp.ones(3), has_aux=True)


def test_a_loss_that_closes_over_its_model_is_told():
    model = nnx.Linear(5, 1, rngs=nnx.Rngs(0))
    report = find_groups(lambda _, x: jnp.mean(model(x)), model, X)
    assert "close over" in report.advice
    used = find_groups(lambda model, x: jnp.mean(model(x)), model, X)
    assert "close over" not in used.advice


# -- Flax NNX ------------------------------------------------------------------


def contents(*objects):
    """Return all numbers that objects hold, random keys as numbers."""
    return [
        np.asarray(
            jax.random.key_data(x)
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
            else x
        )
        for x in jax.tree.leaves(nnx.state(objects))
    ]


def metered(model, batch, rngs, metrics, teacher):
    """A loss that changes all objects that it takes."""
    noise = jax.random.normal(rngs.noise(), batch["x"].shape)
    logits = model(batch["x"] + noise) + teacher(batch["x"])
    loss = cross_entropy(logits, batch["y"])
    metrics.update(loss=loss, logits=logits, labels=batch["y"])
    return loss, logits


def test_nnx_objects_are_left_as_they_are():
    model, teacher = NnxNet(nnx.Rngs(0)), NnxNet(nnx.Rngs(1))
    rngs = nnx.Rngs(noise=2)
    metrics = nnx.MultiMetric(
        loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy()
    )
    batch = {"x": X, "y": Y}
    args = model, batch, rngs, metrics, teacher
    before = contents(model, rngs, metrics, teacher)
    for method in ("both", "analysis"):
        report = find_groups(metered, *args, has_aux=True, method=method)
        assert report["layer/kernel"].group == ScaleGroup(0)
        after = contents(model, rngs, metrics, teacher)
        assert all(map(np.array_equal, before, after))
    metered(*args)
    changed = map(np.array_equal, before, contents(*args[:1], *args[2:]))
    assert not all(changed)


def test_nnx_weights_that_a_model_shares_with_an_argument():
    """They scale in both places: the layer alone is not normalized."""

    def loss(model, x, other):
        return jnp.mean(model(x)) + jnp.mean(jnp.tanh(other(x)))

    model = NnxNet(nnx.Rngs(0))
    for other, group in ((model.layer, None), (nnx.clone(model.layer), 0)):
        report = find_groups(loss, model, X, other, method="analysis")
        expected = group if group is None else ScaleGroup(group)
        assert report["layer/kernel"].group == expected


def test_nnx_models_in_a_container():
    models = {
        "net": NnxNet(nnx.Rngs(0)),
        "top": nnx.Linear(3, 1, rngs=nnx.Rngs(1)),
    }
    report = find_groups(
        lambda models, x: jnp.mean(models["top"](models["net"](x))),
        models,
        X,
        method="analysis",
    )
    params = nnx.state(models, nnx.Param)
    assert report["net/layer/kernel"].group == ScaleGroup(0)
    psi_sgd(0.1, report).init(params)


def test_nnx_states_that_a_loss_merges_itself():
    graph, params, rest = nnx.split(NnxNet(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, graph, rest, rngs):
        model = nnx.merge(graph, params, rest, copy=True)
        return jnp.mean(model(X + rngs.noise.normal(X.shape)))

    args = graph, rest, nnx.Rngs(noise=0)
    report = find_groups(loss, params, *args, method="analysis")
    assert report["layer/kernel"].group == ScaleGroup(0)
    psi_sgd(0.1, report).init(params)


def test_nnx_objects_that_a_loss_closes_over():
    model, rngs = NnxNet(nnx.Rngs(0)), nnx.Rngs(0)

    def noisy(model):
        return jnp.mean(model(X + rngs.noise.normal(X.shape)))

    for loss in (noisy, lambda _: jnp.mean(model(X))):
        with pytest.raises(flax.errors.TraceContextError) as caught:
            find_groups(loss, model)
        assert "as an argument" in "".join(caught.value.__notes__)


def test_nnx_weights_of_which_a_part_trains():
    """The report is on all: it names the frozen part and the remedies."""
    script = nnx_script(is_normalized=True)
    model, batch = script.inputs
    report = found(script, method="analysis")
    wrt = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("layer")))
    with pytest.raises(ValueError, match=r"'layer/kernel'.*select\("):
        nnx.Optimizer(model, psi_sgd(0.1, report), wrt=wrt)
    graph, trained, rest = nnx.split(model, wrt, ...)

    def loss(trained, batch):
        return nnx_loss(nnx.merge(graph, trained, rest, copy=True), batch)

    part = find_groups(loss, trained, batch, has_aux=True, method="analysis")
    with pytest.warns(UserWarning, match="none of"):
        nnx.Optimizer(model, psi_sgd(0.1, part), wrt=wrt)


# -- Equinox -------------------------------------------------------------------


def test_equinox_arrays_that_are_no_weights_are_ordinary():
    script = eqx_script(is_normalized=True)
    report = found(script, method="analysis")
    arrays = eqx.filter(script.inputs[0], eqx.is_array)
    assert report.groups_for(arrays)["table"] is None
    psi_sgd(0.1, report).init(arrays)
    # The control: a weight that the report does not know.
    other = eqx.tree_at(lambda x: x.table, arrays, jnp.ones(4))
    with pytest.raises(ValueError, match="'table' of shape"):
        psi_sgd(0.1, report).init(other)


def test_equinox_leaves_that_are_no_weights():
    script = eqx_script(is_normalized=True)
    report = found(script, method="analysis")
    assert "table" not in report.findings
    assert report["spectral/layer/weight"].group == ScaleGroup((0, 1))
    model, *args = script.inputs
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, static, *args):
        return eqx_loss(eqx.combine(params, static), *args)

    split = find_groups(
        loss, params, static, *args, has_aux=True, method="analysis"
    )
    assert split.groups == report.groups


def test_equinox_batch_norm_with_running_averages_in_training():
    """A fresh state is normalized by the batch, all later ones are not."""
    script = eqx_script(is_normalized=True, mode="ema")
    assert found(script)[script.path].group is None


# -- Flax Linen ----------------------------------------------------------------


def test_linen_variables_keep_their_type():
    script = linen_script(is_normalized=True)
    frozen = flax.core.freeze(script.inputs[0])

    def loss(variables, x):
        assert isinstance(variables, flax.core.FrozenDict)
        assert isinstance(variables["params"], flax.core.FrozenDict)
        return script.loss(variables, x)

    report = find_groups(loss, frozen, X, has_aux=True, method="analysis")
    assert isinstance(report.groups, flax.core.FrozenDict)
    psi_sgd(0.1, report).init(frozen["params"])


def test_a_linen_module_stands_for_its_output():
    for model, path, group in (
        (LinenNet(), "layer/kernel", ScaleGroup(0)),
        (LinenNet(is_normalized=False), "params/layer/kernel", None),
    ):
        variables = model.init(KEY, X, True)
        report = find_groups(model, variables, X, True, method="analysis")
        assert report[path].group == group


def test_linen_statistics_that_a_loss_may_not_write_are_told():
    model = LinenNet()
    variables = model.init(KEY, X, True)
    with pytest.raises(flax.errors.ModifyScopeVariableError) as caught:
        find_groups(model.apply, variables, X, True)
    notes = " ".join(caught.value.__notes__)
    assert "mutable" in notes
    assert "has_aux" in notes


def test_collections_beside_params_are_named():
    def loss(tree, x):
        tree = tree.get("net", tree)
        w = tree["params"]["w"]
        return jnp.sum(x @ w / jnp.linalg.norm(w, axis=0) * tree["head"]["v"])

    tree = {
        "params": {"w": X.T},
        "head": {"v": jnp.ones(6)},
        "cache": {"index": jnp.arange(6)},
    }
    for given, paths in (
        (tree, {"w"}),
        ({"net": {k: tree[k] for k in ("params", "head")}}, None),
    ):
        report = find_groups(loss, given, X, method="analysis")
        names_data = "'head' beside" in str(report)
        assert names_data == ("'head' beside" in report.summary())
        assert names_data == (paths is not None)
        if paths is not None:
            assert set(report.findings) == paths
    with_rngs = find_groups(
        lambda tree, x, _: loss(tree, x),
        *(tree, X, nnx.Rngs(0)),
        method="analysis",
    )
    assert "'head' beside" in str(with_rngs)
    # Integers are no weights, and running averages are known as data.
    assert "'cache'" not in str(find_groups(loss, tree, X, method="analysis"))
    script = linen_script(is_normalized=True)
    assert "beside 'params'" not in str(found(script, method="analysis"))


@pytest.mark.parametrize(
    "tree",
    [
        {"params": {"w": X}},
        {"params": X, "w": X},
        {"weights": {"w": X}, "a": {}},
    ],
)
def test_mappings_that_are_no_variables_are_params(tree):
    report = find_groups(
        lambda tree: sum(map(jnp.sum, jax.tree.leaves(tree))),
        tree,
        method="analysis",
    )
    assert jax.tree.structure(report.groups, is_leaf=lambda x: x is None) == (
        jax.tree.structure(tree)
    )


# -- inside other functions ----------------------------------------------------


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_traced_arrays_are_taken_for_shapes(transform):
    """As where a whole training run is one function, vmapped over seeds."""
    script = haiku_script(is_normalized=True)
    reports = []

    def train(params, state):
        def loss(params, state):
            return script.loss(params, state, KEY)

        report = find_groups(loss, params, state, has_aux=True)
        reports.append(report)
        return psi_sgd(0.1, report).init(params)

    params, state, _ = script.inputs
    stacked = (params, state)
    if transform is jax.vmap:
        stacked = jax.tree.map(lambda x: jnp.stack([x, x]), stacked)
    transform(train)(*stacked)
    assert reports[0][script.path].group == script.group


# -- objects without weights ---------------------------------------------------


class Torchlike:
    def named_parameters(self):
        return []

    def state_dict(self):
        return {}


UNSUITABLE = {
    "class of Flax NNX": (lambda: NnxNet, "class.*NNX.*instance"),
    "class of Flax Linen": (lambda: LinenNet, "class.*Linen.*instance"),
    "class of Equinox": (lambda: EqxNet, "class.*Equinox.*instance"),
    "Linen module": (LinenNet, "Linen.*init"),
    "Haiku function": (lambda: hk.transform(lambda x: x), "Haiku.*init"),
    "NNX optimizer": (
        lambda: nnx.Optimizer(NnxNet(nnx.Rngs(0)), optax.sgd(1), wrt=nnx.Param),
        "NNX.*model",
    ),
    "NNX graph": (lambda: nnx.graphdef(NnxNet(nnx.Rngs(0))), "NNX.*model"),
    "train state": (
        lambda: TrainState.create(
            apply_fn=None, params={"w": X}, tx=optax.sgd(1)
        ),
        "params",
    ),
    "PyTorch": (Torchlike, "PyTorch"),
    "function": (lambda: nnx_loss, "loss_fn first"),
}


@pytest.mark.parametrize("name", UNSUITABLE)
def test_objects_without_weights_name_the_remedy(name):
    make, words = UNSUITABLE[name]
    with pytest.raises(TypeError, match=words):
        find_groups(lambda model: 0.0, make())
    with pytest.raises(TypeError, match=words):
        check_groups(lambda model: 0.0, make(), None)
