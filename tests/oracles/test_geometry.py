"""The maps of `psi_optax.geometry` against pymanopt's, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from psi_optax import ScaleGroup, geometry
from psi_optax.groups import make_plan
from tests.oracles import frozen

# Sums of five products of numbers below 10, and some ten operations after
# them: 15 * 10 * 1.1e-16 = 1.7e-14.
CLOSE = {"rtol": 0, "atol": 2e-14}

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def seen():
    """Points are columns in pymanopt: groups along axis 0."""
    return frozen.arrays("pymanopt_oblique")


@pytest.fixture
def plan(seen):
    return make_plan({"w": ScaleGroup(0)}, leaf(seen["point"]))


@pytest.fixture
def radius(plan, seen):
    """Of the unit sphere, a scalar a group."""
    norms = geometry.norm(plan, leaf(seen["point"]))
    return {name: jnp.ones_like(x) for name, x in norms.items()}


def leaf(array):
    return {"w": jnp.asarray(array)}


def test_the_file_says_what_made_it(seen):
    assert '"pymanopt": "2.2.1"' in seen["versions"].item()


def test_projection_to_the_tangent(plan, seen):
    got = geometry.project_to_tangent(
        plan, leaf(seen["point"]), leaf(seen["vector"])
    )
    np.testing.assert_allclose(got["w"], seen["projection"], **CLOSE)
    assert np.abs(seen["vector"] - seen["projection"]).max() > 0.1


def test_retraction(plan, seen, radius):
    point = leaf(seen["point"])
    moved = geometry.retract(plan, point, leaf(seen["step"]), radius)
    got = point["w"] + moved["w"]
    np.testing.assert_allclose(got, seen["retraction"], **CLOSE)
    # The two retractions are different curves.
    assert np.abs(got - seen["exponential"]).max() > 0.1


def test_exponential_map(plan, seen, radius):
    point = leaf(seen["point"])
    moved = geometry.retract(
        plan, point, leaf(seen["step"]), radius, retraction="exponential"
    )
    got = point["w"] + moved["w"]
    np.testing.assert_allclose(got, seen["exponential"], **CLOSE)
    assert np.abs(got - seen["retraction"]).max() > 0.1


def test_angle(plan, seen):
    [got] = geometry.angle(
        plan, leaf(seen["point"]), leaf(seen["exponential"])
    ).values()
    angles = np.linalg.norm(seen["step"], axis=0)
    np.testing.assert_allclose(got, angles, **CLOSE)
    [retracted] = geometry.angle(
        plan, leaf(seen["point"]), leaf(seen["retraction"])
    ).values()
    np.testing.assert_allclose(retracted, np.arctan(angles), **CLOSE)


def test_pymanopts_transport_is_projection(plan, seen):
    end, other = leaf(seen["exponential"]), leaf(seen["other"])
    got = geometry.project_to_tangent(plan, end, other)
    np.testing.assert_allclose(got["w"], seen["transport"], **CLOSE)


def test_parallel_transport_of_a_step_along_itself(plan, seen):
    """The way back, which is pymanopt's logarithm, is minus the step's end."""
    step = leaf(seen["step"])
    got = geometry.transport(
        plan, leaf(seen["point"]), leaf(seen["exponential"]), step
    )
    # At an angle a = 2.8 the logarithm divides roundings by sin(a) = 0.33 and
    # the transport by 1 + cos(a) = 0.058: up to 20 times more.
    np.testing.assert_allclose(got["w"], -seen["logarithm"], atol=4e-13)
    # Transport by projection shortens instead.
    short = geometry.project_to_tangent(plan, leaf(seen["exponential"]), step)
    assert np.abs(short["w"] + seen["logarithm"]).max() > 0.1
