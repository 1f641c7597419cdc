"""Refs are variables of the program: what is written is what is read.

Beside each loss whose weights are found stands one that a Ref makes depend on
their scale.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from psi_optax import ScaleGroup, find_groups
from tests.invariance.losses import arrays, normalized

PARAMS = arrays(w=(4, 3), v=(3, 2))
X = arrays(x=(8, 4))["x"]


def head(h, params):
    return jnp.sum(jnp.tanh(h) @ params["v"])


def found(loss, method="analysis"):
    return find_groups(loss, PARAMS, X, method=method)["w"]


def stored(h):
    ref = jax.new_ref(jnp.zeros_like(h))
    ref[...] = h
    return ref[...]


def added(h):
    ref = jax.new_ref(jnp.zeros_like(h))
    jax.ref.addupdate(ref, ..., h)
    ref[...] += h
    return ref[...]


def swapped(h):
    ref = jax.new_ref(h)
    return jax.ref.swap(ref, ..., jnp.ones_like(h))


def frozen(h):
    ref = jax.new_ref(h)
    return jax.ref.freeze(ref)


def in_a_call(h):
    ref = jax.new_ref(jnp.zeros_like(h))

    @jax.jit
    def write(ref, h):
        ref[...] = h

    write(ref, h)
    return jax.checkpoint(lambda: ref[...])()


def in_a_scan(h):
    ref = jax.new_ref(jnp.zeros_like(h))

    def turn(carry, _):
        ref[...] += h
        return carry, None

    lax.scan(turn, 0, length=3)
    return ref[...]


def in_a_loop(h):
    ref = jax.new_ref(h)

    def turn(i, carry):
        ref[...] = 2 * ref[...]
        return carry

    lax.fori_loop(0, 3, turn, 0)
    return ref[...]


def in_a_branch(h):
    ref = jax.new_ref(h)

    def write():
        ref[...] = 3 * h

    lax.cond(X[0, 0] > 0, write, lambda: None)
    return ref[...]


@pytest.mark.parametrize(
    "through",
    [
        stored,
        added,
        swapped,
        frozen,
        in_a_call,
        in_a_scan,
        in_a_loop,
        in_a_branch,
    ],
)
def test_a_ref_holds_what_is_written(through):
    report = found(lambda p, x: head(normalized(through(x @ p["w"])), p))
    assert report.group == ScaleGroup(0)
    # The control: what the ref holds has a scale.
    report = found(lambda p, x: head(through(x @ p["w"]), p))
    assert report.group is None


def test_a_part_scales_as_the_whole_does():
    def loss(params, x, other):
        h = x @ params["w"]
        ref = jax.new_ref(h)
        ref[2] = h[0] * 2
        ref[1:3] = h[3:5]
        ref[:, 0] = other(h[:, 1])
        i = jnp.argmax(x[:, 0])
        return head(normalized(ref[...]), params) + jnp.sum(jnp.sign(ref[i]))

    whole = found(lambda p, x: loss(p, x, jnp.abs))
    assert whole.group == ScaleGroup((0, 1))
    assert found(lambda p, x: loss(p, x, jnp.square)).group is None


def test_elements_that_are_no_box_are_unknown():
    def loss(params, x):
        ref = jax.new_ref(x @ params["w"])
        ref[jnp.array([0, 2])] = jnp.ones((2, 3))
        return head(normalized(ref[...]), params)

    report = found(loss)
    assert report.group is None
    assert "jax.Ref" in report.reason


@pytest.mark.parametrize("first", [True, False])
def test_two_branches_must_agree(first):
    """One value stands for both, and loses the scale of either."""

    def loss(params, x):
        h = x @ params["w"]
        ref = jax.new_ref(h)

        def square():
            ref[...] = h * h

        either = square, lambda: None
        lax.cond(x[0, 0] > 0, *(either if first else either[::-1]))
        return head(normalized(ref[...]), params)

    assert found(loss).group is None


def test_two_turns_must_agree():
    def loss(params, x):
        ref = jax.new_ref(x @ params["w"])

        def turn(i, carry):
            ref[...] = ref[...] * ref[...]
            return carry

        lax.fori_loop(0, 2, turn, 0)
        return head(normalized(ref[...]), params)

    assert found(loss).group is None


@pytest.mark.parametrize("method", ["analysis", "both"])
def test_a_penalty_beside_the_loss_counts(method):
    def loss(params, x, name):
        total = jax.new_ref(jnp.zeros(()))

        def penalize(_, carry):
            total[...] += 0.1 * jnp.sum(params[name] ** 2)
            return carry

        penalize(0, 0)
        lax.fori_loop(0, 2, penalize, 0)
        return head(normalized(x @ params["w"]), params) + total[...]

    assert found(lambda p, x: loss(p, x, "w"), method).group is None
    assert found(lambda p, x: loss(p, x, "v"), method).group == ScaleGroup(0)


def test_a_write_counts_if_the_next_iteration_reads_it():
    def loss(params, x, name):
        last = jax.new_ref(jnp.zeros(()))

        def turn(total, _):
            total = total + last[...]
            last[...] = jnp.sum(params[name] ** 2)
            return total, None

        total, _ = lax.scan(turn, jnp.zeros(()), length=2)
        return head(normalized(x @ params["w"]), params) + total

    assert found(lambda p, x: loss(p, x, "w")).group is None
    assert found(lambda p, x: loss(p, x, "v")).group == ScaleGroup(0)


@pytest.mark.parametrize("method", ["analysis", "both"])
def test_statistics_that_are_not_read_do_not_count(method):
    """Those that the caller keeps are not changed either."""
    mean = jax.new_ref(jnp.ones(3))

    def loss(params, x, use):
        h = x @ params["w"]
        seen = mean[...]
        new = (0.9 * seen + 0.1 * jnp.mean(h, axis=0)).astype(mean.dtype)
        mean[...] = new
        h = h - mean[...][None] if use else normalized(h)
        return head(h, params)

    assert found(lambda p, x: loss(p, x, False), method).group == ScaleGroup(0)
    assert found(lambda p, x: loss(p, x, True), method).group is None
    np.testing.assert_array_equal(mean[...], np.ones(3))


def test_gradients_go_through_refs():
    def loss(params, x):
        cache = jax.new_ref(jnp.zeros((8, 3)))
        cache[...] = x @ params["w"]
        scores = jax.nn.softmax((x @ params["q"]) @ cache[...].T)
        return jnp.sum((scores @ (x @ params["u"])) ** 2)

    params = {"w": PARAMS["w"], "q": PARAMS["w"] + 1, "u": PARAMS["w"] - 1}
    report = find_groups(loss, params, X)
    assert {path: report[path].kind for path in params} == dict.fromkeys(
        params, "ordinary"
    )


def test_callbacks_see_what_scales():
    """A callback may do anything with it; one that debugs does nothing."""

    def loss(params, x, tell):
        h = x @ params["w"]
        tell(h)
        return head(normalized(h), params)

    def debugs(h):
        jax.debug.callback(lambda h: None, h)

    def acts(h):
        jax.experimental.io_callback(lambda h: None, None, h)

    assert found(lambda p, x: loss(p, x, debugs)).group == ScaleGroup(0)
    report = found(lambda p, x: loss(p, x, acts))
    assert report.group is None
    assert "io_callback" in report.reason
