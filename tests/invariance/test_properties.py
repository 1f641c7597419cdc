"""Laws that the analysis of any program obeys."""

import math

import jax
import jax.numpy as jnp
import pytest

from tests.invariance.holds import analyse
from tests.invariance.random_programs import draw

# What a program of the parameters scales as they do, or as a power of them.
HOMOGENEOUS = {
    "twice": lambda w: w * 2.0,
    "negative": lambda w: -w,
    "leaky": lambda w: jax.nn.leaky_relu(w, 0.5),
    "square": lambda w: w * jnp.abs(w),
    "root": lambda w: jnp.sign(w) * jnp.sqrt(jnp.abs(w)),
    "transposed": lambda w: jnp.abs(w.T).T,
    "called": lambda w: jax.jit(jax.checkpoint(jnp.abs))(w),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_scale_laws_compose(name):
    """Of f(g(w)) as much is found as of f, if g is homogeneous."""
    inner, found = HOMOGENEOUS[name], 0
    for program in (draw(seed, share=0) for seed in range(40)):
        params = program.params()
        plain = analyse(program, params)
        composed = analyse(
            lambda p, f=program: f({k: inner(w) for k, w in p.items()}), params
        )
        for path, verdict in plain.items():
            if verdict.group is not None and verdict.group.tie is None:
                found += 1
                assert composed[path].group is not None, path
                fewer, more = (
                    math.prod(v.group.group_shape(params[path].shape))
                    for v in (verdict, composed[path])
                )
                assert more >= fewer
    assert found >= 5


@pytest.mark.usefixtures("x64")
def test_analysis_is_a_function_of_the_program():
    for program in map(draw, range(40)):
        params = program.params()
        shapes = jax.eval_shape(program.params)
        assert analyse(program, params) == analyse(program, shapes)
