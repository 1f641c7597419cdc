"""The experiment with perturbations: its methods, trainings and claims."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("sklearn")

from benchmarks import training
from benchmarks.experiments.perturbations import MEASUREMENT
from benchmarks.experiments.perturbations.experiment import Runs
from benchmarks.experiments.perturbations.methods import (
    METHODS,
    elementwise_ascent,
)
from benchmarks.harness.files import InputError
from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import Results, read
from psi_optax.transforms import relative_ascent

pytestmark = pytest.mark.usefixtures("optax_promotion")

SMALL = dataclasses.replace(MEASUREMENT.smoke, shorter=20)


@pytest.fixture(scope="module")
def runs():
    return Runs(SMALL, "digits")


def test_asam_perturbs_relative_to_each_element():
    w = {"kernel": jnp.array([3.0, -0.5]), "bias": jnp.array([2.0])}
    g = {"kernel": jnp.array([1.0, 4.0]), "bias": jnp.array([0.5])}
    tx = elementwise_ascent(0.7, eta=0.1)
    steps, _ = tx.update(g, tx.init(w), w)
    sizes = np.array([3.1, 0.6, 1.0])
    relative = sizes * [1.0, 4.0, 0.5]
    expected = -0.7 * sizes * relative / np.linalg.norm(relative)
    found = np.concatenate([steps["kernel"], steps["bias"]])
    # Three roundings of float32.
    np.testing.assert_allclose(found, expected, rtol=5e-7)


def test_entropy_sgd_is_the_gradient_for_short_inner_steps(runs, monkeypatch):
    """Its scaling makes all methods tune over the same rates."""
    w, key = {"kernel": jnp.array([[3.0], [4.0]])}, jax.random.key(0)
    g = {"kernel": jnp.array([[0.8], [-0.6]])}

    def step(strength, rate):
        options = {"steps": 5, "rate": rate, "noise": 0.0, "average": 0.75}
        for name, value in options.items():
            monkeypatch.setitem(
                METHODS["entropy"].wrap.__globals__["INNER"], name, value
            )
        groups = {"kernel": None}
        tx = METHODS["entropy"].wrap(optax.sgd(1.0), groups, strength, key)
        found, _ = tx.update(g, tx.init(w), w, grad_fn=lambda *_: g)
        return np.asarray(found["kernel"])

    # The pull of the first order is 5 gamma rate of the step; x - mu, of 1e-3,
    # is a difference of weights of 4, with errors of 2e-7.
    np.testing.assert_allclose(step(0.1, 1e-3), -g["kernel"], rtol=2e-3)
    assert np.abs(step(3.0, 0.1) / -g["kernel"] - 1).min() > 0.2


def test_a_point_and_a_seed_are_as_if_trained_alone(runs):
    found = np.array(runs.compile("relative", "sgd")(1.0)["test"])
    rate, strength, seed = 1, 3, 1
    assert found.shape == (2, 4, 2)
    tuning, final = runs.splits
    loss = training.make_loss(runs.model)
    variables, batches, _ = runs.begin(1)
    params = jax.tree.map(lambda x: x[seed], variables["params"])
    rho = METHODS["relative"].strengths[strength]
    tx = optax.contrib.sam(
        optax.sgd(
            optax.cosine_decay_schedule(SMALL.rates[rate], batches.shape[1]),
            0.9,
        ),
        relative_ascent(rho, runs.groups),
        opaque_mode=True,
    )

    @jax.jit
    def step(params, state, images, labels):
        def gradient(params, _):
            return jax.grad(lambda p: loss(p, {}, images, labels)[0])(params)

        updates, state = tx.update(
            gradient(params, 0), state, params, grad_fn=gradient
        )
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for batch in batches[seed]:
        here = tuning.train_images[batch], tuning.train_labels[batch]
        params, state = step(params, state, *here)
    variables = {"params": params}
    _, statistics = runs.model.apply(
        variables, tuning.train_images, train=True, mutable=["batch_stats"]
    )
    logits = runs.model.apply(
        {**variables, **statistics}, final.test_images, train=False
    )
    alone = np.mean(logits.argmax(-1) == final.test_labels)
    # In another program rounding may tip over hardly more than one image.
    assert abs(found[rate, strength, seed] - alone) < 2 / 599
    assert np.abs(found - found[rate, strength, seed]).max() > 2 / 599


@pytest.mark.parametrize("name", ["none", "relative", "noise", "entropy"])
def test_relative_perturbations_before_psi_do_not_depend_on_scales(runs, name):
    results = runs.compile(name, "psi")
    assert results(1.0) == results(8.0)


@pytest.mark.parametrize("case", [("sam", "psi"), ("relative", "sgd")])
def test_absolute_ones_and_those_before_sgd_do(runs, case):
    results = runs.compile(*case)
    assert results(1.0) != results(8.0)


def made_up(validation, test):
    """Results of no perturbation and of SAM, by optimizer, rate and seed."""
    settings = dataclasses.replace(
        MEASUREMENT.smoke, methods=("none", "sam"), scales=(1.0,)
    )
    parts = {}
    for name in settings.methods:
        for optimizer in ("sgd", "psi"):
            count = len(METHODS[name].strengths)
            shape = len(settings.rates), count, settings.seeds

            def whole(values, shape=shape):
                return np.broadcast_to(
                    np.array(values)[:, None], shape
                ).tolist()

            parts[f"digits/{name}/{optimizer}/1"] = {
                "validation": whole(validation[name]),
                "test": whole(test[name]),
                "test loss": whole([[1.0, 2.0], [None, None]]),
            }
    return {"settings": dataclasses.asdict(settings), "parts": parts}


def test_points_are_chosen_on_validation_data_alone():
    content = made_up(
        {"none": [[0.6, 0.5], [0.4, 0.6]], "sam": [[0.1, 0.2], [0.3, 0.3]]},
        {"none": [[0.5, 0.7], [0.9, 0.9]], "sam": [[0.9, 0.9], [0.8, 0.6]]},
    )
    once, each = [
        [[y.strip() for y in x.split("|")[1:-1]] for x in lines]
        for lines in (
            [x for x in MEASUREMENT.report(content).splitlines() if start in x]
            for start in ("| none, SGD", "| SAM, SGD")
        )
    ]
    assert once == [
        ["none, SGD", "0.03★", "", "60.0 ± 14.1", "", "1.500 ± 0.707"],
        ["none, SGD", "60.0 (0.03★)"],
    ]
    assert each == [
        [
            *("SAM, SGD", "0.3★", "rho 0.1★", "70.0 ± 14.1"),
            *("10.0 ± 28.3", "diverged"),
        ],
        ["SAM, SGD", "70.0 (0.3★, rho 0.1★)"],
    ]


@pytest.mark.parametrize("lack", ["scales", "methods"])
def test_what_others_are_compared_with_is_required(tmp_path, lack):
    changed = {"scales": (0.5, 2.0), "methods": ("sam",)}[lack]
    settings = dataclasses.replace(SMALL, **{lack: changed})
    with pytest.raises(InputError, match=f"--{lack} lacks"):
        MEASUREMENT.measure(settings, Results(tmp_path / "numbers.json", {}))


def test_the_numbers_that_are_kept_bear_out_the_claims():
    content = read(DOCS / "numbers" / "perturbations.json")
    assert MEASUREMENT.faults(content) == []
    changed = copy.deepcopy(content)
    changed["parts"]["digits/relative/psi/8"]["test"][0][0][0] += 1e-4
    # Nothing is claimed of the others.
    changed["parts"]["digits/relative/sgd/8"]["test"][0][0][0] += 1e-4
    changed["parts"]["digits/sam/psi/8"]["test"][0][0][0] += 1e-4
    [fault] = MEASUREMENT.faults(changed)
    assert fault.startswith("digits, relative SAM, psi")
