"""Warnings at `init`: no scale group, and steps that are too large."""

import warnings

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import psi_optax
from psi_optax import ScaleGroup, joint_groups, psi_adam, psi_direction, psi_sgd
from psi_optax.optimizers import list_optimizers
from tests.registry import ENTRIES

COLUMN = ScaleGroup(axes=0)
PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
NONE, SOME = {"w": None, "b": None}, {"w": COLUMN, "b": None}
NO_GROUP = r"none of \d parameters, such as '[bw]'.*output_channels"

pytestmark = pytest.mark.usefixtures("optax_promotion")


class Report:
    """A rule without a group, which has a reason, as a report has."""

    main_reason = "the loss reads w as it is."

    def groups_for(self, _):
        """Return no group, for all parameters."""
        return {"": None}


def warn_once(match=NO_GROUP, *calls):
    """Each call gives this warning, of a line of this file, and no other."""
    for call in calls:
        with pytest.warns(UserWarning, match=match) as caught:
            call()
        assert len(caught) == 1, [str(x.message) for x in caught]
        assert caught[0].filename == __file__


# No group. Warnings are errors: an `init` outside of `warn_once` is silent.


@pytest.mark.parametrize("name", list_optimizers())
def test_every_recipe_warns_once_where_nothing_has_a_group(name):
    entry = ENTRIES[name]
    warn_once(NO_GROUP, lambda: entry.build(NONE).init(PARAMS))
    warn_once(Report.main_reason, lambda: entry.build(Report()).init(PARAMS))
    if "ordinary" not in entry.kwargs:
        entry.build(None).init(PARAMS)
    entry.build(SOME).init(PARAMS)


def test_a_report_gives_its_reason_through_joint_groups():
    tx = psi_sgd(0.1, joint_groups(Report()))
    warn_once(Report.main_reason, lambda: tx.init(PARAMS))
    psi_sgd(0.1, joint_groups(None)).init(PARAMS)


@pytest.mark.parametrize(
    "groups", [lambda _: NONE, psi_optax.groups_from_paths({"w": None})]
)
def test_a_rule_without_a_group_warns(groups):
    warn_once(NO_GROUP, lambda: psi_sgd(0.1, groups).init(PARAMS))


MASK = {"w": False, "b": True}
AROUND = {
    "masked": lambda tx: optax.masked(tx, MASK),
    "partition": lambda tx: optax.partition(
        {True: tx, False: optax.sgd(0.1)}, MASK
    ),
}


@pytest.mark.parametrize("around", AROUND)
def test_groups_that_a_mask_hides_are_silent(around):
    rule = psi_optax.groups_from_paths({"w": COLUMN})
    for groups in SOME, rule, lambda _: SOME, joint_groups(SOME):
        AROUND[around](psi_sgd(0.1, groups)).init(PARAMS)
    tx = AROUND[around](psi_sgd(0.1, NONE))
    warn_once(NO_GROUP, lambda: tx.init(PARAMS))


def test_placeholders_and_integers_are_silent():
    tx = psi_sgd(0.1, NONE)
    for nothing in (
        {},
        dict.fromkeys(PARAMS),
        {"w": None, "b": jnp.ones(2, int)},
    ):
        tx.init(nothing)
    warn_once(NO_GROUP, lambda: tx.init({"w": None, "b": jnp.ones(2)}))
    state = psi_sgd(0.1, SOME, momentum=0.9).init(PARAMS)
    tx = psi_sgd(0.1, NONE, momentum=0.9)
    optax.tree.map_params(tx, lambda x: x, state)


def test_traced_and_wrapped_inits_warn_once():
    # A function that was traced is not traced again.
    def make():
        return psi_sgd(0.1, NONE)

    inject = optax.inject_hyperparams(psi_sgd)(0.1, NONE)
    warn_once(
        NO_GROUP,
        lambda: jax.jit(make().init)(PARAMS),
        lambda: jax.eval_shape(make().init, PARAMS),
        lambda: make().init(jax.eval_shape(lambda: PARAMS)),
        lambda: optax.MultiSteps(make(), 2).init(PARAMS),
        lambda: optax.apply_if_finite(make(), 3).init(PARAMS),
        lambda: inject.init(PARAMS),
    )
    state = inject.init({"w": None, "b": None})
    inject.update({"w": None, "b": None}, state, {"w": None, "b": None})


def test_an_optimizer_of_nnx_warns_once():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx = psi_sgd(0.1, {"kernel": None, "bias": None})
    match = "'bias'.*output_channels"
    warn_once(match, lambda: nnx.Optimizer(model, tx, wrt=nnx.Param))


# Large steps.

WIDE = {
    "wide": jax.ShapeDtypeStruct((784, 2), jnp.float32),
    "deep": jax.ShapeDtypeStruct((9, 2), jnp.float32),
    "head": jax.ShapeDtypeStruct((10_000,), jnp.float32),
}
GROUPS = {"wide": COLUMN, "deep": COLUMN, "head": None}
LARGE = r"784.*'wide'.*Use at most 0\.01,.*convert_learning_rate"
STEEP = 0.011  # times the root of 784 is 0.31.


