"""What is drawn is what the other tests need, and what the package sees."""

import collections
import math

import jax
import numpy as np
from hypothesis import given

from psi_optax.groups import make_plan
from tests.properties.checking import examples
from tests.properties.trees import cases, layouts


def kinds(case):
    """What is in a tree that a property may depend on."""
    layout = case.layout
    grouped = [group for group in layout.groups if group is not None]
    ties = collections.Counter(n for n in layout.names if n is not None)
    sizes = np.bincount(layout.ids[layout.ids >= 0])
    depth = {
        len(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(layout.nested)
    }
    return {
        "one leaf alone": isinstance(layout.nested, int),
        "containers in containers": len(depth) > 1,
        "ordinary leaves": len(grouped) < len(layout.groups),
        "two tied leaves": 2 in ties.values(),
        "more of them": max(ties.values()) > 2,
        "blocks": any(group.blocks for group in grouped),
        "axes from the end": any(
            axis < 0 for group in grouped for axis in group.axes
        ),
        "groups of one weight": 1 in sizes,
        "groups of ten or more": max(sizes) >= 10,
        "zero weights": not case.weights.all(),
        "zero gradients": not case.gradients[0].all(),
        "neither": case.weights.all() and case.gradients[0].all(),
    }


def test_every_kind_of_tree_is_drawn():
    count = collections.Counter()
    known = set()

    @given(case=cases())
    @examples(200)
    def look(case):
        found = kinds(case)
        known.update(found)
        count.update(kind for kind, there in found.items() if there)

    look()
    assert min(count[kind] for kind in known) >= 5, count


@given(layout=layouts())
@examples(50)
def test_groups_are_counted_as_the_package_does(layout):
    shapes = jax.tree.map(
        lambda i: jax.ShapeDtypeStruct(layout.shapes[i], "float32"),
        layout.nested,
    )
    plan = make_plan(layout.statements, shapes)
    expected = []
    for name, shape in plan.group_shapes.items():
        expected += [plan.sizes[name]] * math.prod(shape)
    sizes = np.bincount(layout.ids[layout.ids >= 0])
    assert sorted(sizes) == sorted(expected)
