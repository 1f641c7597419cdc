"""ScaleGroup: what it accepts, how it is compared, what it works out."""

import dataclasses

import jax
import numpy as np
import pytest

from psi_optax import ScaleGroup


def test_forms_of_one_statement_are_equal_and_hash_alike():
    forms = {
        ScaleGroup(0),
        ScaleGroup((0,)),
        ScaleGroup([0]),
        ScaleGroup(np.int64(0)),
        ScaleGroup(axes=0, blocks={}),
    }
    assert len(forms) == 1
    assert ScaleGroup((0, 1), {1: 3}) == ScaleGroup((0, 1), [(1, 3)])
    assert ScaleGroup(0) != ScaleGroup(0, tie="a")


def test_is_a_leaf_and_frozen():
    group = ScaleGroup(0)
    assert jax.tree.leaves({"w": group}) == [group]
    with pytest.raises(dataclasses.FrozenInstanceError):
        group.axes = (1,)
    assert not callable(group)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ScaleGroup(axes="0"), TypeError, "axes='0'.*int"),
        (lambda: ScaleGroup(axes=(True,)), TypeError, "True.*int"),
        (lambda: ScaleGroup(axes=(0.0,)), TypeError, "0.0.*int"),
        (lambda: ScaleGroup(axes=None), TypeError, "axes=None.*int"),
        (lambda: ScaleGroup(0, blocks=4), TypeError, "blocks=.*{axis: n}"),
        (lambda: ScaleGroup(0, blocks=[0, 2]), TypeError, "blocks=.*{axis: n}"),
        (lambda: ScaleGroup(axes=(0, 0)), ValueError, r"axes=\(0, 0\)"),
        (lambda: ScaleGroup(0, tie=3), TypeError, "tie=.*3.*str"),
        (lambda: ScaleGroup(0, axis_name=[3]), TypeError, "axis_name=.*3.*str"),
        (lambda: ScaleGroup(0, axis_name=3), TypeError, "axis_name=.*3.*str"),
        (lambda: ScaleGroup(0, {0: 0}), ValueError, "blocks={0: 0}.*positive"),
        (
            lambda: ScaleGroup(0, [(0, 2), (0, 3)]),
            ValueError,
            "repeated",
        ),
    ],
)
def test_nonsense_is_refused_at_once(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_resolving_sorts_axes_and_counts_them_from_the_front():
    group = ScaleGroup((-1, 0), blocks={-1: 2}).resolve((4, 5, 6))
    assert group == ScaleGroup((0, 2), {2: 2})
    assert group.resolve((4, 5, 6)) == group


@pytest.mark.parametrize(
    ("group", "text"),
    [
        (ScaleGroup(3), "axis 3"),
        (ScaleGroup(-4), "axis -4"),
        (ScaleGroup((0, -3)), "repeated"),
        (ScaleGroup(0, {1: 2}), "axis 1"),
        (ScaleGroup(2, {2: 4}), "4 blocks.*axis 2.*length 6"),
    ],
)
def test_a_statement_that_does_not_fit_its_shape(group, text):
    with pytest.raises(ValueError, match=text):
        group.resolve((4, 5, 6))


@pytest.mark.parametrize(
    ("group", "shape", "group_shape", "size"),
    [
        (ScaleGroup(0), (4, 5), (5,), 4),
        (ScaleGroup((0, 1, 2)), (3, 3, 8, 16), (16,), 72),
        (ScaleGroup(()), (7,), (7,), 1),
        (ScaleGroup(()), (), (), 1),
        (ScaleGroup((0, 1)), (4, 6), (), 24),
        (ScaleGroup((0, 1), {1: 3}), (4, 6), (3,), 8),
        (ScaleGroup((0, 1), {0: 2, 1: 3}), (4, 6), (2, 3), 4),
        (ScaleGroup((0, 1), {1: 1}), (4, 6), (1,), 24),
        (ScaleGroup(0), (0, 5), (5,), 0),
        (ScaleGroup(0), (5, 0), (0,), 0),
    ],
)
def test_group_shapes_and_sizes(group, shape, group_shape, size):
    assert group.resolve(shape).group_shape(shape) == group_shape
    assert group.resolve(shape).group_size(shape) == size