@pytest.mark.parametrize(
    "direction",
    [
        optax.scale_by_adam(),
        optax.scale_by_adamax(),
        optax.scale_by_amsgrad(),
        optax.scale_by_belief(),
        optax.scale_by_lion(),
        optax.scale_by_yogi(),
        optax.scale_by_radam(),
        optax.scale_by_adan(),
        optax.scale_by_rms(bias_correction=False),
        optax.scale_by_rms(bias_correction=True),
        optax.scale_by_stddev(),
        optax.scale_by_factored_rms(),
        optax.contrib.scale_by_ademamix(),
        optax.chain(optax.clip(1.0), optax.masked(optax.scale_by_adam(), True)),
    ],
)
def test_adam_like_directions_warn_of_large_steps(direction):
    tx = psi_direction(STEEP, direction, GROUPS)
    warn_once(LARGE, lambda: tx.init(WIDE))
    psi_direction(0.01, direction, GROUPS).init(WIDE)


def test_psi_adam_warns_and_its_suggestion_does_not():
    warn_once(LARGE, lambda: psi_adam(STEEP, GROUPS).init(WIDE))
    psi_adam(0.01, GROUPS).init(WIDE)
    # In groups of one element nothing rotates.
    psi_adam(0.9, ScaleGroup(axes=())).init(WIDE)
    # Tied weights are one group: 784 and 16.
    tied = dict.fromkeys(["wide", "deep"], ScaleGroup(axes=0, tie="both"))
    tx = psi_adam(0.011, {**tied, "head": None})
    warn_once(r"793.*'deep|793.*'wide", lambda: tx.init(WIDE))


@pytest.mark.parametrize(
    "tx",
    [
        psi_optax.psi(optax.adam(0.5), GROUPS),
        psi_direction(0.5, optax.trace(0.9), GROUPS),
        psi_direction(0.5, optax.identity(), GROUPS, ordinary=optax.adam(0.5)),
        psi_direction(
            0.5,
            optax.partition(
                {"scale": optax.trace(0.9), "rest": optax.scale_by_adam()},
                {"wide": "scale", "deep": "scale", "head": "rest"},
            ),
            GROUPS,
        ),
        psi_optax.rotational(
            0.5, optax.scale_by_adam(), GROUPS, ordinary=optax.adam(0.5)
        ),
        psi_optax.adamh(0.5, GROUPS, ordinary=optax.adam(0.5)),
        psi_optax.muonh(0.5, GROUPS, ordinary=optax.adam(0.5)),
        psi_optax.adam_g(0.5, GROUPS),
    ],
)
def test_steps_of_another_length_are_silent(tx):
    tx.init(WIDE)


def test_the_largest_group_is_that_of_the_adam_like_part():
    direction = optax.partition(
        {"trace": optax.trace(0.9), "adam": optax.scale_by_adam()},
        {"wide": "trace", "deep": "adam", "head": "adam"},
    )
    tx = psi_direction(0.11, direction, GROUPS)
    warn_once("groups of 9 weights in 'deep'", lambda: tx.init(WIDE))
    psi_direction(0.09, direction, GROUPS).init(WIDE)


def by_python(count):
    return STEEP if 20 < count < 90 else 1e-3


def from_a_table(count):
    # By a Python list, which ends.
    return [1e-3, STEEP, 1e-3][count.__index__()]


SCHEDULES = {
    "warmup": optax.warmup_cosine_decay_schedule(0.0, STEEP, 100, 10_000),
    "one step": lambda count: jnp.where(count == 37, STEEP, 1e-3),
    "late": optax.linear_schedule(0.0, STEEP, 1_000_000),
    "constant": optax.constant_schedule(STEEP),
    "by Python": by_python,
    "from a table": from_a_table,
    "cond": lambda count: jax.lax.cond(count > 3, lambda: STEEP, lambda: 1e-3),
    "not always a number": lambda count: STEEP * jnp.sqrt(3.0 - count) / 1.7,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_warn_by_their_largest_rate(name):
    schedule = SCHEDULES[name]
    tx = psi_adam(schedule, GROUPS)
    warn_once(LARGE, lambda: tx.init(WIDE), lambda: jax.jit(tx.init)(ARRAYS))
    psi_adam(lambda count: 0.9 * schedule(count), GROUPS).init(WIDE)


ARRAYS = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), WIDE)


def test_an_error_of_a_schedule_leaves_init_alone():
    def schedule(count):
        warnings.warn(f"at {count}", stacklevel=1)
        raise ArithmeticError

    psi_adam(schedule, GROUPS).init(WIDE)
    psi_adam(lambda _: None, GROUPS).init(WIDE)


def test_a_traced_rate_is_not_known():
    injected = optax.inject_hyperparams(psi_adam)(STEEP, GROUPS)
    warn_once(LARGE, lambda: injected.init(ARRAYS))

    def init(rate):
        psi_adam(lambda count: rate / (1 + count), GROUPS).init(ARRAYS)
        return psi_adam(rate, GROUPS).init(ARRAYS).count

    jax.jit(init)(STEEP)
    jax.vmap(init)(jnp.full(2, STEEP))


