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


def draw(seed, dtype="float32"):
    """A tree of the above shapes: parameters, gradients or updates."""
    random = np.random.RandomState(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), dtype),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


class Entry(NamedTuple):
    """A public transform with all arguments but its groups.

    Attributes:
        factory: the public function.
        kwargs: its other arguments.
        needs_params: whether `update` needs params.
        trees: how many trees like params the state holds.
        promotes: whether there is an Adam of optax's in it, which needs JAX's
            standard promotion of dtypes.
    """

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    kwargs: dict[str, Any]
    needs_params: bool = True
    trees: int = 0
    promotes: bool = False

    def build(self, groups=GROUPS):
        """The transform."""
        return self.factory(groups=groups, **self.kwargs)


ENTRIES = {
    "scale_by_group_norm": Entry(psi_optax.scale_by_group_norm, {}),
    "project_to_tangent": Entry(psi_optax.project_to_tangent, {}),
    "retract": Entry(psi_optax.retract, {}),
    "retract_exponential": Entry(
        psi_optax.retract, {"radius": None, "retraction": "exponential"}
    ),
    "retract_number": Entry(psi_optax.retract, {"radius": 2.0}),
    "rescale_weights": Entry(
        psi_optax.rescale_weights, {"radius": 1.5, "every": 2}
    ),
    "clip_by_group_norm": Entry(
        psi_optax.clip_by_group_norm, {"max_norm": 0.5}, needs_params=False
    ),
    "psi": Entry(
        psi_optax.psi, {"inner": optax.sgd(0.1, momentum=0.9)}, trees=1
    ),
    "psi_ordinary": Entry(
        psi_optax.psi,
        {
            "inner": optax.trace(0.9),
            "learning_rate": 0.1,
            "ordinary": optax.adam(0.1),
            "radius": 2.0,
            "retraction": "exponential",
        },
        trees=3,
        promotes=True,
    ),
    "psi_additive": Entry(
        psi_optax.psi, {"inner": optax.sgd(0.1), "retraction": None}
    ),
    "psi_sgd": Entry(
        psi_optax.psi_sgd,
        {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
        trees=1,
    ),
    "psi_adam": Entry(
        psi_optax.psi_adam,
        {"learning_rate": 0.1, "weight_decay": 0.01},
        trees=2,
        promotes=True,
    ),
    "psi_sgdm": Entry(psi_optax.psi_sgdm, {"learning_rate": 0.1}, trees=1),
    "psi_sgdm_additive": Entry(
        psi_optax.psi_sgdm,
        {"learning_rate": 0.1, "momentum": 0.5, "retraction": None},
        trees=1,
    ),
}


def public_functions():
    """The functions that users of the package see, by name."""
    return {
        name: item
        for name, item in vars(psi_optax).items()
        if inspect.isfunction(item) and not name.startswith("_")
    }


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
