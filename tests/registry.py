"""Every public transform, and how to build it: what the contract suite runs on.

A new public function that returns a gradient transformation needs an entry
here; a test fails for one that has none.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import psi_optax
from psi_optax import ScaleGroup
from psi_optax.transforms.floating import is_inexact

# A kernel tied to its bias column by column, blocks of columns, a group that
# is a whole leaf, and ordinary parameters.
GROUPS = {
    "hidden/kernel": ScaleGroup(axes=0, tie="hidden"),
    "hidden/bias": ScaleGroup(axes=(), tie="hidden"),
    "blocks": ScaleGroup(axes=(0, 1), blocks={1: 2}),
    "vector": ScaleGroup(axes=0),
    "head": None,
}
SHAPES = {
    "hidden": {"kernel": (6, 4), "bias": (4,)},
    "blocks": (3, 8),
    "vector": (5,),
    "head": {"kernel": (4, 2), "bias": (2,)},
}


def normal(seed, shapes):
    """A tree of normal numbers of these shapes."""
    random = np.random.RandomState(seed)
    return jax.tree.map(
        lambda shape: random.normal(size=shape),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def draw(seed, dtype="float32"):
    """A tree of the above shapes: parameters, gradients or updates."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), normal(seed, SHAPES))


def alone(tx):
    """The transform by itself."""
    return tx


def with_gradients(tx):
    """The transform with a gradient function, and other arguments as given."""

    def cosine(x):
        return jnp.cos(x) if is_inexact(x) else x

    def grad_fn(params, i):
        del i
        return jax.tree.map(cosine, params)

    def update(updates, state, params=None, **extra_args):
        return tx.update(
            updates, state, params, **{"grad_fn": grad_fn, **extra_args}
        )

    return optax.GradientTransformationExtraArgs(tx.init, update)


def as_first_of_three(tx):
    """The first of three learners, whose weights are one, two and three w."""

    def update(updates, state, params=None, **extra_args):
        def times(x, j):
            return (
                x * (1 + j).astype(jnp.result_type(x)) if is_inexact(x) else x
            )

        def learner(j):
            own = jax.tree.map(lambda x: times(x, j), params)
            found, _ = tx.update(updates, state, own, **extra_args)
            leaves, rest = jax.tree.flatten(found)
            # What is no array, such as a gradient of float0, has no axis.
            others.append((leaves, rest))
            return [x for x in leaves if isinstance(x, jax.Array)]

        others = []
        arrays = jax.vmap(learner, axis_name="learners")(jnp.arange(3))
        leaves, rest = others[-1]
        arrays = iter(arrays)
        first = [
            next(arrays)[0] if isinstance(x, jax.Array) else x for x in leaves
        ]
        return jax.tree.unflatten(rest, first), state

    return optax.GradientTransformationExtraArgs(tx.init, update)


class Entry(NamedTuple):
    """A public transform with all arguments but its groups.

    Attributes:
        factory: the public function.
        kwargs: its other arguments.
        needs_params: whether `update` needs params.
        trees: how many trees like params the state holds.
        promotes: whether there is an Adam of optax's in it, which needs JAX's
            standard promotion of dtypes.
        takes_groups: whether it has an argument `groups`.
        by_leaf: whether parameters of several dtypes are each kept in theirs
            while hyperparameters are injected; not by what is around
            optax.trace and optax.scale_by_adam, which promote a bfloat16 leaf,
            state included, when their decay is a float32 array.
        idle: the grouped leaves whose updates it does not change.
        whole: whether optax compiles a part of it for the whole tree at once,
            so that what stands beside a leaf changes how it is rounded.
        per_tensor: whether all groups of a parameter are one.
        multiplies: whether it multiplies matrices, and is meant to.
        joint: whether all parameters have one norm, so that a fault of one
            group is everybody's.
        random: whether it draws a number for each weight.
        around: gives the transform what its `update` needs beside params.
    """

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    kwargs: dict[str, Any]
    needs_params: bool = True
    trees: int = 0
    promotes: bool = False
    takes_groups: bool = True
    by_leaf: bool = True
    idle: tuple[str, ...] = ()
    whole: bool = False
    per_tensor: bool = False
    multiplies: bool = False
    joint: bool = False
    random: bool = False
    around: Callable[[Any], Any] = alone

    def arguments(self, groups=GROUPS):
        """All arguments, by name."""
        return {
            **self.kwargs,
            **({"groups": groups} if self.takes_groups else {}),
        }

    def build(self, groups=GROUPS):
        """The transform."""
        return self.around(self.factory(**self.arguments(groups)))

    def injected(self):
        """The transform, with its numbers as arrays in the state."""
        make = optax.inject_hyperparams(self.factory)
        return self.around(make(**self.arguments()))


