"""JAX's names that older admitted versions spell otherwise."""

import contextlib
from typing import Any

import jax
from jax.extend import core


def enable_x64(is_enabled: bool) -> contextlib.AbstractContextManager[None]:
    """Return a context with or without double precision."""
    # Until JAX 0.7: the function was experimental.
    if not hasattr(jax, "enable_x64"):
        return jax.experimental.enable_x64(is_enabled)  # pyrefly: ignore
    return jax.enable_x64(is_enabled)


def jaxprs_in_params(params: dict[str, Any]) -> list[Any]:
    """Return the programs among an equation's parameters."""
    # Until JAX 0.9: the function was in `jax.core`.
    if not hasattr(core, "jaxprs_in_params"):
        return list(jax.core.jaxprs_in_params(params))  # pyrefly: ignore
    return list(core.jaxprs_in_params(params))


def varying_axes(aval: Any) -> frozenset[str]:
    """Return the manual mesh axes over which an array of this type differs."""
    # Until JAX 0.9: the attribute was `vma`.
    if not hasattr(aval, "manual_axis_type"):
        return frozenset(aval.vma)
    return frozenset(aval.manual_axis_type.varying)


def manual_axes() -> tuple[str, ...]:
    """Return the names of the mesh axes that are manual here."""
    names = tuple(jax.sharding.get_abstract_mesh().manual_axes)
    # Until JAX 0.7: the axis of `pmap` was in no mesh. Those of `vmap` count.
    if not names and not hasattr(jax, "enable_x64"):
        return tuple(jax.core.unsafe_get_axis_names_DO_NOT_USE())  # pyrefly: ignore
    return names
