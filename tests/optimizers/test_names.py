"""Recipes by name, as configuration files give them."""

import jax.numpy as jnp
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup, optimizers
from psi_optax.optimizers import get_optimizer, list_optimizers
from tests.registry import ENTRIES, public_transforms

GROUPS = ScaleGroup(axes=0)


def test_every_recipe_of_the_room_has_a_name():
    names = list_optimizers()
    expected = {x for x in public_transforms() if hasattr(optimizers, x)}
    assert set(names) == expected
    assert names == sorted(names)
    assert len(names) == 14
    for name in names:
        assert get_optimizer(name) is getattr(optimizers, name)


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize("name", list_optimizers())
def test_all_arguments_are_keywords(name):
    given = {k: x for k, x in ENTRIES[name].kwargs.items() if k != "ordinary"}
    w = jnp.ones((3, 2))
    tx = get_optimizer(name)(groups=GROUPS, **given)
    updates, _ = tx.update(jnp.eye(3, 2) - 0.1, tx.init(w), w)
    assert jnp.any(updates)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("psi-sgd", "psi_sgd"),
        ("PSI_Adam", "psi_adam"),
        ("adam", "adamp"),
        ("rotation", "rotational"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(wrong, nearest):
    with pytest.raises(ValueError, match=f"{wrong}.*{nearest}"):
        get_optimizer(wrong)


def test_names_are_listed_by_pattern():
    assert list_optimizers("adam?") == ["adamh", "adamp"]
    with pytest.raises(ValueError, match=r"sgd\?.*psi_sgd"):
        list_optimizers("sgd?d")
    with pytest.raises(TypeError, match="pattern=None"):
        list_optimizers(None)


@pytest.mark.parametrize("wrong", ["get_optimizer", "PsiState", "", None, 3])
def test_other_values_are_refused_with_all_names(wrong):
    with pytest.raises(ValueError, match=r"muonh.*weight_rescaling"):
        get_optimizer(wrong)


def test_an_inner_transform_of_a_configuration():
    config = {
        "name": "psi_direction",
        "learning_rate": 0.1,
        "direction": {"name": "trace", "decay": 0.9},
    }
    inner = config.pop("direction")
    direction = getattr(optax, inner.pop("name"))(**inner)
    recipe = get_optimizer(config.pop("name"))
    tx = recipe(direction=direction, groups=GROUPS, **config)
    same = psi_optax.psi_direction(0.1, optax.trace(0.9), GROUPS)
    w, g = jnp.ones((3, 2)), jnp.eye(3, 2)
    ours, _ = tx.update(g, tx.init(w), w)
    theirs, _ = same.update(g, same.init(w), w)
    assert jnp.array_equal(ours, theirs)