ENTRIES = {
    "scale_by_group_norm": Entry(psi_optax.transforms.scale_by_group_norm, {}),
    "project_to_tangent": Entry(psi_optax.transforms.project_to_tangent, {}),
    "retract": Entry(psi_optax.transforms.retract, {}),
    "retract_exponential": Entry(
        psi_optax.transforms.retract,
        {"radius": None, "retraction": "exponential"},
    ),
    "retract_number": Entry(psi_optax.transforms.retract, {"radius": 2.0}),
    "rescale_weights": Entry(
        psi_optax.transforms.rescale_weights, {"radius": 1.5, "every": 2}
    ),
    "clip_by_group_norm": Entry(
        psi_optax.transforms.clip_by_group_norm,
        {"max_norm": 0.5},
        needs_params=False,
    ),
    "psi": Entry(
        psi_optax.psi, {"optimizer": optax.sgd(0.1, momentum=0.9)}, trees=1
    ),
    "psi_direction": Entry(
        psi_optax.psi_direction,
        {"learning_rate": 0.1, "direction": optax.trace(0.9)},
        trees=1,
    ),
    "psi_ordinary": Entry(
        psi_optax.psi_direction,
        {
            "learning_rate": 0.1,
            "direction": optax.trace(0.9),
            "ordinary": optax.adam(0.1),
            "radius": 2.0,
            "retraction": "exponential",
        },
        trees=3,
        promotes=True,
    ),
    "psi_additive": Entry(
        psi_optax.psi, {"optimizer": optax.sgd(0.1), "retraction": None}
    ),
    "psi_whole": Entry(
        psi_optax.psi, {"optimizer": optax.sgd(0.1), "tangent": False}
    ),
    "psi_sgd": Entry(
        psi_optax.psi_sgd,
        {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
        trees=1,
        by_leaf=False,
    ),
    "psi_adam": Entry(
        psi_optax.psi_adam,
        {"learning_rate": 0.01, "weight_decay": 0.01},
        trees=2,
        promotes=True,
        by_leaf=False,
    ),
    "psi_sgdm": Entry(psi_optax.psi_sgdm, {"learning_rate": 0.1}, trees=1),
    "psi_sgdm_additive": Entry(
        psi_optax.psi_sgdm,
        {"learning_rate": 0.1, "momentum": 0.5, "retraction": None},
        trees=1,
    ),
    "project_to_tangent_centered": Entry(
        psi_optax.transforms.project_to_tangent, {"centered": True}
    ),
    "project_to_zero_mean": Entry(
        psi_optax.transforms.project_to_zero_mean, {}
    ),
    "normalize_by_group_norm": Entry(
        psi_optax.transforms.normalize_by_group_norm, {}, needs_params=False
    ),
    "add_decayed_weights": Entry(
        psi_optax.transforms.add_decayed_weights,
        {"weight_decay": 0.1, "of": "scale"},
        by_leaf=False,
    ),
    "add_orthogonality": Entry(
        psi_optax.transforms.add_orthogonality,
        {"strength": 0.5},
        idle=("vector",),
        multiplies=True,
    ),
    "transported_trace": Entry(
        psi_optax.transforms.transported_trace,
        {"decay": 0.9, "nesterov": True},
        trees=1,
    ),
    "transported_trace_parallel": Entry(
        psi_optax.transforms.transported_trace,
        {"decay": 0.9, "transport": "parallel"},
        trees=2,
    ),
    "scale_by_group_rms": Entry(
        psi_optax.transforms.scale_by_group_rms,
        {"decay": 0.9},
        needs_params=False,
    ),
    "scale_by_group_adam": Entry(
        psi_optax.transforms.scale_by_group_adam,
        {"transport": "projection"},
        trees=3,
        promotes=True,
        by_leaf=False,
    ),
    "relative_ascent": Entry(
        psi_optax.transforms.relative_ascent, {"rho": 0.5}, joint=True
    ),
    "mix_with_neighbors": Entry(
        psi_optax.transforms.mix_with_neighbors,
        {"axis_name": "learners"},
        takes_groups=False,
        around=as_first_of_three,
    ),
    "perturb_weights": Entry(
        psi_optax.wrappers.perturb_weights,
        {
            "optimizer": optax.sgd(0.1, momentum=0.9),
            "sigma": 0.1,
            "key": 0,
            "ordinary_sigma": 0.1,
        },
        trees=2,
        random=True,
    ),
    "local_entropy": Entry(
        psi_optax.wrappers.local_entropy,
        {"gamma": 0.5, "steps": 3, "rate": 0.1, "noise": 0.1, "key": 0},
        random=True,
        around=with_gradients,
    ),
    "project_by_cosine": Entry(
        psi_optax.wrappers.project_by_cosine,
        {"direction": optax.trace(0.9), "weight_decay": 0.1},
        trees=1,
        takes_groups=False,
    ),
    "stochastic_rounding": Entry(
        psi_optax.wrappers.stochastic_rounding,
        {"optimizer": optax.sgd(0.1, momentum=0.9), "key": 0},
        trees=1,
        takes_groups=False,
    ),
    "master_weights": Entry(
        psi_optax.wrappers.master_weights,
        {"optimizer": optax.sgd(0.1, momentum=0.9)},
        trees=2,
        takes_groups=False,
    ),
    "average_weights": Entry(
        psi_optax.wrappers.average_weights,
        {"decay": 0.5},
        trees=1,
        takes_groups=False,
        idle=("blocks", "vector", "hidden"),
    ),
    "monitor_groups": Entry(
        psi_optax.diagnostics.monitor_groups,
        {"learning_rate": 0.1, "degree": 1},
        idle=("blocks", "vector", "hidden"),
    ),
    "weight_rescaling": Entry(
        psi_optax.weight_rescaling,
        {
            "optimizer": optax.sgd(0.1, momentum=0.9),
            "radius": "init",
            "every": 2,
        },
        trees=1,
    ),
    "sgd_g": Entry(
        psi_optax.sgd_g, {"learning_rate": 0.1}, trees=2, by_leaf=False
    ),
    "adam_g": Entry(
        psi_optax.adam_g,
        {"learning_rate": 0.1},
        trees=3,
        promotes=True,
        by_leaf=False,
    ),
    "sgdp": Entry(
        psi_optax.sgdp,
        {"learning_rate": 0.1, "weight_decay": 0.01},
        trees=1,
        by_leaf=False,
    ),
    "adamp": Entry(
        psi_optax.adamp,
        {"learning_rate": 0.1, "weight_decay": 0.01},
        trees=2,
        promotes=True,
        by_leaf=False,
    ),
    "rotational": Entry(
        psi_optax.rotational,
        {
            "learning_rate": 0.1,
            "direction": optax.trace(0.9),
            "ordinary": optax.sgd(0.1),
        },
        trees=1,
    ),
    "hyperball": Entry(
        psi_optax.hyperball,
        {
            "learning_rate": 0.1,
            "direction": optax.trace(0.9),
            "ordinary": optax.sgd(0.1),
            "per_tensor": False,
            "equivariant": False,
        },
        trees=1,
        by_leaf=False,
    ),
    "adamh": Entry(
        psi_optax.adamh,
        {"learning_rate": 0.1, "ordinary": optax.adam(0.1)},
        per_tensor=True,
        trees=4,
        promotes=True,
        by_leaf=False,
    ),
    "muonh": Entry(
        psi_optax.muonh,
        {"learning_rate": 0.1, "ordinary": optax.adam(0.1)},
        whole=True,
        per_tensor=True,
        multiplies=True,
        trees=5,
        promotes=True,
        by_leaf=False,
    ),
}

# Every kind of state is in one of these.
KINDS = [
    *("scale_by_group_norm", "retract", "rescale_weights", "project_by_cosine"),
    *("transported_trace_parallel", "scale_by_group_rms"),
    *("scale_by_group_adam", "stochastic_rounding", "master_weights"),
    *(
        "perturb_weights",
        "local_entropy",
        "average_weights",
        "psi",
        "psi_ordinary",
        "psi_additive",
        "psi_adam",
    ),
    *("psi_sgdm", "monitor_groups", "hyperball", "muonh"),
]


# The modules whose names users import, the package itself first.
ROOMS = [
    psi_optax,
    psi_optax.transforms,
    psi_optax.wrappers,
    psi_optax.optimizers,
    psi_optax.reparametrize,
    psi_optax.initialize,
    psi_optax.diagnostics,
    psi_optax.dynamics,
    psi_optax.landscape,
    psi_optax.batch_stats,
]


def public_names():
    """Return the functions and classes that users import, by name."""
    return {
        name: item
        for module in ROOMS
        for name, item in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(item) or inspect.isclass(item))
        and (hasattr(module, "__path__") or item.__module__ == module.__name__)
    }


def public_functions():
    """Return the public functions, by name."""
    return {k: x for k, x in public_names().items() if inspect.isfunction(x)}


def public_transforms():
    """Those of them that say they return a gradient transformation."""
    kinds = (
        optax.GradientTransformation,
        optax.GradientTransformationExtraArgs,
    )
    return {
        name
        for name, function in public_functions().items()
        if inspect.signature(function).return_annotation in kinds
    }
