"""The hyperparameters of every public transform, checked alike by kind."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from psi_optax import ScaleGroup, psi_adam, psi_direction, psi_sgd
from tests.conformance.checks import assert_equal, one_step
from tests.registry import ENTRIES, draw

FACTORIES = {
    entry.factory.__name__: entry for entry in reversed(ENTRIES.values())
}
W, G = jnp.array([3.0, 4.0]), jnp.array([-0.8, 0.6])

# Of every kind: what passes, and what is refused.
NO_NUMBERS = [True, np.True_, "fast", 1j, [0.5], (0.5,), optax.sgd(0.1)]
NO_NUMBERS += [jnp.array(True), jnp.array(1j)]
VECTORS = [jnp.ones(2) / 2, np.ones(1) / 2, np.ones((2, 2)) / 2]
NUMBERS = [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5)]
NUMBERS += [jnp.array(0.5), jnp.array(0.5, "bfloat16")]


def schedule(count):
    return 0.5 / (1.0 + count)


NOT_FINITE = [np.nan, np.inf, jnp.array(-jnp.inf)]
NUMBER = (
    [*NUMBERS, -2.0, 3],
    [*NO_NUMBERS, *VECTORS, *NOT_FINITE, None, schedule],
)
NONNEGATIVE = (
    [*NUMBERS, 0, 0.0, 2],
    [*NUMBER[1], -0.5, jnp.array(-0.5), np.float32(-0.5)],
)
POSITIVE = ([*NUMBERS, 2], [*NONNEGATIVE[1], 0.0, jnp.array(0)])
DECAY = (
    [*NUMBERS, 0, 0.0, 0.999],
    [*NONNEGATIVE[1], 1, 1.0, 1.5, np.float64(1 - 1e-9), jnp.array(1.0)],
)


def is_among(x, values):
    """As arrays have no equality of their own."""
    return any(x is value for value in values)


def or_else(kind, *others):
    """The kind with these values too."""
    good, bad = kind
    return [*good, *others], [x for x in bad if not is_among(x, others)]


def choice(*names):
    return list(names), ["nonsense", 0.5, *({None} - set(names))]


KINDS = {
    "number": NUMBER,
    "number or None": or_else(NUMBER, None),
    "nonnegative": NONNEGATIVE,
    "positive": POSITIVE,
    "positive or None": or_else(POSITIVE, None),
    "decay": DECAY,
    "decay or None": or_else(DECAY, None),
    "decay or schedule": or_else(DECAY, schedule),
    "rate": or_else(NONNEGATIVE, schedule),
    "rate or None": or_else(NONNEGATIVE, schedule, None),
    "number or schedule": or_else(NUMBER, schedule),
    "number, schedule or None": or_else(NUMBER, schedule, None),
    "period": ([1, np.int32(3), jnp.array(2)], [*POSITIVE[1], 0, -1, 0.5, 1.5]),
    "radius": or_else(or_else(POSITIVE, None), "init"),
    "radius of its own": or_else(POSITIVE, "init"),
    "flag": ([True, False, np.True_], [None, 0, 1, 0.9, "yes", W]),
    "transformation": (
        [optax.sgd(0.1), optax.identity()],
        [None, 0.1, "sgd", schedule, optax.sgd],
    ),
    "transformation or None": (
        [optax.sgd(0.1), None],
        [0.1, "sgd", schedule, optax.sgd],
    ),
    "retraction": choice("projection", "exponential", None),
    "retraction of updates": choice("projection", "exponential"),
    "retraction of sums": choice("projection", None),
    "transport": choice("projection", "parallel"),
    "transport or None": choice("projection", "parallel", None),
    "labels": choice("ordinary", "scale"),
    "channels": choice("first", "last"),
    "layers": choice("all", "one"),
    "axis": (["data", "learners"], [None, 0.5, 1, ("data",), W]),
    "three weights": (
        [(1 / 3, 1 / 3, 1 / 3), [0.25, 0.5, 0.25], np.array([0.0, 1.0, 0.0])],
        [None, 0.5, "abc", (0.5, 0.5), (0.5, 1.0, 0.5), (-0.5, 1.0, 0.5)],
    ),
    "key": (
        [0, np.uint32(7), jax.random.key(0)],
        [
            None,
            True,
            0.5,
            "a",
            jnp.arange(2),
            jax.random.split(jax.random.key(0)),
        ],
    ),
}
PERIODS = ("every", "steps")
# These are looked at where there are params.
UNCHECKED = {"groups", "weight_dimension_numbers"}

KIND = {
    **dict.fromkeys(["b1", "b2", "decay", "momentum"], "decay"),
    **dict.fromkeys(["eps", "eps_root", "wd_ratio", "delta"], "nonnegative"),
    **dict.fromkeys(["nesterov", "centered", "tangent"], "flag"),
    **dict.fromkeys(["per_tensor", "equivariant"], "flag"),
    **dict.fromkeys(["optimizer", "direction"], "transformation"),
    "ordinary": "transformation or None",
    "learning_rate": "rate",
    "weight_decay": "number or schedule",
    "max_norm": "positive",
    "strength": "positive",
    "degree": "number or None",
    "radius": "radius",
    "retraction": "retraction",
    "transport": "transport",
    "channels": "channels",
    "key": "key",
    **dict.fromkeys(["rho", "gamma", "rate"], "positive"),
    **dict.fromkeys(["sigma", "ordinary_sigma", "noise"], "nonnegative"),
    **dict.fromkeys(PERIODS, "period"),
    "average": "decay",
    "layers": "layers",
    "axis_name": "axis",
    "weights": "three weights",
    "of": "labels",
    "monitor_groups.learning_rate": "rate or None",
    "psi_sgd.momentum": "decay or None",
    "psi_sgdm.retraction": "retraction of sums",
    "psi_adam.weight_decay": "number, schedule or None",
    "project_by_cosine.weight_decay": "number",
    "retract.retraction": "retraction of updates",
    "rescale_weights.radius": "radius of its own",
    "weight_rescaling.radius": "radius of its own",
    "average_weights.decay": "decay or schedule",
    "scale_by_group_adam.transport": "transport or None",
    "sgd_g.max_norm": "positive or None",
    "adam_g.max_norm": "positive or None",
}

ARGUMENTS = [
    (factory, name)
    for factory, entry in FACTORIES.items()
    for name in inspect.signature(entry.factory).parameters
]
CHECKED = [pair for pair in ARGUMENTS if pair[1] not in UNCHECKED]


def kind_of(factory, name):
    return KIND.get(f"{factory}.{name}", KIND.get(name))


# An argument that is None, or is not, and another that cannot be given with it.
EXCLUDE = {
    ("ordinary", False): "weight_decay",
    ("momentum", True): "nesterov",
    ("degree", True): "learning_rate",
    ("learning_rate", True): "degree",
}


def build(factory, **changes):
    """The transform of the registry with other values of some arguments."""
    arguments = {**FACTORIES[factory].arguments(), **changes}
    for (name, value), other in EXCLUDE.items():
        if name in changes and (changes[name] is None) == value:
            arguments.pop(other, None)
    return FACTORIES[factory].factory(**arguments)


def test_every_argument_has_a_kind():
    assert {kind_of(*pair) for pair in CHECKED} == set(KINDS)
    # And every word of the table is an argument's.
    known = {name for pair in ARGUMENTS for name in (pair[1], ".".join(pair))}
    assert set(KIND) <= known


def test_an_argument_without_a_kind_would_be_seen():
    assert kind_of("psi", "temperature") is None


@pytest.mark.parametrize(("factory", "name"), CHECKED)
def test_what_is_wrong_is_refused_by_name(factory, name):
    _, bad = KINDS[kind_of(factory, name)]
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}\b") as e:
            build(factory, **{name: value})
        wrong_type = is_among(value, [*NO_NUMBERS, None, schedule])
        if kind_of(factory, name) in {"rate", "decay", "positive", "number"}:
            assert e.type is (TypeError if wrong_type else ValueError), value


@pytest.mark.parametrize(("factory", "name"), CHECKED)
def test_what_is_right_passes(factory, name):
    good, _ = KINDS[kind_of(factory, name)]
    for value in good:
        assert hasattr(build(factory, **{name: value}), "update"), value


NUMERIC = [
    (factory, name)
    for factory, name in CHECKED
    if is_among(NUMBERS[-1], KINDS[kind_of(factory, name)][0])
    or name in PERIODS
]


@pytest.mark.parametrize(("factory", "name"), NUMERIC)
def test_traced_arguments_are_checked_by_type_and_shape(factory, name):
    def init(x):
        return build(factory, **{name: x}).init(draw(0))

    dtype = "int32" if name in PERIODS else "float32"
    jax.eval_shape(init, jax.ShapeDtypeStruct((), dtype))
    for shape, kind in [((), "bool"), ((), "complex64"), ((2,), dtype)]:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
            jax.eval_shape(init, jax.ShapeDtypeStruct(shape, kind))


SCHEDULED = [
    (factory, name)
    for factory, name in CHECKED
    if is_among(schedule, KINDS[kind_of(factory, name)][0])
]


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize(("factory", "name"), SCHEDULED)
def test_values_of_schedules_are_checked(factory, name):
    def step(value):
        tx = build(factory, **{name: lambda count: value + 0 * count})
        state = jax.eval_shape(tx.init, draw(0))
        return jax.eval_shape(tx.update, draw(1), state, draw(0))

    assert step(0.05)
    for value in np.ones(2), 1j:
        where = re.escape(f"{name}(count)")
        with pytest.raises((TypeError, ValueError), match=f"^{where}"):
            step(value)


# Options that would have no effect.


def test_nesterov_without_momentum_is_refused():
    group = ScaleGroup(0)
    with pytest.raises(ValueError, match="nesterov=True .*momentum"):
        psi_sgd(0.1, group, nesterov=True)
    ahead, _ = one_step(psi_sgd(0.1, group, momentum=0.9, nesterov=True), W, G)
    plain, _ = one_step(psi_sgd(0.1, group, momentum=0.9), W, G)
    assert np.any(ahead != plain)


def test_decay_beside_an_optimizer_of_ordinary_parameters_is_refused():
    groups, own = {"w": ScaleGroup(0), "b": None}, optax.sgd(0.1)
    for decay in 0.1, -0.1, jnp.array(0.1), schedule:
        with pytest.raises(ValueError, match="weight_decay=.*`ordinary`"):
            psi_adam(0.1, groups, weight_decay=decay, ordinary=own)
    for decay in None, 0.0, jnp.array(0.0):
        psi_adam(0.1, groups, weight_decay=decay, ordinary=own)

    def traced(decay):
        tx = psi_adam(0.1, groups, weight_decay=decay, ordinary=own)
        return tx.init({"w": W, "b": W})

    # It may be any number.
    with pytest.raises(ValueError, match="`ordinary`"):
        jax.eval_shape(traced, 0.0)


@pytest.mark.usefixtures("optax_promotion")
def test_injected_arguments_leave_no_decay_beside_ordinary():
    params = {"w": W, "b": W}
    given = {"groups": {"w": ScaleGroup(0), "b": None}}
    given["ordinary"] = optax.sgd(0.1)
    injected = optax.inject_hyperparams(psi_adam)(0.1, **given)
    state = jax.jit(injected.init)(params)
    found, _ = jax.jit(injected.update)(params, state, params)
    np.testing.assert_allclose(found["b"], -0.1 * W, rtol=1e-6)
    decayed = optax.inject_hyperparams(psi_adam)(0.1, **given, weight_decay=0.1)
    with pytest.raises(ValueError, match="`ordinary`"):
        jax.jit(decayed.init)(params)


def test_a_degree_without_a_rate_is_refused():
    monitor = FACTORIES["monitor_groups"].factory
    for options in {"degree": 1}, {"learning_rate": 0.1}:
        with pytest.raises(ValueError, match="degree.*learning_rate"):
            monitor(ScaleGroup(0), **options)


def test_what_is_refused_would_do_harm():
    """The controls: optax takes them, and ascends or has no step."""
    up, _ = one_step(optax.sgd(-0.1), W, G)
    assert np.all(up == 0.1 * G)
    tx = psi_direction(0.1, optax.scale_by_adam(b1=1.0), ScaleGroup(0))
    with jax.numpy_dtype_promotion("standard"):
        assert np.isnan(one_step(tx, W, G)[0]).all()


def test_a_rate_of_zero_moves_nothing():
    tx = psi_sgd(0, ScaleGroup(0), momentum=0.9)
    assert_equal(one_step(tx, W, G)[0], jnp.zeros(2))
