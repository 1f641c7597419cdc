"""Operations without parameters, and shortcuts alone, computed by hand."""

import copy

import jax
import numpy as np
import pytest

from psi_optax.models import functions

from .twins import CASES, IMAGES, TOKENS, apply, difference, variables_of

random = np.random.RandomState(0)


def test_maxima_are_those_of_the_windows():
    x = random.normal(size=(1, 4, 4, 1)).astype(np.float32)
    pairs = x.reshape(1, 2, 2, 2, 2, 1).max((2, 4))
    np.testing.assert_array_equal(functions.max_pool_2x2(x), pairs)
    windows = [slice(0, 2), slice(1, 4)]
    expected = [[x[0, r, c].max() for c in windows] for r in windows]
    pooled = functions.max_pool_3x3(x)
    np.testing.assert_array_equal(pooled[0, ..., 0], expected)
    # One pixel that is left over is a window of its own.
    assert functions.max_pool_2x2(x[:, :3, :3])[0, 1, 1, 0] == x[0, 2, 2, 0]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_shortcut_takes_each_other_pixel_and_appends_zeros(stride):
    x = random.normal(size=(2, 4, 4, 3)).astype(np.float32)
    y = functions.zero_pad_shortcut(x, 5, stride)
    np.testing.assert_array_equal(y[..., :3], x[:, ::stride, ::stride])
    np.testing.assert_array_equal(y[..., 3:], 0)
    assert y.shape == (2, 4 // stride, 4 // stride, 5)


def test_positions_are_the_angles_of_rows_and_columns():
    positions = functions.position_encoding(3, 5, 8)
    assert (positions.shape, positions.dtype) == ((3, 5, 8), np.float32)
    row, column = 2, 4
    # Wave lengths of 2 pi and of a hundred times that; rounded to float32.
    angles = np.array([row, row / 100, column, column / 100])
    sines, cosines = np.sin(angles), np.cos(angles)
    expected = [*sines[:2], *cosines[:2], *sines[2:], *cosines[2:]]
    np.testing.assert_allclose(positions[row, column], expected, rtol=1e-7)
    # No two cells have the same ones.
    assert len(np.unique(positions.reshape(15, 8), axis=0)) == 15


@pytest.mark.parametrize("name", ["GPT", "Sandwich"])
def test_logits_depend_on_no_later_token(name):
    model, variables = CASES[name].linen(), variables_of(name)
    run = jax.jit(lambda tokens: apply(model, variables, tokens)[0])
    changed = TOKENS.copy()
    changed[:, 3] = (changed[:, 3] + 1) % 5
    before, after = run(TOKENS), run(changed)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert all(
        difference(after[:, i], before[:, i]) > 1e-3 for i in range(3, 6)
    )


def test_squares_have_the_square_of_a_positive_factor():
    x = random.normal(size=20).astype(np.float32)
    y = functions.squared_relu(x)
    np.testing.assert_array_equal(y, np.where(x > 0, x, np.float32(0)) ** 2)
    np.testing.assert_array_equal(functions.squared_relu(2 * x), 4 * y)


def rectified(x, params, statistics):
    """Return the ReLU of x, normalized by the running statistics."""
    params, statistics = jax.tree.map(np.asarray, (params, statistics))
    deviation = np.sqrt(statistics["var"] + np.float32(1e-5))
    x = (x - statistics["mean"]) / deviation
    return np.maximum(x * params["scale"] + params["bias"], 0)


def stem(kernel):
    return np.asarray(
        jax.lax.conv_general_dilated(
            IMAGES,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    )


def halved(x):
    """Return every other pixel, with twice the channels."""
    return np.concatenate([x[:, ::2, ::2], 0 * x[:, ::2, ::2]], axis=-1)


def by_hand(name, variables):
    """Return the logits in evaluation mode for branches of zero."""
    params, statistics = variables["params"], variables["batch_stats"]

    if name == "ResNet":
        x = stem(params["stem"]["conv"]["kernel"])
        norm = params["stem"]["norm"], statistics["stem"]["norm"]
        x = halved(rectified(x, *norm))
    else:
        x = stem(params["stem"]["kernel"])
        # Shortcuts start behind the normalization where a stage starts.
        for block in ("block_0", "block_2"):
            norm = params[block]["norm_0"], statistics[block]["norm_0"]
            x = rectified(x, *norm)
            x = halved(x) if block == "block_2" else x
        norm = params["norm"], statistics["norm"]
        x = rectified(x, *norm)
    head = jax.tree.map(np.asarray, params["head"])
    return x.mean((1, 2)) @ head["kernel"] + head["bias"]


LAST = {"ResNet": ("layer_1", "norm"), "PreActResNet": ("conv_1",)}


@pytest.mark.parametrize("name", LAST)
def test_without_their_branches_the_shortcuts_remain(name):
    whole = variables_of(name)
    variables = copy.deepcopy(whole)
    for index in range(3):
        last = variables["params"][f"block_{index}"]
        for key in LAST[name]:
            last = last[key]
        for leaf in last:
            last[leaf] = 0 * last[leaf]
    model = CASES[name].linen()
    run = jax.jit(lambda variables: apply(model, variables, train=False)[0])
    expected = by_hand(name, variables)
    # Sums of 36 products and four normalizations in a row, each of a few
    # roundings of 6e-8: 36 + 4 * 5 of them are 3e-6.
    scale = np.abs(expected).max()
    assert np.abs(run(variables) - expected).max() < 1e-5 * scale
    assert np.abs(run(whole) - expected).max() > 1e-2 * scale