# A wrong sign.

ASCENT = "would ascend: .* such as optax"


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1),
        optax.adamw(0.1),
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
        optax.contrib.muon(0.1),
    ],
)
def test_optimizer_as_direction_warns(optimizer):
    ordinary = optax.sgd(0.1)
    for recipe in psi_direction, psi_optax.rotational, psi_optax.hyperball:
        tx = recipe(0.1, optimizer, SOME, ordinary=ordinary)
        warn_once(ASCENT, lambda tx=tx: tx.init(PARAMS))
    psi_optax.psi(optimizer, SOME, ordinary=ordinary).init(PARAMS)


@pytest.mark.parametrize(
    "direction",
    [
        optax.trace(0.9),
        optax.contrib.scale_by_muon(),
        optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam()),
    ],
)
def test_direction_as_optimizer_warns(direction):
    tx = psi_optax.psi(direction, SOME, ordinary=optax.sgd(0.1))
    warn_once(ASCENT, lambda: tx.init(PARAMS))
    tx = psi_direction(0.01, direction, SOME, ordinary=optax.sgd(0.1))
    tx.init(PARAMS)


def test_hyperball_as_published_warns_too():
    tx = psi_optax.hyperball(
        0.1,
        optax.sgd(0.1),
        SOME,
        equivariant=False,
        ordinary=optax.sgd(0.1),
    )
    warn_once(ASCENT, lambda: tx.init(PARAMS))


@pytest.mark.parametrize(
    "unknown",
    [
        optax.set_to_zero(),
        optax.sgd(optax.linear_schedule(0.0, 0.1, 10)),
        optax.partition({"a": optax.sgd(0.1)}, {"w": "a", "b": "a"}),
        # One that fails on other trees.
        optax.GradientTransformation(
            lambda p: {"w": p["w"]}, lambda g, s, p=None: (g, s)
        ),
    ],
)
def test_unclear_sign_is_silent(unknown):
    psi_optax.psi(unknown, SOME).init(PARAMS)
    psi_direction(0.01, unknown, SOME).init(PARAMS)


def updates_of(function):
    """Return a stateless transform with these updates of one leaf."""
    return optax.GradientTransformation(
        lambda _: optax.EmptyState(), lambda g, s, p=None: (function(g), s)
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda _: None,
        lambda g: {"a": g},
        lambda g: (g, g),
        lambda g: g[:2],
        lambda g: g * jnp.inf,
        lambda g: g * jnp.nan,
    ],
    ids=["None", "dict", "tuple", "shape", "inf", "nan"],
)
def test_updates_without_a_cosine_are_silent(function):
    """`init` passes, whatever `update` will say."""
    psi_optax.psi(updates_of(function), SOME).init(PARAMS)


def test_square_of_a_large_update_does_not_overflow():
    """Single precision has no square of 1e30."""
    tx = psi_optax.psi(updates_of(lambda g: 1e30 * g), SOME)
    warn_once(ASCENT, lambda: tx.init(PARAMS))


def test_warning_does_not_depend_on_jit():
    tx = psi_optax.psi(optax.trace(0.9), SOME)
    with jax.disable_jit():
        warn_once(ASCENT, lambda: tx.init(PARAMS))
    tx = psi_optax.psi(optax.trace(0.9), SOME)
    warn_once(ASCENT, lambda: jax.jit(tx.init)(PARAMS))


def test_mask_that_hides_the_trial_is_silent():
    """A mask by rank may fit the parameters, and hide a matrix."""

    def mask(rank):
        return lambda tree: jax.tree.map(lambda x: jnp.ndim(x) == rank, tree)

    kernel, group = jnp.ones((2, 2, 3, 4)), ScaleGroup(axes=(0, 1, 2))
    psi_optax.psi(optax.masked(optax.sgd(0.1), mask(4)), group).init(kernel)
    # A rate in front of the mask shows the sign of the trace behind it.
    seen = optax.chain(
        optax.scale(0.5), optax.masked(optax.trace(0.9), mask(2))
    )
    warn_once(ASCENT, lambda: psi_optax.psi(seen, SOME).init(PARAMS))


def test_first_step_is_tried_once_and_without_effects():
    calls, traces = [], []

    def seen(g):
        traces.append(0)
        jax.debug.callback(lambda: calls.append(0))
        return g

    tx = psi_optax.psi(updates_of(seen), SOME)
    tx.init(PARAMS)
    tx.init(PARAMS)
    jax.effects_barrier()
    assert (len(calls), len(traces)) == (0, 1)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    jax.effects_barrier()
    assert calls


def test_traced_learning_rate_is_silent():
    """Its sign is not known."""

    def first(rate):
        tx = psi_direction(0.01, optax.sgd(rate), SOME)
        return tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0]

    jax.jit(first)(0.1)
