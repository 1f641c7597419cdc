"""The training program on a mesh: the trajectory, and what is sent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.optimizers import OPTIMIZERS
from benchmarks.train import __main__ as program, checkpoints, records, run
from benchmarks.train.layout import make_layout
from benchmarks.training import kernel_groups
from psi_optax._compat import enable_x64
from psi_optax.models.architectures import ViTArchitecture
from psi_optax.models.linen import CNN, MLP, ViT
from tests.compilation import all_quick
from tests.devices.test_communication import collectives
from tests.generated import write_images

pytestmark = pytest.mark.usefixtures("optax_promotion")

MODELS = {
    "mlp": MLP(widths=(16, 24), num_classes=8, epsilon=0.0),
    "cnn": CNN(widths=(8, 16), num_classes=8, epsilon=0.0),
    "vit": ViT(ViTArchitecture(2, 8, depth=1, heads=2), num_classes=8),
}
IMAGE = (4, 4, 2)
BATCH = 32
STEPS = 10

# How much of a relative change of the weights is left in the loss after
# `STEPS` steps, at most: a test measures it.
SENSITIVITY = 40

# On other devices sums are formed in another order: of 4 x 4 x 2 or 32 terms,
# some sqrt(32) roundings of half an epsilon, so 8 epsilons in a step cover it.
TOLERANCE = SENSITIVITY * STEPS * 8 * np.finfo(np.float64).eps


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """Programs that run for a moment need not be fast."""
    with all_quick():
        yield


def batch(wrong=False):
    random = np.random.default_rng(0)
    images = random.normal(size=(BATCH, *IMAGE))
    labels = random.integers(0, 8, BATCH).astype(np.int32)
    if wrong:
        images[-1] = images[0]
    return images, labels


@functools.cache
def initial(model):
    """Variables; on more devices they are the same up to rounding alone."""
    layout = make_layout({"data": 1})
    with jax.set_mesh(layout.mesh):
        tx = optax.identity()
        start = run.start(MODELS[model], tx, layout, IMAGE, seed=0)
    return jax.tree.map(np.asarray, start.variables)


def begin(layout, model, optimizer, dtype="float64"):
    """A training state in this dtype, and its optimizer."""
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    groups = kernel_groups(MODELS[model], image)
    tx = OPTIMIZERS[optimizer].make(0.02, groups, decay=1e-2)
    variables = initial(model)
    params = layout.shardings(variables["params"])
    places = dict.fromkeys(variables, layout.everywhere) | {"params": params}
    variables = jax.device_put(
        jax.tree.map(lambda x: np.asarray(x, dtype), variables), places
    )
    state = layout.init(tx, variables["params"])
    return checkpoints.Training(variables, state), tx


def losses(
    sizes, model, optimizer, axes="auto", wrong=False, nudge=0.0, **more
):
    """The losses of a trajectory."""
    layout = make_layout(sizes, axes)
    random = np.random.default_rng(1)
    with jax.set_mesh(layout.mesh):
        training, tx = begin(layout, model, optimizer)
        params = jax.tree.map(
            lambda x: x * (1 + nudge * random.normal(size=x.shape)),
            training.variables["params"],
        )
        training.variables["params"] = params
        step = run.make_step(MODELS[model], tx, layout, training, **more)
        images, labels = (
            layout.put(x.shape, x.__getitem__) for x in batch(wrong)
        )
        found = []
        for _ in range(STEPS):
            training, loss = step(training, images, labels)
            found.append(float(loss))
        assert step._cache_size() == 1
    return np.array(found)


@functools.cache
def on_one_device(model, optimizer):
    with enable_x64(True):
        return losses({"data": 1}, model, optimizer)


def distance(a, b):
    return np.max(np.abs(a / b - 1))


CASES = [
    ("mlp", "psi_sgd", {"fsdp": 8}, "auto"),
    ("mlp", "psi_sgd", {"model": 8}, "auto"),
    ("mlp", "psi_sgd", {"data": 2, "fsdp": 4}, "explicit"),
    ("cnn", "psi_adam", {"data": 2, "fsdp": 2, "model": 2}, "auto"),
    ("cnn", "psi_adam", {"data": 8}, "explicit"),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("model", "optimizer", "mesh", "axes"), CASES)
def test_the_losses_are_those_of_one_device(model, optimizer, mesh, axes):
    expected = on_one_device(model, optimizer)
    found = losses(mesh, model, optimizer, axes)
    assert distance(found, expected) < TOLERANCE


def varying(x, axes):
    """Return x as an array that differs between devices."""
    # Until JAX 0.7 the function was `pvary`.
    if not hasattr(jax.lax, "pcast"):
        return jax.lax.pvary(x, axes)
    return jax.lax.pcast(x, axes, to="varying")


def local_update(loss, optimizer):
    """Average the gradients of parts of the batch, which devices form alone."""
    axes = ("data", "fsdp")

    def gradients(params, variables, images, labels):
        (value, _), found = jax.value_and_grad(loss, has_aux=True)(
            varying(params, axes), variables, images, labels
        )
        return jax.lax.pmean((value, found), axes)

    def update(training, images, labels):
        params, whole = training.variables["params"], jax.P()
        value, found = jax.shard_map(
            gradients,
            in_specs=(whole, whole, jax.P(axes), jax.P(axes)),
            out_specs=whole,
        )(params, training.variables, images, labels)
        updates, state = optimizer.update(found, training.state, params)
        params = optax.apply_updates(params, updates)
        return checkpoints.Training({"params": params}, state), value

    return update


@pytest.mark.usefixtures("x64")
def test_another_average_over_devices_has_its_place():
    # Its normalizations have no statistics of the batch.
    expected = on_one_device("vit", "psi_sgd")
    found = losses({"data": 8}, "vit", "psi_sgd", update=local_update)
    # Parts of it are computed in float32.
    assert distance(found, expected) < 1e-7
    assert expected[-1] < 0.99 * expected[0]


@pytest.mark.usefixtures("x64")
def test_the_losses_move_and_are_not_chaotic():
    expected = on_one_device("mlp", "psi_sgd")
    assert expected[-1] < 0.9 * expected[0]
    nudged = losses({"data": 1}, "mlp", "psi_sgd", nudge=1e-9)
    assert 1e-9 / SENSITIVITY < distance(nudged, expected) < SENSITIVITY * 1e-9
    # As if a device had the first image in place of the last one.
    wrong = losses({"data": 1}, "mlp", "psi_sgd", wrong=True)
    assert distance(wrong, expected) > 1e6 * TOLERANCE


def update(layout, model, optimizer):
    """The compiled step of the optimizer, as text, and the weights."""
    with jax.set_mesh(layout.mesh):
        training, tx = begin(layout, model, optimizer, "float32")

        def step(gradient, state, params):
            updates, state = tx.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        params, state = training.variables["params"], training.state
        stay = jax.tree.map(lambda x: x.sharding, (params, state))
        compiled = jax.jit(step, out_shardings=stay)
        text = compiled.lower(params, state, params).compile().as_text()
    return text, params


def divided(params, axis):
    """How many weights are divided along axes of this kind."""
    specs = [
        (*x.sharding.spec, *[None] * (x.ndim - len(x.sharding.spec)))
        for x in jax.tree.leaves(params)
        if x.ndim > 1
    ]
    kinds = {"outputs": slice(-1, None), "fan_in": slice(-1)}
    return sum(any(spec[kinds[axis]]) for spec in specs)


@pytest.mark.parametrize("optimizer", ["psi_sgd", "psi_adam", "rotational"])
@pytest.mark.parametrize("sizes", [{"fsdp": 8}, {"model": 8}])
def test_a_step_on_whole_groups_sends_nothing(sizes, optimizer):
    text, params = update(make_layout(sizes), "mlp", optimizer)
    assert divided(params, "outputs") == 3
    assert collectives(text)[0] == []


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("optimizer", ["psi_sgd", "psi_adam"])
def test_a_step_on_parts_of_groups_sends_sums_of_groups(model, optimizer):
    layout = make_layout({"fsdp": 4, "model": 2})
    text, params = update(layout, model, optimizer)
    parts = divided(params, "fan_in")
    assert parts == {"mlp": 3, "cnn": 2}[model]
    kinds, sizes = collectives(text)
    assert set(kinds) == {"all-reduce"}
    # One number a group, of which a device has half along `model`.
    widths = {16 // 2, 24 // 2} if model == "mlp" else {16 // 2}
    assert set(sizes) == widths
    # One for each part that has groups, and one more: the head has none.
    assert len(kinds) <= parts


def test_a_step_of_gathered_weights_would_be_seen():
    layout = make_layout({"fsdp": 8})

    with jax.set_mesh(layout.mesh):
        training, tx = begin(layout, "mlp", "psi_sgd", "float32")
        params = training.variables["params"]

        everywhere = layout.everywhere, None
        compiled = jax.jit(tx.update, out_shardings=everywhere)
        text = compiled.lower(params, training.state, params).compile()
    assert "all-gather" in collectives(text.as_text())[0]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Run the program on small images, in float32."""
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path))
    write_images(tmp_path)
    settings = ["--data", "imagenet", "--model", "mlp", "--batch", "80"]
    settings += ["--schedule", "constant", "--rate", "0.02"]

    def trained(out, epochs, more):
        out = tmp_path / out
        every = [*settings, "--epochs", str(epochs), "--out", str(out)]
        program.main([*every, *more.split()])
        return records.read(out)

    return trained


def test_a_run_goes_on_on_other_devices(trained):
    whole = trained("whole", 2, "--mesh.data 1")
    trained("moved", 1, "--mesh.data 4 --mesh.model 2")
    explicit = "--mesh.data 2 --mesh.fsdp 4 --mesh.axes explicit"
    moved = trained("moved", 2, f"{explicit} --resume")
    for line, expected in zip(moved, whole, strict=True):
        assert line["epoch"] == expected["epoch"]
        for name in ("train_loss", "test_loss"):
            # 4 steps, each of 8 roundings of 1.2e-7, grown tenfold at most.
            assert line[name] == pytest.approx(expected[name], rel=4e-5)
    # A run that began anew would have the first epoch's losses, nearly.
    first, second = (line["train_loss"] for line in whole)
    assert second < 0.99 * first


def test_devices_that_no_mesh_has_are_an_error():
    with pytest.raises(ValueError, match="8, is no multiple of 3"):
        make_layout({"model": 3})
    assert make_layout({"data": 2, "model": 3}).mesh.size == 6
