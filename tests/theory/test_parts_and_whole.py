"""The parts in a chain are psi, and psi's forms are one another.

Design: `scale_by_group_norm`, the inner optimizer, `scale_by_group_norm`,
`project_to_tangent`, `retract` do in five steps what `psi` does in one, for
inner optimizers that do not read parameters. To those that do, psi shows
directions and the chain the weights.
"""

import jax.numpy as jnp
import optax
import pytest

import psi_optax
from tests.theory.networks import (
    mixed_network,
    rayleigh,
)
from tests.theory.scales import direction_error, norm_error
from tests.theory.test_bit_equivariance import INNER
from tests.theory.training import lenient, path_of

pytestmark = pytest.mark.usefixtures("x64")

# The same real numbers, each formula rounded in its own way: 1e-16 a step.
ROUNDING = 1e-12


def parts_of(inner, groups, retraction="projection", radius="init"):
    return [
        psi_optax.transforms.scale_by_group_norm(groups),
        inner,
        psi_optax.transforms.scale_by_group_norm(groups),
        psi_optax.transforms.project_to_tangent(groups),
        psi_optax.transforms.retract(
            groups, retraction=retraction, radius=radius
        ),
    ]


def chained(*args, **options):
    return optax.chain(*parts_of(*args, **options))


def apart(problem, one, other):
    """How far two optimizers part, in directions and in norms."""
    paths = path_of(one, problem), path_of(other, problem)
    return max(
        direction_error(*paths, problem.ids),
        norm_error(*paths, problem.ids, 1.0),
    )


# Those of the equivariance tests that read no parameters.
BLIND = {k: tx for k, tx in INNER.items() if k not in ("adamw", "lamb")}


@pytest.mark.parametrize("name", BLIND)
def test_chain_of_parts_is_psi(name):
    problem, inner = rayleigh(100), BLIND[name]
    whole = psi_optax.psi(inner, problem.groups)
    parts = chained(inner, problem.groups)
    assert apart(problem, parts, whole) < ROUNDING


@pytest.mark.parametrize(
    ("retraction", "radius"),
    [("exponential", "init"), ("projection", None), ("projection", 2.0)],
)
def test_chain_of_parts_is_psi_with_options(retraction, radius):
    problem, inner = rayleigh(100), BLIND["momentum"]
    options = {"retraction": retraction, "radius": radius}
    whole = psi_optax.psi(inner, problem.groups, **options)
    parts = chained(inner, problem.groups, **options)
    assert apart(problem, parts, whole) < ROUNDING


def test_chain_of_parts_is_psi_with_ties_blocks_and_ordinary_weights():
    problem, inner = mixed_network(100), BLIND["momentum"]
    whole = psi_optax.psi(inner, problem.groups)
    parts = chained(inner, problem.groups)
    assert apart(problem, parts, whole) < ROUNDING


@pytest.mark.parametrize("missing", range(5))
def test_no_part_can_be_left_out(missing):
    # With momentum every part counts: a step along an old gradient has a
    # radial part, without which projection would turn by another angle.
    problem, inner = rayleigh(100), BLIND["momentum"]
    parts = parts_of(inner, problem.groups)
    del parts[missing]
    whole = psi_optax.psi(inner, problem.groups)
    assert apart(problem, optax.chain(*parts), whole) > 1e-3


def test_optimizers_that_read_parameters_are_shown_directions():
    # Trust ratios are |w|/|update| in the chain and |v|/|update| in psi.
    problem, inner = rayleigh(100), lenient(optax.lamb(0.05))
    whole = psi_optax.psi(inner, problem.groups)
    assert apart(problem, chained(inner, problem.groups), whole) > 1e-3


def schedule(count):
    return 0.1 * jnp.exp(-0.01 * count.astype(jnp.float64))


EQUAL = {
    "psi_sgd": lambda g: (
        psi_optax.psi(optax.sgd(0.1), g),
        psi_optax.psi_sgd(0.1, g),
    ),
    "psi_sgd_momentum": lambda g: (
        psi_optax.psi(optax.sgd(0.05, momentum=0.9), g),
        psi_optax.psi_sgd(0.05, g, momentum=0.9),
    ),
    "psi_sgd_nesterov": lambda g: (
        psi_optax.psi(optax.sgd(0.05, momentum=0.9, nesterov=True), g),
        psi_optax.psi_sgd(0.05, g, momentum=0.9, nesterov=True),
    ),
    "psi_sgd_schedule": lambda g: (
        psi_optax.psi(optax.sgd(schedule, momentum=0.9), g),
        psi_optax.psi_sgd(schedule, g, momentum=0.9),
    ),
    "psi_adam": lambda g: (
        psi_optax.psi(lenient(optax.adam(0.03)), g),
        lenient(psi_optax.psi_adam(0.03, g)),
    ),
    "psi_sgdm_without_momentum": lambda g: (
        psi_optax.psi(optax.sgd(0.1), g),
        psi_optax.psi_sgdm(0.1, g, momentum=0.0),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_recipes_are_psi(name):
    problem = rayleigh(100)
    assert apart(problem, *EQUAL[name](problem.groups)) < ROUNDING
