"""The experiment with normalizations: its groups, trainings and claims."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import training
from benchmarks.experiments.noisy_data import split
from benchmarks.experiments.normalizations import MEASUREMENT
from benchmarks.experiments.normalizations.equality import differences
from benchmarks.experiments.normalizations.experiment import Runs
from benchmarks.experiments.normalizations.methods import (
    LABELS,
    NORMALIZATIONS,
)
from benchmarks.experiments.normalizations.report import EQUALITY
from benchmarks.harness.files import InputError
from benchmarks.harness.pages import DOCS
from benchmarks.harness.results import Results, read
from psi_optax import ScaleGroup

pytestmark = pytest.mark.usefixtures("optax_promotion")

# So few steps would leave the running statistics near their initial values,
# which have a scale: they are those of the last batch.
SMALL = dataclasses.replace(
    MEASUREMENT.smoke,
    rates=(0.1, 0.3),
    epochs=1,
    widths=(16, 16),
    bn_momentum=0.0,
)
EXACT = {"fixed gains": 1e-16, "learned gains": 1e-16, "gains": 0.0}
CONTROLS = {"centered": 0.1, "without BatchNorm": 0.1}


@pytest.fixture(scope="module")
def splits():
    return split("digits", SMALL.train, SMALL.validation, SMALL.pool, 0.0)


def runs_of(name, splits):
    return Runs(SMALL, name, splits)


def test_in_front_of_batch_norm_weight_normalization_has_no_effect(splits):
    found = differences(splits[0])
    for name in EXACT:
        # 30 steps that round weights of size 1 to 1e-16, several times each.
        assert found[name] < 1e-13
    for name in CONTROLS:
        assert found[name] > 1e-2


def test_groups_are_filters_unless_these_are_made_orthogonal(splits):
    filters = {name: ScaleGroup(axes=0) for name in ("hidden_0", "hidden_1")}
    # 16 centered filters of 16 weights are orthonormal in two blocks.
    blocks = ScaleGroup(axes=(0, 1), blocks={1: 2})
    whole = {"hidden_0": ScaleGroup(axes=(0, 1)), "hidden_1": blocks}
    for name in NORMALIZATIONS:
        runs = runs_of(name, splits)
        groups = getattr(runs.groups(), "groups", runs.groups())
        kernels = {x: groups[x]["kernel"] for x in filters}
        assert kernels == (whole if name == "orthogonal" else filters)
        assert groups["head"] == {"kernel": None, "bias": None}


def test_networks_begin_alike_but_for_the_norms_of_filters(splits):
    """Hidden weights have the norm that He initialization gives on average."""
    kernel = jax.random.normal(jax.random.key(0), (64, 16))
    for normalization in NORMALIZATIONS.values():
        if normalization.batch_norm or not normalization.scaled:
            continue
        unit = kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)
        given = unit if normalization.stated else kernel
        weights = np.asarray(normalization.function(given))
        centered = "standardization" in normalization.label
        expected = 2 / (1 - 1 / np.pi) if centered else 2
        # float32; 12 steps of the orthogonalization.
        np.testing.assert_allclose((weights**2).sum(0), expected, rtol=1e-5)


def test_scales_that_are_powers_of_two_change_nothing_behind_psi_sgd(splits):
    for name, (changes_sgd, changes_psi) in {
        "unit": (True, False),
        "batch_norm": (True, False),
        "none": (True, True),
    }.items():
        runs = runs_of(name, splits)
        for optimizer, changes in zip(
            LABELS, (changes_sgd, changes_psi), strict=True
        ):
            accuracies = runs.compile(optimizer)
            shape = len(SMALL.rates), SMALL.seeds
            assert np.shape(accuracies(1.0)["test"]) == shape
            assert (accuracies(1.0) != accuracies(8.0)) == changes


def test_a_rate_and_a_seed_are_as_if_trained_alone(splits):
    runs = runs_of("unit", splits)
    found = np.array(runs.compile("psi_sgd")(1.0)["test"])

    def build(rate, decay, groups):
        return NORMALIZATIONS["unit"].optimizers["psi_sgd"](rate, groups)

    train = training.make_train(runs.model, build, splits[1])
    images, seeds = splits[0].train_images, range(1, 2)
    start = training.begin(runs.model, images, seeds, SMALL.batch_size, 1)
    evaluate = training.make_evaluate(runs.model, splits[1])
    [alone], _ = evaluate(train(*start, 0.3, 0.0))
    # In another program rounding may tip over hardly more than one image.
    assert abs(found[1, 1] - alone) < 2 / 599
    assert np.abs(found - found[1, 1]).max() > 2 / 599


def made_up(validation, test):
    """Results of SGD and psi_sgd without a normalization."""
    settings = dataclasses.replace(
        MEASUREMENT.smoke, normalizations=("none",), rates=(0.1, 0.2, 0.3)
    )
    parts = {
        f"none/{optimizer}/{scale:g}": {
            "validation": np.array(validation[index]).T.tolist(),
            "test": np.array(test[index]).T.tolist(),
        }
        for optimizer in LABELS
        for index, scale in enumerate(settings.scales)
    }
    parts[EQUALITY] = EXACT | CONTROLS
    return {"settings": dataclasses.asdict(settings), "parts": parts}


def test_rates_are_chosen_on_validation_data_alone():
    # By scale, seed and rate: the second rate at 1 / 8, the first at 1.
    validation = [[[0.1, 0.6, 0.2], [0.2, 0.5, 0.5]], [[0.9, 0.4, 0.1]] * 2]
    test = [[[0.2, 0.3, 0.9], [0.4, 0.5, 0.9]], [[0.5, 0.8, 0.9]] * 2]
    lines = MEASUREMENT.report(made_up(validation, test)).splitlines()
    once, each = [x for x in lines if x.startswith("| none, SGD")]
    cells = [[x.strip() for x in row.split("|")[2:-1]] for row in (once, each)]
    assert cells == [
        ["0.1★", "30.0 ± 14.1", "50.0 ± 0.0"],
        ["40.0 (0.2)", "50.0 (0.1★)"],
    ]


def test_the_scale_that_tunes_is_required(tmp_path):
    settings = dataclasses.replace(SMALL, scales=(0.5, 2.0))
    with pytest.raises(InputError, match="--scales lacks 1"):
        MEASUREMENT.measure(settings, Results(tmp_path / "numbers.json", {}))


def test_the_numbers_that_are_kept_bear_out_the_claims():
    content = read(DOCS / "numbers" / "normalizations.json")
    assert MEASUREMENT.faults(content) == []
    for name, wrong in (
        *((name, 1e-3) for name in EXACT),
        *((name, 1e-16) for name in CONTROLS),
    ):
        changed = copy.deepcopy(content)
        changed["parts"][EQUALITY][name] = wrong
        assert len(MEASUREMENT.faults(changed)) == 1
    changed = copy.deepcopy(content)
    changed["parts"]["unit/psi_sgd/8"]["test"][0][0] += 1e-4
    # Nothing is claimed of the others.
    changed["parts"]["unit/sgd/8"]["test"][0][0] += 1e-4
    changed["parts"]["none/psi_sgd/8"]["test"][0][0] += 1e-4
    [fault] = MEASUREMENT.faults(changed)
    assert fault.startswith("weight normalization, psi_sgd")
