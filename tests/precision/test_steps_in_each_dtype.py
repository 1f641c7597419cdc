"""One step in float64, float32, bfloat16 and float16: the same, rounded.

The weights and gradients are numbers that all four dtypes have, and their
groups have norms of about 500: in float16, the square of that is infinite.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.compilation import quick_jit
from tests.theory.training import lenient, scan, to_numpy

pytestmark = pytest.mark.usefixtures("x64")

DTYPES = ("float64", "float32", "bfloat16", "float16")
SIZE, COLUMNS = 64, 3
# A joint group of a kernel and a bias of different dtypes, and in float64.
TIED = {
    "mixed": {"kernel": "bfloat16", "bias": "float32"},
    "double": {"kernel": "float64", "bias": "float64"},
}
GROUPS = {
    **{dtype: ScaleGroup(axes=0) for dtype in DTYPES},
    **{
        name: {
            "kernel": ScaleGroup(axes=0, tie=name),
            "bias": ScaleGroup(axes=(), tie=name),
        }
        for name in TIED
    },
}


def tree(seed, size):
    """The same numbers in every dtype, with eight bits like bfloat16's."""
    random = np.random.RandomState(seed)
    kernel, bias = (
        random.normal(size=shape) for shape in ((SIZE, COLUMNS), COLUMNS)
    )
    # None of them small, of which float16 has no square.
    kernel, bias = (
        (size * (x + np.sign(x) / 4)).astype(jnp.bfloat16)
        for x in (kernel, bias)
    )
    return {
        **{dtype: kernel.astype(jnp.dtype(dtype)) for dtype in DTYPES},
        **{
            name: {
                "kernel": kernel.astype(jnp.dtype(kinds["kernel"])),
                "bias": bias.astype(jnp.dtype(kinds["bias"])),
            }
            for name, kinds in TIED.items()
        },
    }


# Powers of two, which leave the bits alone.
WEIGHTS, GRADIENTS = 64.0, 2.0**-7

# Steps of 0.05 to 0.1 rad. Between the gradient and the direction, how often is
# a number of a leaf's dtype rounded? r g once, what is kept of it once more;
# the moments of Adam, their corrections, the root and the quotient.
RECIPES = {
    "psi_sgd": (lambda: psi_optax.psi_sgd(0.002, GROUPS, momentum=0.9), 3),
    "exponential": (
        lambda: psi_optax.psi_sgd(0.002, GROUPS, retraction="exponential"),
        1,
    ),
    "psi_sgdm": (lambda: psi_optax.psi_sgdm(0.002, GROUPS, momentum=0.9), 3),
    # In float16 an epsilon of 1e-8 is zero.
    "psi_adam": (lambda: psi_optax.psi_adam(0.01, GROUPS, eps=1e-4), 12),
    "rotational": (
        lambda: psi_optax.rotational(0.1, optax.trace(0.9), GROUPS),
        4,
    ),
    "sgd_g": (lambda: psi_optax.sgd_g(1.0, GROUPS), 4),
}


def double(x):
    return np.asarray(x, np.float64)


def largest(tree):
    return max(float(np.abs(double(x)).max()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_is_that_of_float64_rounded(name):
    make, roundings = RECIPES[name]
    tx = lenient(make())
    params, gradient = tree(0, WEIGHTS), tree(1, GRADIENTS)
    update = quick_jit(lambda g, w: tx.update(g, tx.init(w), w)[0])
    updates = to_numpy(update(gradient, params))

    def compare(u, w, exact, coarsest):
        assert u.dtype == w.dtype
        w, off = np.abs(double(w)), np.abs(double(u) - exact)
        # The new weight is rounded by half of its eps.
        most = float(jnp.finfo(u.dtype).eps) / 2 * (w + np.abs(exact))
        # The direction is rounded by that of the coarsest leaf of its group,
        # so many times; a step depends on it through itself, and through its
        # radial part, which is a part of the angle (here 0.1), times w.
        eps = float(jnp.finfo(coarsest).eps)
        most += roundings * eps / 2 * (np.abs(exact) + 0.1 * w)
        # Sums of 64 in float32: one addition after the other at worst.
        most += 64 * 2.0**-24 * w
        assert np.all(off <= most)
        return most

    for dtype in DTYPES[1:]:
        exact = double(updates["float64"])
        most = compare(updates[dtype], params[dtype], exact, dtype)
        # The control: most steps are longer than that.
        assert np.mean(np.abs(exact) > 2 * most) > 0.5
    for part in "kernel", "bias":
        exact = double(updates["double"][part])
        compare(
            updates["mixed"][part], params["mixed"][part], exact, "bfloat16"
        )


def test_norms_are_not_formed_in_the_dtype_of_weights():
    params = tree(0, WEIGHTS)
    exact = np.linalg.norm(double(params["float64"]), axis=0)
    norms = psi_optax.group_norms(params, GROUPS)
    for dtype in DTYPES:
        wide = np.float64 if dtype == "float64" else np.float32
        assert norms[dtype].dtype == wide
        # A sum of 64 squares, one after the other at worst.
        most = 64 * np.finfo(wide).eps / 2
        np.testing.assert_allclose(norms[dtype], exact, rtol=most)
    joint = np.sqrt(exact**2 + double(params["double"]["bias"]) ** 2)
    np.testing.assert_allclose(norms["mixed"]["bias"], joint, rtol=64 * 2**-24)
    # The controls: narrow sums of the same squares.
    with np.errstate(over="ignore"):
        half = narrow_sum(params["float16"] ** 2)
    assert np.all(np.isinf(half))
    brain = np.sqrt(double(narrow_sum(params["bfloat16"] ** 2)))
    assert np.abs(brain / exact - 1).max() > 100 * 64 * 2.0**-24


def narrow_sum(squares):
    """Column by column, each addition rounded."""
    total = np.zeros_like(squares[0])
    for row in squares:
        total = total + row
    assert total.dtype == squares.dtype
    return total


def test_each_dtype_keeps_to_its_radius_as_long_as_it_can():
    # 50 steps of 0.01 rad. Nothing adds up: what is off is one rounding of the
    # weights, up to half of eps each, of 64 independent ones an eighth of that,
    # and of float32 the two ulp of tests/theory/test_long_run.py.
    tx = psi_optax.psi_sgd(0.002, GROUPS, momentum=0.5)
    params = jax.tree.map(jnp.asarray, tree(0, WEIGHTS))

    def draw(params, seed):
        return jax.tree.map(
            lambda w: (
                jax.random.normal(jax.random.key(seed), w.shape) * GRADIENTS
            ).astype(w.dtype),
            params,
        )

    run = quick_jit(lambda params: scan(tx, draw, params, jnp.arange(50)))
    last, _ = run(params)
    for dtype in DTYPES:
        radius = np.linalg.norm(double(params[dtype]), axis=0)
        norm = np.linalg.norm(double(last[dtype]), axis=0)
        eps = float(jnp.finfo(dtype).eps)
        most = 2 * eps if dtype in ("float32", "float64") else eps / 2
        assert np.all(np.abs(norm / radius - 1) <= most)
        cosine = (double(last[dtype]) * double(params[dtype])).sum(0)
        assert np.all(cosine / (norm * radius) < 0.99)
