"""optax's own tests of contributed optimizers, run on ours.

They minimize functions without constraints, so here every parameter is
ordinary: `psi` around an optimizer, and the recipes, are to be as good as the
optimizers of optax are. What they do to groups is in test_spheres.py.
"""

import types

import jax
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup, psi
from tests.conformance import upstream
from tests.registry import ENTRIES


def psi_around_sgd(learning_rate: optax.ScalarOrSchedule):
    return psi(optax.sgd(learning_rate, momentum=0.9), None)


FACTORIES = {
    "psi_around_sgd": (psi_around_sgd, {"learning_rate": 1e-3}),
    "psi_sgd": (
        psi_optax.psi_sgd,
        {"learning_rate": 1e-3, "groups": None, "momentum": 0.9},
    ),
    "psi_adam": (
        psi_optax.psi_adam,
        {"learning_rate": 1e-2, "groups": None, "weight_decay": 0.0},
    ),
    "psi_sgdm": (
        psi_optax.psi_sgdm,
        {"learning_rate": 1e-3, "groups": None},
    ),
}

_OPTIMIZERS = tuple(
    {
        "opt_name": name,
        "opt_kwargs": kwargs,
        "wrapper_name": None,
        "wrapper_kwargs": None,
    }
    for name, (_, kwargs) in FACTORIES.items()
)

_common = upstream.load(
    "optax.contrib._common_test",
    {
        "_MAIN_OPTIMIZERS_UNDER_TEST": _OPTIMIZERS,
        "_ALL_OPTIMIZERS_UNDER_TEST": _OPTIMIZERS,
    },
)
# Where the tests look names up.
_common.contrib = types.SimpleNamespace(
    **{name: factory for name, (factory, _) in FACTORIES.items()}
)

# The kinds of states that there are.
_ENTRIES = {
    name: ENTRIES[name]
    for name in [
        "scale_by_group_norm",
        "retract",
        "rescale_weights",
        "psi",
        "psi_ordinary",
        "psi_adam",
        "psi_sgdm",
    ]
}
# The tests shard the second axis of a leaf of shape (2, 8, 4). Groups that do
# not lie along it have radii that are sharded too.
_ACROSS = ScaleGroup(axes=(0, 2), blocks={2: 2})
_ALONG = ScaleGroup(axes=(0, 1))
_OURS = {
    **{name: entry.build(_ACROSS) for name, entry in _ENTRIES.items()},
    "psi_along": _ENTRIES["psi"].build(_ALONG),
}
_sharding = upstream.load("optax._src.sharding_test", {"OPTIMIZERS": _OURS})

_MODULES = [
    (name, lambda entry=entry: entry.build(ScaleGroup(0)), {})
    for name, entry in _ENTRIES.items()
]
_float64 = upstream.load("optax._src.float64_test", {"ALL_MODULES": _MODULES})


@pytest.mark.usefixtures("optax_promotion")
class ContribTest(upstream.NoSkips, _common.ContribTest):
    pass


@pytest.mark.usefixtures("optax_promotion")
class ShardingTest(upstream.NoSkips, _sharding.ShardingTest):
    # It is of optax.microbatching, and fails because that reshapes a sharded
    # axis; optax skips it on every JAX whose minor version has two digits.
    test_microbatch_with_explicit_sharding_sharded = None


@pytest.mark.usefixtures("optax_promotion")
class Float64Test(upstream.NoSkips, _float64.Float64Test):
    def tearDown(self):
        # Which the test does itself, but only if it passes.
        jax.config.update("jax_enable_x64", False)
        super().tearDown()


def test_none_is_missing():
    """Skipping fails, so those that are there are those that run."""
    # Per optimizer: 2 for extra arguments, 4 targets, 1 for hyperparameters,
    # 2 + 2 dtypes kept and accumulated, 4 of stable states, 1 schedule.
    assert len(upstream.names_of_tests(ContribTest)) == 16 * len(FACTORIES)
    # Per optimizer: abstract, stable, compiled; and 1 of microbatching.
    assert len(upstream.names_of_tests(ShardingTest)) == 3 * len(_OURS) + 1
    assert len(upstream.names_of_tests(Float64Test)) == len(_MODULES)


def test_a_skip_would_fail():
    class Skipping(upstream.NoSkips):
        def test_something(self):
            self.skipTest("for no reason")

    result = Skipping("test_something").run()
    assert not result.skipped
    assert len(result.failures) == 1
