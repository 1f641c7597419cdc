"""What comes in: foreign states, Python numbers, leaves that are no numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import psi_optax
from psi_optax import ScaleGroup
from tests.conformance.checks import assert_equal, one_step
from tests.registry import ENTRIES, GROUPS, draw

each_entry = pytest.mark.parametrize("name", ENTRIES)
FLOAT0 = jax.dtypes.float0

STATELESS = {
    *("scale_by_group_norm", "project_to_tangent", "clip_by_group_norm"),
    *("project_to_tangent_centered", "project_to_zero_mean"),
    *("normalize_by_group_norm", "add_orthogonality"),
    *("relative_ascent", "mix_with_neighbors"),
}
STATEFUL = sorted(set(ENTRIES) - STATELESS)


def as_dicts(state):
    """A state as a library for checkpoints gives it back without a target."""
    if hasattr(state, "_fields"):
        return {k: as_dicts(v) for k, v in state._asdict().items()}
    if isinstance(state, tuple):
        return {str(i): as_dicts(x) for i, x in enumerate(state)}
    return state


# States.


def foreign_states(tx):
    """States that no transform here has, and the name of their class."""
    params = draw(0)
    makers = {
        "tuple": optax.adam(0.1),
        "TraceState": optax.trace(0.9),
        "PsiSgdmState": psi_optax.psi_sgdm(0.1, GROUPS),
        "PsiState": psi_optax.psi(optax.lion(0.1), GROUPS),
        "AverageWeightsState": psi_optax.wrappers.average_weights(0.9),
    }
    own = jax.eval_shape(tx.init, params)
    states = {
        name: jax.eval_shape(maker.init, params)
        for name, maker in makers.items()
        if name != type(own).__name__
    }
    return {**states, "NoneType": None, "dict": as_dicts(own)}, own


@pytest.mark.parametrize("name", STATEFUL)
def test_a_foreign_state_is_one_error(tx):
    states, own = foreign_states(tx)
    expected = type(own).__name__
    assert len(states) >= 6
    for came, state in states.items():
        with pytest.raises(ValueError, match=r"init\(params\)") as error:
            jax.eval_shape(tx.update, draw(1), state, draw(0))
        assert expected in str(error.value)
        assert came in str(error.value)


@pytest.mark.parametrize(
    "name", ["psi", "average_weights", "master_weights", "perturb_weights"]
)
def test_a_state_of_other_parameters_says_which(entry):
    tx, few = entry.build(None), {"a": jnp.ones(2)}
    many = {**few, "b": jnp.ones(3)}
    for made, given in (few, many), (many, few):
        with pytest.raises(ValueError, match=r"state.*'b'.*init\(params\)"):
            tx.update(given, tx.init(made), given)
        assert tx.update(given, tx.init(given), given)


# Theirs have no state inside of the PsiState, and read none.
INSIDE_OF_PSI = ["psi_ordinary", "psi_sgd", "psi_adam"]
INSIDE_OF_PSI += ["rotational", "adamh", "muonh"]


@pytest.mark.parametrize("name", INSIDE_OF_PSI)
def test_a_foreign_state_inside_says_where(tx):
    own = jax.eval_shape(tx.init, draw(0))
    lion = psi_optax.psi_direction(1e-4, optax.scale_by_lion(), GROUPS)
    for inner in jax.eval_shape(lion.init, draw(0)).inner, None:
        state = own._replace(inner=inner)
        with pytest.raises(ValueError, match=r"init\(params\)") as error:
            jax.eval_shape(tx.update, draw(1), state, draw(0))
        assert str(error.value).startswith("state['inner'] ")
        assert type(own.inner).__name__ in str(error.value)
        assert type(inner).__name__ in str(error.value)


@pytest.mark.parametrize("name", ["sgd_g", "adam_g"])
def test_a_foreign_state_inside_of_a_partition_says_where(tx):
    own = jax.eval_shape(tx.init, draw(0))
    scale = own.inner_states["scale"]
    psi_state = scale.inner_state
    wrong = psi_state._replace(inner=optax.EmptyState())
    states = {
        **own.inner_states,
        "scale": scale._replace(inner_state=wrong),
    }
    with pytest.raises(ValueError, match=r"init\(params\)") as error:
        jax.eval_shape(
            tx.update, draw(1), own._replace(inner_states=states), draw(0)
        )
    assert str(error.value).startswith("state['inner_states']['scale']")
    assert "['inner'] " in str(error.value)
    assert type(psi_state.inner).__name__ in str(error.value)


@each_entry
def test_its_own_state_is_no_foreign_one(tx):
    own = jax.eval_shape(tx.init, draw(0))
    assert jax.eval_shape(tx.update, draw(1), own, draw(0))


@pytest.mark.parametrize("name", sorted(STATELESS))
def test_without_state_any_passes_as_in_optax(tx):
    for state in foreign_states(tx)[0].values():
        _, after = jax.eval_shape(tx.update, draw(1), state, draw(0))
        assert jax.tree.structure(after) == jax.tree.structure(state)
    _, after = optax.identity().update(draw(1), None, draw(0))
    assert after is None


def test_other_errors_are_not_taken_for_foreign_states():
    def update(updates, state, params=None):
        raise KeyError("mine")

    broken = optax.GradientTransformation(optax.identity().init, update)
    untraceable = broken._replace(init=lambda p: np.asarray(p["w"]).sum())
    params = {"w": jnp.ones(2)}
    for inner in broken, untraceable:
        with pytest.raises(KeyError, match="mine"):
            one_step(psi_optax.psi(inner, None), params, params)


@pytest.mark.parametrize("name", ["trace", "adam"])
def test_a_state_of_another_transport_is_refused(name):
    make = {
        "trace": psi_optax.transforms.transported_trace,
        "adam": psi_optax.transforms.scale_by_group_adam,
    }[name]
    w = {"w": jnp.array([3.0, 4.0])}
    both = [
        make({"w": ScaleGroup(0)}, transport=transport)
        for transport in ("projection", "parallel")
    ]
    for tx, other in both, both[::-1]:
        with pytest.raises(ValueError, match=r"transport=.*init\(params\)"):
            jax.eval_shape(tx.update, w, other.init(w), w)


# Python numbers.


def with_scalars(tree, ordinary, grouped):
    return {**tree, "t": ordinary, "s": {"a": grouped, "b": grouped}}


SCALARS = {
    **GROUPS,
    "t": None,
    "s/a": ScaleGroup((), tie="s"),
    "s/b": ScaleGroup((), tie="s"),
}


@each_entry
def test_python_numbers_are_arrays(entry):
    tx = entry.build(SCALARS)
    found = one_step(
        tx, with_scalars(draw(0), 2.0, 3.0), with_scalars(draw(1), 0.5, 1)
    )
    as_array = jnp.float32
    expected = one_step(
        tx,
        with_scalars(draw(0), as_array(2), as_array(3)),
        with_scalars(draw(1), as_array(0.5), as_array(1)),
    )
    assert_equal(*(jax.tree.map(jnp.asarray, x) for x in (found, expected)))


@each_entry
def test_python_numbers_have_the_state_of_arrays(entry):
    tx = entry.build(SCALARS)
    params = with_scalars(draw(0), 2.0, 3.0)
    state, (updates, after) = tx.init(params), one_step(tx, params, params)
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, after)
    new = optax.apply_updates(params, updates)
    assert jax.tree.structure(new) == jax.tree.structure(params)


@pytest.mark.usefixtures("optax_promotion")
def test_a_python_number_moves_as_with_optax():
    groups = {"k": ScaleGroup(0), "t": None}
    params = {"k": jnp.ones((4, 3)), "t": 1.0}
    for gradient in 0.5, 2:
        gradients = {"k": jnp.ones((4, 3)), "t": gradient}
        for ours, theirs in [
            (psi_optax.psi_sgd(0.1, groups), optax.sgd(0.1)),
            (psi_optax.psi_sgd(0.1, groups, momentum=0.9), optax.sgd(0.1, 0.9)),
            (psi_optax.psi_adam(0.1, groups), optax.adam(0.1)),
        ]:
            found, _ = one_step(ours, params, gradients)
            expected, _ = one_step(theirs, params, gradients)
            # Two roundings, of the rate and of the product.
            np.testing.assert_allclose(
                found["t"], expected["t"], rtol=2 * np.finfo("float32").eps
            )
            assert np.all(found["k"] != expected["k"]) or gradient


# Transfers.


@pytest.mark.parametrize("name", ["psi_adam", "sgd_g", "retract", "sgdp"])
def test_a_compiled_step_moves_nothing_to_the_device(tx):
    params, gradient = draw(0), draw(1)
    state = jax.block_until_ready(tx.init(params))
    update = jax.jit(tx.update)
    with jax.transfer_guard("disallow"):
        updates, _ = update(gradient, state, params)
        with pytest.raises(Exception, match="Disallowed host-to-device"):
            update(jax.tree.map(np.zeros_like, gradient), state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


# What is no number.


def add(tree, leaf):
    return {**tree, "rng": {"key": leaf}}


KEYED = {**GROUPS, "rng": None}
KEYS = {
    "one": jax.random.key(0),
    "several": jax.random.split(jax.random.key(0), 3),
    "rbg": jax.random.key(0, impl="rbg"),
}


@each_entry
@pytest.mark.parametrize("kind", ["float0", "None"])
def test_typed_keys_are_left_alone(entry, kind):
    tx = entry.build(KEYED)
    without, state = one_step(entry.build())
    for key in KEYS.values():
        zero = np.zeros(key.shape, FLOAT0) if kind == "float0" else None
        updates, after = one_step(tx, add(draw(0), key), add(draw(1), zero))
        found = updates.pop("rng")["key"]
        if kind == "None":
            assert found is None
        else:
            assert (found.dtype, found.shape) == (FLOAT0, key.shape)
        # Nor is it in the state: what is inside does not see it.
        assert_equal(updates, without)
        assert_equal(jax.tree.leaves(after), jax.tree.leaves(state))


@each_entry
def test_typed_keys_in_a_compiled_step(entry):
    tx, key = entry.build(KEYED), KEYS["several"]
    params = add(draw(0), key)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(loss, allow_int=True)(params)
        updates, state = tx.update(gradient, state, params)
        moved = {path: x for path, x in params.items() if path != "rng"}
        updates = {path: updates[path] for path in moved}
        return {**params, **optax.apply_updates(moved, updates)}, state

    def loss(params):
        noise = jax.vmap(jax.random.normal)(params["rng"]["key"]).sum()
        rest = jax.tree.leaves({**params, "rng": None})
        return noise * sum(jnp.sum(x * x) for x in rest)

    after, _ = jax.eval_shape(step, params, jax.eval_shape(tx.init, params))
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, params)


def test_optax_fails_on_typed_keys():
    # The control; and why a key is kept from optax.apply_updates: there is
    # nothing that can be added to it.
    key, w = KEYS["one"], jnp.ones(2)
    with pytest.raises((TypeError, ValueError)):
        one_step(optax.adam(0.1), {"w": w, "k": key}, {"w": w, "k": None})
    for update in None, np.zeros((), FLOAT0), 0, jnp.zeros((), "uint32"):
        with pytest.raises(TypeError):
            optax.apply_updates({"k": key}, {"k": update})


@each_entry
def test_words_and_functions_are_left_alone(entry):
    tx = entry.build(KEYED)
    without, _ = one_step(entry.build())
    for leaf in "relu", jax.nn.relu:
        updates, _ = one_step(tx, add(draw(0), leaf), add(draw(1), None))
        assert updates.pop("rng") == {"key": None}
        assert_equal(updates, without)


NO_NUMBERS = {"key": KEYS["one"], "word": "relu", "function": jax.nn.relu}


@pytest.mark.parametrize("leaf", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_groups_of_what_is_no_number(leaf):
    groups = {**GROUPS, "rng": ScaleGroup(())}
    with pytest.raises(TypeError, match="'rng/key' of shape .*None"):
        psi_optax.psi_sgd(0.1, groups).init(add(draw(0), leaf))


def test_what_looks_at_params_copes_with_typed_keys():
    key = KEYS["several"]
    params = add(draw(0), key)
    norms = psi_optax.group_norms(params, KEYED)
    assert norms.pop("rng") == {"key": None}
    assert_equal(norms, psi_optax.group_norms(draw(0), GROUPS))
    unit = psi_optax.normalize(params, KEYED, 2.0)
    assert unit.pop("rng")["key"] is key
    assert_equal(unit, psi_optax.normalize(draw(0), GROUPS, 2.0))
    turned = psi_optax.rotation(params, add(draw(1), key), KEYED)
    assert turned.pop("rng") == {"key": None}
    assert "rng/key" in psi_optax.describe_groups(params, KEYED)
    labels = psi_optax.group_labels(params, KEYED)
    assert labels["rng"] == {"key": "ordinary"}
    for leaf in "relu", jax.nn.relu:
        described = psi_optax.describe_groups(add(draw(0), leaf), KEYED)
        assert "rng/key" in described


def test_averages_are_read_beside_typed_keys():
    tx, key = psi_optax.wrappers.average_weights(0.9), KEYS["one"]
    params = add(draw(0), key)
    updates = add(jax.tree.map(jnp.zeros_like, draw(0)), None)
    for state in tx.init(params), one_step(tx, params, updates)[1]:
        for groups in KEYED, None:
            found = psi_optax.wrappers.get_average(state, params, groups)
            assert found.pop("rng")["key"] is key
            # The mean of one, by way of its norm.
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
                found,
                draw(0),
            )


def test_arguments_in_another_order_say_so():
    params = {"w": jnp.ones((3, 2))}
    report = psi_optax.find_groups(
        lambda p: jnp.sum(jnp.tanh(p["w"] / jnp.linalg.norm(p["w"]))), params
    )
    for call in (
        lambda: psi_optax.psi_sgd(report, 0.1),
        lambda: psi_optax.psi(report, optax.sgd(0.1)),
        lambda: psi_optax.find_groups(params, lambda p: 0.0),
    ):
        with pytest.raises(TypeError, match="(?i)arguments") as error:
            call()
        assert len(str(error.value)) < 300
    tx = psi_optax.psi_sgd(0.1, report)
    with pytest.raises(ValueError, match="dict.*PsiState"):
        tx.update(params, params, tx.init(params))
