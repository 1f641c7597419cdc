"""Learners on a mesh that average weights: decentralized training."""

import jax
import numpy as np
import pytest

from benchmarks.train import __main__ as program, learners, records, run
from benchmarks.train.layout import make_layout
from psi_optax import geometry
from psi_optax.groups import make_plan
from tests.compilation import all_quick
from tests.devices.test_train_layout import (
    IMAGE,
    MODELS,
    STEPS,
    batch,
    begin,
    kernel_groups,
)
from tests.generated import write_images

pytestmark = pytest.mark.usefixtures("optax_promotion")

COUNT = 8


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """Programs that run for a moment need not be fast."""
    with all_quick():
        yield


def groups_of(model):
    image = jax.ShapeDtypeStruct((1, *IMAGE), np.float32)
    return kernel_groups(MODELS[model], image).groups


def trained(model, optimizer, averaging, groups=None, steps=STEPS):
    """The weights of the learners in the end."""
    layout = make_layout({"data": COUNT})
    with jax.set_mesh(layout.mesh):
        training, tx = begin(layout, model, optimizer)
        tx = learners.chain(tx, averaging, groups)
        params = training.variables["params"]
        training = training._replace(state=layout.init(tx, params))
        training = learners.copy_to_each(training, layout)
        update = learners.update_each(run.global_update)
        step = run.make_step(MODELS[model], tx, layout, training, update)
        data = [layout.put(x.shape, x.__getitem__) for x in batch()]
        for _ in range(steps):
            training, _ = step(training, *data)
        assert step._cache_size() == 1
    return jax.device_get(training.variables["params"])


def norms(params, groups):
    """Norms of all groups."""
    plan = make_plan(groups, params)
    found = geometry.norm(plan, plan.select(params))
    return np.concatenate([np.ravel(x) for x in found.values()])


def spread(params):
    """The largest distance of two learners' weights."""
    return max(np.ptp(x, axis=0).max() for x in jax.tree.leaves(params))


def together(steps):
    """The weights after steps by the gradient of the whole batch."""
    layout = make_layout({"data": 1})
    with jax.set_mesh(layout.mesh):
        training, tx = begin(layout, "vit", "sgd")
        step = run.make_step(MODELS["vit"], tx, layout, training)
        data = [layout.put(x.shape, x.__getitem__) for x in batch()]
        for _ in range(steps):
            training, _ = step(training, *data)
    return jax.device_get(training.variables["params"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("averaging", ["ring", "all"])
def test_the_mean_of_a_step_is_that_of_gradients(averaging):
    # Before the first step all weights are equal. The network has no statistics
    # of a batch; parts of it are computed in float32.
    for steps in (1, STEPS):
        params = trained("vit", "sgd", averaging, steps=steps)
        means = jax.tree.map(lambda x: x.mean(0), params)
        errors = jax.tree.map(
            lambda x, y: np.abs(x - y).max(), means, together(steps)
        )
        error = max(jax.tree.leaves(errors))
        # Later each gradient is that of a learner's own weights.
        assert error < 1e-7 if steps == 1 else error > 1e-6


@pytest.mark.usefixtures("x64")
def test_learners_of_a_ring_are_further_apart():
    ring, average = (trained("vit", "sgd", x) for x in ("ring", "all"))
    assert spread(ring) > spread(average) > 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("averaging", ["ring", "all"])
def test_groups_stay_on_their_spheres(averaging):
    groups = groups_of("mlp")
    layout = make_layout({"data": 1})
    with jax.set_mesh(layout.mesh):
        start = begin(layout, "mlp", "psi_sgd")[0].variables["params"]
    first = norms(jax.device_get(start), groups)
    kept, lost = (
        np.array(
            [
                norms(jax.tree.map(lambda x: x[i], params), groups)  # noqa: B023
                for i in range(COUNT)
            ]
        )
        for params in (
            trained("mlp", "psi_sgd", averaging, groups),
            trained("mlp", "psi_sgd", averaging, None),
        )
    )
    # A rounding of the last step, of each weight.
    assert np.abs(kept / first - 1).max() < 1e-14
    # An average of weights that are apart is shorter.
    assert np.abs(lost / first - 1).max() > 1e-6


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Run the program on small images, in float32."""
    monkeypatch.setenv("PSI_OPTAX_DATA", str(tmp_path))
    write_images(tmp_path)
    settings = ["--data", "imagenet", "--model", "mlp", "--batch", "80"]
    settings += ["--schedule", "constant", "--rate", "0.02"]

    def train(out, epochs, *more):
        every = [*settings, "--epochs", str(epochs)]
        program.main([*every, "--out", str(tmp_path / out), *more])
        names = "epoch", "train_loss", "test_loss", "test_accuracy"
        return [
            {name: line[name] for name in names}
            for line in records.read(tmp_path / out)
        ]

    return train


def test_a_run_of_learners_goes_on_to_the_same_bits(train, capsys):
    ring = "--averaging", "ring"
    whole = train("whole", 2, *ring)
    assert whole[1]["train_loss"] < whole[0]["train_loss"]
    train("stopped", 1, *ring)
    assert train("stopped", 2, "--resume", *ring) == whole
    with pytest.raises(SystemExit):
        train("stopped", 3, "--resume", *ring, "--mesh.data", "4")
    assert "as many devices as before" in capsys.readouterr().err
    # Gradients of one batch, or an average of all, make another run.
    assert train("all", 2, "--averaging", "all") != whole


REFUSED = {
    "--mesh.data 2": "--mesh.data 3 or more, not 2",
    "--mesh.data 4 --mesh.fsdp 2": "say no --mesh.fsdp",
    "--mesh.axes explicit": "say --mesh.axes auto",
}


@pytest.mark.parametrize("more", REFUSED)
def test_devices_that_are_no_learners(train, capsys, more):
    with pytest.raises(SystemExit):
        train("refused", 1, "--averaging", "ring", *more.split())
    assert REFUSED[more] in capsys.readouterr().err
