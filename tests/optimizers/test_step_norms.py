"""The warning of large steps follows transforms that scale a direction."""

import warnings

import jax
import jax.numpy as jnp
import optax
import pytest

from psi_optax import ScaleGroup, groups_from_paths, psi_direction

pytestmark = pytest.mark.usefixtures("optax_promotion")

ADAM = optax.scale_by_adam()
GROUPS = {"w": ScaleGroup(0), "tied": ScaleGroup(0, blocks={0: 2}), "b": None}
# 784 weights: steps of Adam have the norm 28.
PARAMS = {
    "w": jnp.ones((784, 2)),
    "tied": jnp.ones((8, 3)),
    "b": jnp.ones(2),
}
LABELS = {"w": "a", "tied": "a", "b": "b"}


def adafactor(threshold):
    return optax.chain(
        optax.scale_by_factored_rms(), optax.clip_by_block_rms(threshold)
    )


# Each with the norm of its steps, at most that of Adam.
SCALED = {
    "scale": (optax.chain(ADAM, optax.scale(0.01)), 0.28),
    "negative": (optax.chain(ADAM, optax.scale(-1.0)), 28.0),
    "trust ratio": (optax.chain(ADAM, optax.scale_by_trust_ratio()), 1.0),
    "clip": (optax.chain(ADAM, optax.clip_by_global_norm(1.0)), 1.0),
    "clip in front": (optax.chain(optax.clip_by_global_norm(1.0), ADAM), 28.0),
    "block rms": (adafactor(0.1), 2.8),
    "partition": (
        optax.partition(
            {"a": optax.chain(ADAM, optax.scale(0.1)), "b": ADAM}, LABELS
        ),
        2.8,
    ),
}


def messages(rate, direction, params=PARAMS, groups=GROUPS, init=lambda f: f):
    tx = psi_direction(rate, direction, groups)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        init(tx.init)(params)
    texts = [str(x.message) for x in caught]
    return [text for text in texts if "radians per step" in text]


@pytest.mark.parametrize("name", SCALED)
def test_a_step_is_tried(name):
    direction, norm = SCALED[name]
    assert messages(0.28 / norm, direction) == []
    [message] = messages(0.32 / norm, direction)
    assert "'w'" in message


def test_values_of_params_are_not_needed():
    direction, _ = SCALED["scale"]
    shapes = jax.eval_shape(lambda: PARAMS)
    rule = groups_from_paths({"w": ScaleGroup(0), "tied|b": None})
    for rate, number in (0.5, 0), (2.0, 1):
        for params, groups, init in (
            (shapes, GROUPS, lambda f: f),
            (PARAMS, GROUPS, jax.jit),
            (PARAMS, rule, lambda f: f),
        ):
            found = messages(rate, direction, params, groups, init)
            assert len(found) == number


def broken(updates, state, params=None):
    raise ArithmeticError


def by_extra_argument(updates, state, params=None, *, value):
    return updates, state


def begin(params):
    return optax.EmptyState()


@pytest.mark.parametrize(
    "behind",
    [
        optax.GradientTransformation(begin, broken),
        optax.GradientTransformationExtraArgs(begin, by_extra_argument),
        optax.scale(0.0),
        optax.scale(float("nan")),
    ],
)
def test_without_a_step_it_is_that_of_adam(behind):
    direction = optax.chain(ADAM, behind)
    assert messages(0.01, direction) == []
    assert len(messages(0.012, direction)) == 1


def test_large_groups_are_not_tried():
    """The whole step would take several times their memory."""
    seen = []

    def update(updates, state, params=None):
        if isinstance(updates, dict):  # No trial of the sign.
            seen.append(updates)
        return updates, state

    shape = {"w": jax.ShapeDtypeStruct((2**13, 2**12), jnp.float32)}
    behind = optax.GradientTransformation(begin, update)
    direction = optax.chain(ADAM, behind)
    for axes, sizes in ((0, 1), []), (0, [(2**13, 1)]):
        seen.clear()
        assert messages(0.3, direction, shape, ScaleGroup(axes))
        assert [x["w"].shape for x in seen] == sizes
