"""Groups in every form that the package makes, as static arguments of jit."""

import collections
import functools

import jax
import jax.numpy as jnp
import pytest

from psi_optax import (
    ScaleGroup,
    check_groups,
    find_groups,
    group_norms,
    groups_from_paths,
    joint_groups,
)

PARAMS = {"w": jnp.array([[3.0], [4.0]]), "v": jnp.ones(1)}
Params = collections.namedtuple("Params", ["w", "v"])
STATED = {"w": ScaleGroup(0), "v": None}
RULE = {".*w": ScaleGroup(0)}


def loss(params, x):
    w = params["w"] / jnp.linalg.norm(params["w"], axis=0, keepdims=True)
    return jnp.sum(jnp.tanh(x @ w) @ params["v"])


def found():
    # Measured deviations are rounding, which differs from program to program.
    x = jnp.ones((4, 2))
    return find_groups(loss, PARAMS, x, method="analysis")


# A function that makes a form anew, and one that makes another.
FORMS = {
    "report": (
        found,
        lambda: check_groups(loss, PARAMS, STATED, jnp.ones((4, 2))),
    ),
    "rule": (
        lambda: groups_from_paths(RULE),
        lambda: groups_from_paths({"w": ScaleGroup(0)}),
    ),
    "joint tree": (
        lambda: joint_groups(dict(STATED)),
        lambda: joint_groups(dict(STATED), tie="all"),
    ),
    "joint rule": (
        lambda: joint_groups(groups_from_paths(RULE)),
        lambda: joint_groups(groups_from_paths({"w": ScaleGroup(0)})),
    ),
    "joint report": (
        lambda: joint_groups(found()),
        lambda: joint_groups({"w": ScaleGroup(0), "v": None}),
    ),
    "joint joint": (
        lambda: joint_groups(joint_groups(STATED)),
        lambda: joint_groups(joint_groups(STATED), tie="all"),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_equal_groups_are_compiled_once(form):
    make, make_other = FORMS[form]
    traces = []

    @functools.partial(jax.jit, static_argnames="groups")
    def norms(params, groups):
        traces.append(groups)
        return group_norms(params, groups)

    for _ in range(2):
        assert norms(PARAMS, groups=make())["w"] == 5
    assert len(traces) == 1
    one, same = make(), make()
    assert one is not same
    assert len({one, same}) == 1
    other = make_other()
    assert norms(PARAMS, groups=other)["w"] == 5
    assert len(traces) == 2


def test_reports_differ_by_findings_and_by_containers():
    report = found()
    assert report == found()
    assert hash(report) == hash(found())
    named = find_groups(
        lambda p, x: loss(p._asdict(), x),
        Params(**PARAMS),
        jnp.ones((4, 2)),
        method="analysis",
    )
    assert named.findings == report.findings
    assert report != named
    assert report != report.groups
    # The order in which the loss was looked at means nothing.
    turned = dict(reversed(report.findings.items()))
    again = type(report)(report.groups, turned, report.returned)
    assert again == report
    assert hash(again) == hash(report)
