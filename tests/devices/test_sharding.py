"""Sharded arrays under jit: the trajectory, the types and the compilations.

The weights of every layer are sharded over eight devices along fan-in, which
groups lie along, or along the output channels, with axes that are part of the
types and with axes that the compiler propagates.
"""

import jax
import pytest
from jax.sharding import NamedSharding

from tests.devices.meshes import (
    AXES,
    AXIS_TYPES,
    make_mesh,
    on_devices,
    spec_of,
)
from tests.devices.network import (
    GROUPS,
    RECIPES,
    SENSITIVITY,
    distance,
    make_params,
    on_one_device,
    tolerance,
)
from tests.registry import ENTRIES

pytestmark = pytest.mark.usefixtures("x64", "optax_promotion")

# Sums over groups are part of the state, and change: where axes are automatic
# the compiler may shard them as it likes, once.
RESHARDED = {"adam_g"}

each_recipe = pytest.mark.parametrize("recipe", RECIPES)
each_axis = pytest.mark.parametrize("axis", AXES)

# For `psi`, whose step the others take too, all ways; for these, two.
CASES = [
    (recipe, axis, axis_type)
    for recipe in RECIPES
    for axis in AXES
    for axis_type in AXIS_TYPES
    if recipe == "psi" or (axis == "fan_in") == (axis_type == "auto")
]


@each_recipe
def test_one_device_moves_far_and_is_not_chaotic(recipe):
    last = on_one_device(recipe, "float64")
    # Adam-G's steps are angles, here of 0.03 at most; others go further.
    far = 0.2 if recipe == "adam_g" else 0.5
    assert distance(last, make_params("float64")) > far
    nudged = on_one_device(recipe, "float64", nudge=1e-9)
    assert 1e-9 < distance(nudged, last) < SENSITIVITY * 1e-9


@pytest.mark.parametrize(("recipe", "axis", "axis_type"), CASES)
def test_trajectory_types_and_compilations(recipe, axis, axis_type):
    result = on_devices(recipe, "float64", axis, axis_type)
    expected = on_one_device(recipe, "float64")
    assert distance(result.params, expected) < tolerance("float64")
    if recipe in RESHARDED and axis_type == "auto":
        return
    assert result.types_after == result.types_before
    assert result.compilations == 1


def test_trajectory_in_float32():
    last = on_devices("psi_sgd", "float32", "fan_in", "explicit").params
    expected = on_one_device("psi_sgd", "float32")
    assert distance(last, expected) < tolerance("float32")
    other = on_one_device("psi_sgd", "float64", wrong=True)
    assert distance(other, expected) > 100 * tolerance("float32")


@each_recipe
def test_other_groups_go_elsewhere(recipe):
    expected = on_one_device(recipe, "float64")
    other = on_one_device(recipe, "float64", wrong=True)
    assert distance(other, expected) > 1e6 * tolerance("float64")


@each_axis
@pytest.mark.parametrize("name", ENTRIES)
def test_every_transform_keeps_shardings(name, axis):
    """They are in the types, and these are known without computing."""
    tx = ENTRIES[name].build(GROUPS)
    mesh = make_mesh("explicit")
    with jax.set_mesh(mesh):
        params = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape,
                x.dtype,
                sharding=NamedSharding(mesh, spec_of(x, AXES[axis])),
            ),
            make_params("float64"),
        )
        state = jax.eval_shape(tx.init, params)
        updates, new_state = jax.eval_shape(tx.update, params, state, params)
    assert specs(updates) == specs(params)
    assert specs(new_state) == specs(state)
    if getattr(state, "radius", None) and not ENTRIES[name].per_tensor:
        radius = specs(state.radius)["batch/kernel"]
        assert radius == (("d",) if axis == "outputs" else ())


def specs(tree):
    """What is sharded how; a counter, on its own, is on no mesh."""
    return jax.tree.map(lambda x: _axes(getattr(x.sharding, "spec", ())), tree)


def _axes(spec):
    """The mesh axes of a spec, down to the last that is sharded."""
    axes = tuple(spec)
    while axes and axes[-1] is None:
        axes = axes[:-1]
    return axes
