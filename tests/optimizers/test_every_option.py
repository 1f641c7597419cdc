"""Every option of every public transform does something.

Ignored options are silent: a recipe that forgets to pass one on trains well.
"""

import functools
import inspect

import jax
import numpy as np
import optax
import pytest

from tests.registry import (
    ENTRIES,
    GROUPS,
    draw,
    public_functions,
    public_transforms,
)
from tests.theory.training import lenient, step, walk

STEPS = 3
# Of the registry's tree: groups of two leaves, and ordinary parameters.
SHOWN = ("hidden", "head")
TRACE = optax.trace(0.9)

# What a transform cannot do without, and what makes the options of others
# matter: Nesterov needs momentum, a ratio of decays needs a decay, and a
# gradient is as good as its direction unless the norms change.
GIVEN = {
    "add_orthogonality": {"strength": 0.5},
    "add_decayed_weights": {"weight_decay": 0.1},
    "adamh": {"radius": 3.0, "ordinary": optax.sgd(0.1)},
    "adamp": {"weight_decay": 0.1},
    "average_weights": {"decay": 0.9},
    "clip_by_group_norm": {"max_norm": 0.5},
    "hyperball": {
        "direction": TRACE,
        "radius": 3.0,
        "ordinary": optax.sgd(0.1),
    },
    "local_entropy": ENTRIES["local_entropy"].kwargs,
    "master_weights": {"optimizer": optax.sgd(0.1)},
    "mix_with_neighbors": {"axis_name": "learners"},
    "monitor_groups": {"learning_rate": 0.1, "degree": 1},
    "muonh": {"radius": 3.0, "ordinary": optax.sgd(0.1)},
    "perturb_weights": ENTRIES["perturb_weights"].kwargs,
    "project_by_cosine": {
        "direction": TRACE,
        "weight_decay": 0.1,
        "delta": 100.0,
    },
    "psi": {"optimizer": optax.sgd(0.1, 0.9)},
    "psi_adam": {"learning_rate": 0.05},
    "psi_direction": {"learning_rate": 0.1, "direction": TRACE},
    "psi_sgd": {"momentum": 0.9},
    "relative_ascent": {"rho": 0.1},
    "rotational": {"direction": TRACE, "ordinary": optax.sgd(0.1)},
    "sgdp": {"weight_decay": 0.1},
    "stochastic_rounding": {"optimizer": optax.sgd(0.1), "key": 0},
    "weight_rescaling": {"optimizer": optax.sgd(0.1, 0.9)},
}
# Other values than those given and than the defaults.
OTHERS = {
    "average": [0.5],
    "b1": [0.5],
    "b2": [0.5],
    "centered": [True],
    "channels": ["first"],
    "decay": [0.5],
    "degree": [0],
    "delta": [1e-3],
    "eps": [0.3],
    "eps_root": [0.3],
    "equivariant": [False],
    "every": [2],
    "gamma": [1.0],
    "key": [1],
    "learning_rate": [0.08],
    "max_norm": [0.01, None],
    "momentum": [0.5],
    "nesterov": [True],
    "noise": [0.2],
    "of": ["scale"],
    "ordinary": [optax.sgd(0.5)],
    "ordinary_sigma": [0.2],
    "per_tensor": [False],
    "radius": [2.0],
    "rate": [0.2],
    "retraction": [None, "exponential"],
    "rho": [0.2],
    "sigma": [0.2],
    "steps": [4],
    "strength": [0.2],
    "tangent": [False],
    "transport": ["parallel"],
    "wd_ratio": [0.5],
    "weights": [(0.25, 0.5, 0.25)],
    "weight_decay": [0.3],
}
REFUSED = {
    ("clip_by_group_norm", "max_norm", None),
    ("psi_sgdm", "retraction", "exponential"),
    ("retract", "retraction", None),
}
# Not options: what is wrapped, and what it is for; an axis is there or not. And
# what matters only from three axes on (test_controlled.py), or among several
# parameters with groups (test_perturb_weights.py).
LEFT_OUT = {
    "groups",
    "inner",
    "optimizer",
    "direction",
    "axis_name",
    "layers",
    "weight_dimension_numbers",
}


def signature(name):
    return inspect.signature(public_functions()[name]).parameters


def given(name):
    groups = {p: g for p, g in GROUPS.items() if p.startswith(SHOWN)}
    always = {"groups": groups, "learning_rate": 0.1}
    needed = {k: v for k, v in always.items() if k in signature(name)}
    return needed | GIVEN.get(name, {})


def seen(name, **changed):
    """Weights after some steps and, of what leaves these alone, its state."""
    tx = public_functions()[name](**given(name) | changed)
    if name in ENTRIES:
        tx = ENTRIES[name].around(tx)
    tx = lenient(tx)
    # Stochastic rounding is for narrow weights.
    narrow = name == "stochastic_rounding"
    dtype = "bfloat16" if narrow else "float64"
    params, *gradients = (
        {k: x for k, x in draw(seed, dtype).items() if k in SHOWN}
        for seed in range(1 + STEPS)
    )
    path, state = walk(tx, params, gradients, move=step)
    found = state if name in ("average_weights", "monitor_groups") else path[-1]
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(found)]


plain = functools.cache(seen)

CASES = [
    (name, option, value)
    for name in sorted(public_transforms())
    for option in signature(name)
    if option not in LEFT_OUT
    for value in OTHERS.get(option, ["no other value is known"])
    if (name, option, value) not in REFUSED
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "option", "value"), CASES)
def test_the_option_has_an_effect(name, option, value):
    changed = seen(name, **{option: value})
    # Rounding is 1e-16 of numbers of about 1, options change much more.
    changes = [
        np.abs(x - y).max() for x, y in zip(plain(name), changed, strict=True)
    ]
    assert max(changes) > 1e-6
