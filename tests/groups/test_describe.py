"""The table and the labels."""

import jax
import jax.numpy as jnp
import optax

from psi_optax import ScaleGroup, describe_groups, group_labels

PARAMS = {
    "layer": {
        "kernel": jnp.array([[3.0, 0.0, 1.0], [4.0, 0.0, jnp.nan]]),
        "bias": jnp.ones(3),
    },
    "gain": jnp.ones(()),
}
GROUPS = {
    "layer": {"kernel": ScaleGroup(0), "bias": None},
    "gain": ScaleGroup(()),
}


def line(table, path):
    [found] = [row for row in table.splitlines() if row.startswith(path)]
    return found


def test_the_table_says_what_is_grouped_and_what_is_wrong_with_it():
    table = describe_groups(PARAMS, GROUPS)
    assert line(table, "path").split() == (
        "path shape axes groups size tie radius notes".split()
    )
    assert "ordinary" in line(table, "layer/bias")
    kernel = line(table, "layer/kernel")
    assert "(2, 3)  0         3       2" in kernel
    assert "1 of 3 norm zero" in kernel
    assert "1 of 3 non-finite" in kernel
    assert "one element" in line(table, "gain")
    assert "4 groups in 2 of 3" in table


def test_ties_blocks_and_ranges():
    params = {
        "k": jnp.array([[3.0, 0.0], [0.0, 1.0]]),
        "b": jnp.array([4.0, 0]),
    }
    groups = {
        "k": ScaleGroup((0, 1), {1: 2}, tie="t"),
        "b": ScaleGroup(0, {0: 2}, tie="t"),
    }
    row = line(describe_groups(params, groups), "k")
    assert row.split() == "k (2, 2) 0, 1:2 2 3 t 1 to 5".split()
    assert "2 groups in 2 of 2" in describe_groups(params, groups)


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda: PARAMS)
    row = line(describe_groups(shapes, GROUPS), "layer/kernel")
    assert row.split() == "layer/kernel (2, 3) 0 3 2".split()


def test_a_healthy_table_has_no_notes():
    table = describe_groups(jnp.ones((2, 3)), ScaleGroup(0))
    assert "never" not in table
    assert "(root)" in table


def test_labels_partition_params():
    labels = group_labels(PARAMS, GROUPS)
    assert labels == {
        "layer": {"kernel": "scale", "bias": "ordinary"},
        "gain": "scale",
    }
    tx = optax.partition(
        {"scale": optax.sgd(1.0), "ordinary": optax.set_to_zero()},
        lambda tree: group_labels(tree, GROUPS),
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert updates["layer"]["bias"].tolist() == [0, 0, 0]
    assert updates["gain"] == -1
