"""convert_learning_rate: psi at the converted rate rotates as the source does.

At the first step that is an identity; over many steps it is tried on noise,
with the tolerance of test_equilibria.py, and in training.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from benchmarks.experiments.conversion.problems import (
    make_methods,
    make_recorded,
    transformer,
)
from psi_optax import (
    ScaleGroup,
    hyperball,
    joint_groups,
    normalize,
    psi,
    rotation,
    rotational,
)
from psi_optax.diagnostics import monitor_groups
from psi_optax.dynamics import (
    convert_learning_rate,
    equilibrium_rotation,
    matching_learning_rate,
)
from psi_optax.transforms import retract
from tests.dynamics.simulation import rms, signs, simulate

pytestmark = pytest.mark.usefixtures("optax_promotion")

COLUMNS = ScaleGroup(0)
SHAPE = (64, 8)

SOURCES = {
    "sgd": functools.partial(optax.sgd, momentum=0.9),
    "adam": functools.partial(optax.adam, eps=0.0),
    "lion": functools.partial(optax.lion, weight_decay=0.0),
    "muon": functools.partial(optax.contrib.muon, eps=0.0),
}
MOMENTUM = {"sgd": {"momentum": 0.9}}


def draw(seed, norm=1.0):
    """Weights whose columns have a norm, or a norm each."""
    w = jax.random.normal(jax.random.key(seed), SHAPE)
    return norm * w / jnp.linalg.norm(w, axis=0, keepdims=True)


def first_rotation(tx, w, gradient):
    updates, _ = tx.update(gradient, tx.init(w), w)
    return rotation(w, optax.apply_updates(w, updates), COLUMNS)


@pytest.mark.parametrize("name", SOURCES)
def test_the_first_step_is_the_same(name):
    w, gradient = draw(0, norm=3.0), draw(1)
    found = convert_learning_rate(0.01, w, COLUMNS, optimizer=name)
    expected = first_rotation(SOURCES[name](0.01), w, gradient)
    # Whole steps, as the source's are.
    kept = psi(SOURCES[name](found.learning_rate), COLUMNS, tangent=False)
    # A few roundings, of 1e-7 each; five products of matrices in Muon.
    np.testing.assert_allclose(
        first_rotation(kept, w, gradient), expected, rtol=1e-4
    )
    # The control: the rate as it was is off by r, or by r^2.
    wrong = psi(SOURCES[name](0.01), COLUMNS, tangent=False)
    assert np.all(first_rotation(wrong, w, gradient) > 2 * expected)


def test_a_rate_for_each_group_is_the_source_with_retraction():
    norms = jnp.geomspace(0.1, 10.0, 8)[None]
    w, gradient = draw(0, norms), draw(1)
    found = convert_learning_rate(0.01, w, COLUMNS)
    assert not found.fits_all
    source = optax.sgd(0.01)
    expected = first_rotation(source, w, gradient)
    kept = optax.chain(source, retract(COLUMNS))
    # Roundings of weights move directions by 1e-7 / rotation.
    np.testing.assert_allclose(
        first_rotation(kept, w, gradient), expected, rtol=1e-2
    )
    for column, own in enumerate(found.per_group):
        one = first_rotation(
            psi(optax.sgd(own), COLUMNS, tangent=False), w, gradient
        )
        np.testing.assert_allclose(one[column], expected[column], rtol=1e-2)


@pytest.mark.parametrize("name", ["sgd", "adam", "lion"])
def test_the_rotation_under_noise(name):
    known = {"gradient_norm": 1.0} if name == "sgd" else {}
    found = convert_learning_rate(
        {"sgd": 0.02}.get(name, 0.005),
        draw(0, norm=2.0),
        COLUMNS,
        optimizer=name,
        **MOMENTUM.get(name, {}),
        **known,
    )
    kept = psi(SOURCES[name](found.learning_rate), COLUMNS)
    run = simulate(kept, 2.0, 400, shape=SHAPE, draw=signs)
    # 8 columns of 64, 350 steps of which 19 in a row are about one: 0.7 %. A
    # momentum's radial part is 10 rotations, squared
    # and halved: 0.6 % at 0.011 radians.
    np.testing.assert_allclose(
        rms(run.angle[50:]), found.rotation.mean, rtol=0.03
    )


def test_muon_by_the_shapes_of_matrices():
    for shape, options in [
        ((64, 16), {}),
        ((16, 64), {}),
        ((64, 16), {"consistent_rms": 0.2}),
    ]:
        w = jax.random.normal(jax.random.key(0), shape)
        found = convert_learning_rate(
            0.01, w, ScaleGroup((0, 1)), optimizer="muon", **options
        )
        tx = psi(
            optax.contrib.muon(found.learning_rate, **options),
            ScaleGroup((0, 1)),
        )
        gradient = jax.random.normal(jax.random.key(1), shape)
        updates, _ = tx.update(gradient, tx.init(w), w)
        turned = rotation(w, w + updates, ScaleGroup((0, 1)))
        # Singular values of 0.68 to 1.13, of RMS 0.85 to 1.02.
        np.testing.assert_allclose(turned, found.rotation.mean, rtol=0.15)


def test_parameters_that_muon_leaves_to_adam():
    w, groups = jnp.ones((4, 2, 3)), ScaleGroup((0, 1, 2))
    left = convert_learning_rate(0.01, w, groups, optimizer="muon")
    adam = convert_learning_rate(0.01, w, groups, optimizer="adam")
    np.testing.assert_allclose(left.rotation, adam.rotation)
    numbers = optax.contrib.MuonDimensionNumbers(0, 2)
    for given in numbers, lambda _: numbers:
        found = convert_learning_rate(
            0.01, w, groups, optimizer="muon", weight_dimension_numbers=given
        )
        # Two matrices of rank 3 and shape (4, 3), in a group of norm sqrt(24).
        expected = 0.01 * 0.9 * math.sqrt(6 / 24)
        np.testing.assert_allclose(
            found.rotation.mean, np.arctan(expected), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"w": (0, 1)}, r"'w/0'.*MuonDimensionNumbers"),
        ({"w": (0, 5)}, r"'w/0'.*MuonDimensionNumbers"),
        (lambda _: {"w": (0, 1)}, r"'w/0'.*MuonDimensionNumbers"),
        ((0, 1), r"MuonDimensionNumbers"),
        (
            {"W": optax.contrib.MuonDimensionNumbers(0, 1)},
            r"'W'.*no parameter.*'b'",
        ),
        (
            {"w": {"x": optax.contrib.MuonDimensionNumbers(0, 1)}},
            r"'w/x'.*no parameter.*'b'",
        ),
    ],
)
def test_dimension_numbers_that_would_have_no_effect(given, words):
    params = {"w": jnp.ones((4, 2)), "b": jnp.ones((2, 2))}
    groups = {"w": ScaleGroup(0), "b": None}
    options = {"optimizer": "muon", "weight_dimension_numbers": given}
    with pytest.raises(ValueError, match=words):
        convert_learning_rate(0.01, params, groups, **options)
    # Those of ordinary parameters are not used.
    numbers = optax.contrib.MuonDimensionNumbers(0, 1)
    for given in {"w": numbers, "b": numbers}, {"w": numbers, "b": None}:
        options["weight_dimension_numbers"] = given
        found = convert_learning_rate(0.01, params, groups, **options)
        default = convert_learning_rate(0.01, params, groups, optimizer="muon")
        assert found.learning_rate == default.learning_rate


KEPT = {
    "sgd": SOURCES["sgd"],
    "adamw": functools.partial(optax.adam, b1=0.9, b2=0.9, eps=0.0),
    "lion": SOURCES["lion"],
}


@pytest.mark.parametrize("name", KEPT)
def test_the_equilibrium_of_decay(name):
    options = {"gradient_norm": 1.0, "momentum": 0.9} if name == "sgd" else {}
    found = convert_learning_rate(
        0.1,
        jax.ShapeDtypeStruct((256, 16), jnp.float32),
        COLUMNS,
        optimizer=name,
        weight_decay=0.02,
        **options,
    )
    expected = equilibrium_rotation(
        0.1, 0.02, optimizer=name, momentum=0.9 if name == "sgd" else None
    )
    np.testing.assert_allclose(found.rotation, expected, rtol=1e-6)
    kept = psi(KEPT[name](found.learning_rate), COLUMNS)
    run = simulate(kept, 1.0, 600, draw=signs)
    # 1 % of noise; Lion's rate has no correction for the radial part of its
    # steps, which are at most 8 rotations long: 0.05 squared, halved, 8 %.
    np.testing.assert_allclose(rms(run.angle[100:]), expected, rtol=0.03)


def test_angles():
    w = draw(0, norm=2.0)
    options = {"optimizer": "adam", "measured_rotation": 0.01}
    found = convert_learning_rate(0.1, w, COLUMNS, to="angle", **options)
    np.testing.assert_allclose(found.learning_rate, math.tan(0.01))
    np.testing.assert_allclose(found.rotation, 0.01, rtol=1e-6)
    kept = rotational(found.learning_rate, optax.trace(0.9), COLUMNS)
    run = simulate(kept, 2.0, 400, shape=SHAPE)
    # The running mean of squares, over 10 steps, is noise of 64 weights.
    np.testing.assert_allclose(rms(run.angle[50:]), 0.01, rtol=0.03)
    ball = hyperball(
        found.learning_rate, optax.identity(), COLUMNS, per_tensor=False
    )
    # A gradient of 64 weights is radial by an eighth: to 1 - 1/128.
    np.testing.assert_allclose(first_rotation(ball, w, draw(1)), 0.01, rtol=0.1)
    # With decay all groups have the angle of the equilibrium.
    decayed = {"optimizer": "adamw", "weight_decay": 0.1}
    angle = convert_learning_rate(0.1, w, COLUMNS, to="angle", **decayed)
    expected = matching_learning_rate(0.1, 0.1, optimizer="adamw")
    np.testing.assert_allclose(angle.learning_rate, expected, rtol=1e-6)


def test_one_rate_for_groups_that_differ():
    params = {"wide": jnp.ones((100, 2)), "thin": 3 * jnp.ones((4, 1))}
    found = convert_learning_rate(0.1, params, COLUMNS, optimizer="adam")
    # Norms of 10 and 6; rotations of 0.1 and 1/30, in units of noise.
    own = {"wide": [0.01, 0.01], "thin": [1 / 60]}
    for name, rates in own.items():
        np.testing.assert_allclose(found.per_group[name], rates, rtol=1e-6)
    # Of 204 weights four are in the thin group.
    mean = 0.01 * (10 / 6) ** (4 / 204)
    np.testing.assert_allclose(found.learning_rate, mean, rtol=1e-6)
    np.testing.assert_allclose(found.spread, 1 / 60 / mean, rtol=1e-6)
    low, high = found.rotation.minimum, found.rotation.maximum
    np.testing.assert_allclose(low / high, 0.2, rtol=1e-3)
    assert found.fits_all
    sgd = convert_learning_rate(0.1, params, COLUMNS)
    assert not sgd.fits_all
    assert sgd.apart == ("thin",)
    assert "thin" in str(sgd)
    assert "wide" not in str(sgd)
    np.testing.assert_allclose(sgd.share, 4 / 204)
    assert found.apart == ()
    assert "select" in str(sgd)  # Of few weights.
    assert "select" not in str(found)
    assert sgd.rotation is None
    assert "angle" not in str(sgd).split("fit")[1]
    many = {"wide": jnp.ones((100, 1)), "thin": jnp.ones((4, 30))}
    assert "retract" in str(convert_learning_rate(0.1, many, COLUMNS))
    options = {"optimizer": "lion", "weight_decay": 0.1}
    decayed = convert_learning_rate(0.1, many, COLUMNS, **options)
    assert 'to="angle"' in str(decayed)
    after = convert_learning_rate(0.1, normalize(params, COLUMNS), COLUMNS)
    assert after.fits_all
    np.testing.assert_allclose(after.learning_rate, 0.1, rtol=1e-6)


def test_a_large_group_outvotes_many_small_ones():
    """As the stream of a Transformer does its heads."""
    params = {"stream": jnp.ones((900, 1)), "heads": jnp.ones((4, 25))}
    found = convert_learning_rate(0.1, params, COLUMNS, optimizer="lion")
    rate = 0.1 / (30**0.9 * 2**0.1)
    np.testing.assert_allclose(found.learning_rate, rate, rtol=1e-6)
    large = convert_learning_rate(0.4, params, COLUMNS, optimizer="lion")
    assert "at most 0.01" in str(large)
    assert "at most" not in str(found)
    np.testing.assert_allclose(found.limit, 0.3 / 30)
    assert convert_learning_rate(0.4, params, COLUMNS).limit == np.inf


def test_a_measured_rotation_in_each_form():
    params = {"a": draw(0), "b": draw(1, norm=2.0)}
    tx = optax.chain(optax.sgd(0.1), monitor_groups(COLUMNS))
    gradients = {"a": draw(2), "b": draw(3)}
    _, state = tx.update(gradients, tx.init(params), params)
    monitored = optax.tree.get(state, "rotation")
    updates, _ = tx.update(gradients, tx.init(params), params)
    exact = rotation(params, optax.apply_updates(params, updates), COLUMNS)
    convert = functools.partial(convert_learning_rate, 0.1, params, COLUMNS)
    by_tree = convert(measured_rotation=exact).rotation
    by_monitor = convert(measured_rotation=monitored).rotation
    # At single rates of their own groups rotate as measured.
    np.testing.assert_allclose(by_monitor.mean, by_tree.mean, rtol=0.1)
    rotations = np.concatenate(jax.tree.leaves(exact))
    mean = np.exp(np.log(rotations).mean())
    np.testing.assert_allclose(by_tree.mean, mean, rtol=1e-3)


def test_a_schedule_gives_a_schedule():
    w = draw(0, norm=2.0)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
    found = convert_learning_rate(schedule, w, COLUMNS, gradient_norm=1.0)
    rate = jax.jit(found.learning_rate)
    np.testing.assert_allclose(rate(10), 0.1 / 4, rtol=1e-6)
    np.testing.assert_allclose(rate(50), schedule(50) / 4, rtol=1e-6)
    assert rate(0) == rate(100) == 0
    # The rotation is that of the largest rate.
    np.testing.assert_allclose(found.rotation, np.arctan(0.025), rtol=1e-3)
    decayed = convert_learning_rate(
        schedule, w, COLUMNS, optimizer="lion", weight_decay=0.1
    ).learning_rate
    expected = matching_learning_rate(schedule, 0.1, optimizer="lion")
    for step in 0, 10, 50:
        np.testing.assert_allclose(
            decayed(step), expected(step) / 8, rtol=1e-5, atol=1e-12
        )


def test_a_schedule_that_is_known_at_single_steps_alone():
    def schedule(count):
        return 0.1 if count < 5 else 0.2

    found = convert_learning_rate(schedule, draw(0, norm=2.0), COLUMNS)
    np.testing.assert_allclose(found.per_group, 0.05, rtol=1e-6)
    np.testing.assert_allclose(found.learning_rate(0), 0.025, rtol=1e-6)


def test_a_model_is_taken_as_it_is():
    model = nnx.Sequential(
        nnx.Linear(4, 3, use_bias=False, rngs=nnx.Rngs(0)),
        nnx.BatchNorm(3, use_scale=False, use_bias=False, rngs=nnx.Rngs(0)),
    )
    found = convert_learning_rate(0.1, model, ScaleGroup(0))
    same = convert_learning_rate(
        0.1, nnx.state(model, nnx.Param), ScaleGroup(0)
    )
    assert found.learning_rate == same.learning_rate
    tx = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    with pytest.raises(TypeError, match="NNX.*its model"):
        convert_learning_rate(0.1, tx, ScaleGroup(0))


@pytest.mark.parametrize("factor", [1e20, 1e-25])
def test_norms_whose_squares_are_beyond_single_precision(factor):
    """Of tied leaves and blocks, against their definition."""
    params = {"a": draw(0)[:4, :6], "b": draw(1)[0, :6]}
    groups = {
        "a": ScaleGroup((0, 1), blocks={1: 3}, tie="t"),
        "b": ScaleGroup(0, blocks={0: 3}, tie="t"),
    }
    scaled = jax.tree.map(lambda x: factor * x, params)
    found = convert_learning_rate(1.0, scaled, groups, optimizer="lion")
    a, b = (np.asarray(params[x], float) for x in "ab")
    norms = [
        math.sqrt(sum(np.sum(x[..., i : i + 2] ** 2) for x in (a, b)))
        for i in (0, 2, 4)
    ]
    # The rate per group and the weights are of single precision.
    np.testing.assert_allclose(
        found.per_group["a"] * np.float32(factor),
        1 / np.asarray(norms),
        rtol=3e-7,
    )
    with pytest.raises(ValueError, match=r"'a'.*diverged"):
        convert_learning_rate(
            1.0, {**scaled, "a": scaled["a"] * jnp.inf}, groups
        )


def test_ordinary_parameters_may_be_shapes():
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    groups = {"w": COLUMNS, "bias": None}
    found = convert_learning_rate(0.1, {"w": W, "bias": shape}, groups)
    assert found.learning_rate == pytest.approx(0.025)
    shapes = jax.eval_shape(lambda: {"w": W, "bias": jnp.ones(3)})
    with pytest.raises(TypeError, match=r"'w' of shape \(4, 2\).*pass arrays"):
        convert_learning_rate(0.1, shapes, groups)


def negative(count):
    return 0.1 - 0.3 * (count == 5)


def test_a_negative_schedule_is_named():
    with pytest.raises(ValueError, match=r"negative.*smallest.*-0\.2"):
        convert_learning_rate(negative, W, COLUMNS)


def test_groups_that_never_rotate_are_excluded():
    params = {
        "zero": jnp.concatenate([jnp.zeros((4, 1)), jnp.ones((4, 1))], 1),
        "single": jnp.ones((1, 3)),
    }
    found = convert_learning_rate(0.4, params, COLUMNS)
    assert found.excluded == 4
    assert "4 groups" in str(found)
    np.testing.assert_allclose(found.learning_rate, 0.1)
    np.testing.assert_allclose(found.per_group["zero"], 0.1)
    dead = {"zero": jnp.array([1.0, 0.0]), "single": 1.0}
    with pytest.raises(ValueError, match="Initialize"):
        convert_learning_rate(0.4, params, COLUMNS, gradient_norm=dead)


def test_joint_groups_and_ordinary_parameters():
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(4), "bias": jnp.ones(3)}
    groups = {"a": ScaleGroup((0, 1), tie="t"), "b": ScaleGroup(0, tie="t")}
    groups["bias"] = None
    found = convert_learning_rate(0.8, params, groups)
    np.testing.assert_allclose(found.learning_rate, 0.1)
    assert found.per_group["bias"] is None
    np.testing.assert_allclose(found.per_group["a"], found.per_group["b"])
    joint = convert_learning_rate(0.8, draw(0), joint_groups(COLUMNS))
    np.testing.assert_allclose(joint.learning_rate, 0.1, rtol=1e-6)


def test_in_training():
    """Normalized queries and keys, on text, in 40 steps of SGD."""
    problem = transformer(width=16, batch_size=4)
    source = make_methods(problem)["sgd"]
    params, groups = problem.params, problem.groups
    batches = problem.draw(40, 0)
    found = convert_learning_rate(0.1, params, groups, **source.options)

    def kept(rate):
        rest = source.make(0.1, 0.0)
        return psi(source.make(rate, 0.0), groups, ordinary=rest)

    run = make_recorded(problem, source.make)(params, batches, 0.1, 0.0)
    expected = np.median(run.rotation)
    train = make_recorded(problem, kept)
    rotation = np.median(train(params, batches, found.learning_rate).rotation)
    # As asked. Norms hardly grow in 40 steps.
    np.testing.assert_allclose(rotation, expected, rtol=0.1)
    # The control: the rate as it was.
    assert np.median(train(params, batches, 0.1).rotation) > 2 * expected


W = jnp.ones((4, 2))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"optimizer": "adagrad"}, ValueError, "choose one of"),
        ({"to": "sgd"}, ValueError, "choose one of"),
        ({"learning_rate": "0.1"}, TypeError, "learning_rate"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate"),
        ({"learning_rate": lambda _: -1.0}, ValueError, "learning_rate"),
        ({"groups": None}, ValueError, "pass the groups"),
        ({"params": jnp.zeros((4, 2))}, ValueError, "Initialize"),
        ({"params": jnp.full((4, 2), jnp.inf)}, ValueError, "non-finite"),
        (
            {"params": jax.ShapeDtypeStruct((4, 2), jnp.float32)},
            TypeError,
            "pass arrays",
        ),
        ({"to": "angle"}, ValueError, "pass gradient_norm"),
        ({"weight_decay": 0.1}, ValueError, "pass gradient_norm"),
        (
            {"optimizer": "adam", "weight_decay": 0.1},
            ValueError,
            "optimizer='adamw'",
        ),
        ({"optimizer": "muon", "weight_decay": 0.1}, ValueError, "omit weight"),
        ({"optimizer": "muon", "momentum": 0.9}, ValueError, "omit momentum"),
        ({"b2": 0.9}, ValueError, "omit b2"),
        (
            {
                "optimizer": "muon",
                "weight_dimension_numbers": optax.contrib.MuonDimensionNumbers(
                    0, 2
                ),
            },
            ValueError,
            r"MuonDimensionNumbers of its axes",
        ),
        ({"consistent_rms": 0.2}, ValueError, "omit consistent_rms"),
        ({"momentum": 1.0}, ValueError, "momentum"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay"),
        ({"optimizer": "adam", "gradient_norm": 1.0}, ValueError, "omit it"),
        ({"gradient_norm": -1.0}, ValueError, "gradient_norm"),
        ({"gradient_norm": {"x": 1.0}}, ValueError, "missing"),
        ({"gradient_norm": jnp.ones(3)}, ValueError, r"group shape \(2,\)"),
        ({"measured_rotation": 2.0}, ValueError, "in radians"),
        (
            {
                "optimizer": "lion",
                "weight_decay": 0.1,
                "measured_rotation": 0.1,
            },
            ValueError,
            "omit one",
        ),
    ],
)
def test_wrong_arguments(options, error, words):
    given = {"learning_rate": 0.1, "params": W, "groups": COLUMNS, **options}
    with pytest.raises(error, match=words):
        convert_learning_rate(**given)


def test_traced_values():
    with pytest.raises(TypeError, match=r"outside of jax\.jit"):
        jax.jit(lambda w: convert_learning_rate(0.1, w, COLUMNS).per_group)(W)
    with pytest.raises(TypeError, match=r"outside of jax\.jit"):
        jax.jit(
            lambda rate: convert_learning_rate(rate, W, COLUMNS).learning_rate
        )(0.1)
