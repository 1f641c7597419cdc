"""Groups in every form, for random trees: one plan, and the same numbers."""

import dataclasses
import re
from typing import Any

import jax
import pytest
from hypothesis import given

from psi_optax import ScaleGroup, groups_from_paths
from psi_optax.groups import make_plan
from tests.properties.checking import examples
from tests.properties.trees import layouts, plain

pytestmark = pytest.mark.usefixtures("x64")


def by_path(layout):
    """The groups of leaves, by the keys that lead to them."""
    found = {}

    def walk(node, keys):
        if isinstance(node, int):
            found["/".join(keys)] = layout.groups[node]
            return
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            walk(child, (*keys, str(key)))

    walk(layout.nested, ())
    return found


def prefix(layout):
    """One statement for all leaves of a container that have the same."""

    def walk(node):
        if isinstance(node, int):
            return layout.groups[node]
        if isinstance(node, dict):
            said = {key: walk(child) for key, child in node.items()}
            items = list(said.values())
        else:
            items = [walk(child) for child in node]
            said = type(node)(items)
        same = all(x == items[0] for x in items)
        return items[0] if same and is_statement(items[0]) else said

    return walk(layout.nested)


def is_statement(x):
    return x is None or isinstance(x, ScaleGroup)


def rest_ordinary(layout):
    """A mapping in which the empty path speaks for ordinary leaves."""
    grouped = {path: g for path, g in by_path(layout).items() if g}
    return {"": None, **grouped}


def rules(layout):
    """A regular expression for each statement."""
    paths = {}
    for path, group in by_path(layout).items():
        paths.setdefault(group, []).append(re.escape(path))
    return groups_from_paths(
        {"|".join(found): group for group, found in paths.items()}
    )


def canonical(layout):
    """Axes counted from the front, in order."""
    groups = []
    for shape, group in zip(layout.shapes, layout.groups, strict=True):
        if group is not None:
            axes, blocks = plain(shape, group)
            group = ScaleGroup(sorted(axes), blocks, group.tie)
        groups.append(group)
    return dataclasses.replace(layout, groups=tuple(groups)).statements


@dataclasses.dataclass(frozen=True)
class Rule:
    """An object that makes groups of params."""

    groups: Any

    def groups_for(self, params):
        return self.groups


FORMS = {
    "prefix tree": prefix,
    "mapping": by_path,
    "mapping of prefixes": rest_ordinary,
    "rules": rules,
    "function": lambda layout: lambda params: layout.statements,
    "object with groups_for": lambda layout: Rule(by_path(layout)),
    "axes from the front": canonical,
}


def shapes(layout):
    return jax.tree.map(
        lambda i: jax.ShapeDtypeStruct(layout.shapes[i], "float32"),
        layout.nested,
    )


@pytest.mark.parametrize("form", FORMS)
@given(layout=layouts())
@examples(50)
def test_every_form_is_one_plan(form, layout):
    params = shapes(layout)
    plan = make_plan(layout.statements, params)
    same = make_plan(FORMS[form](layout), params)
    assert plan == same
    assert hash(plan) == hash(same)
    for other in altered(layout):
        assert plan != make_plan(FORMS[form](other), params)


def altered(layout):
    """For each grouped leaf, layouts in which it has other groups."""
    for i, group in enumerate(layout.groups):
        if group is None:
            continue
        alone = dataclasses.replace(group, tie="nobody else")
        for other in (None, alone):
            groups = (*layout.groups[:i], other, *layout.groups[i + 1 :])
            yield dataclasses.replace(layout, groups=groups)
