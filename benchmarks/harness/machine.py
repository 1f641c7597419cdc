"""Versions of packages and the machine, recorded beside all numbers."""

import importlib.metadata
import os
import pathlib
import platform
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages.

    Examples:
        >>> sorted(versions())[:3]
        ['flax', 'jax', 'jaxlib']
    """
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def machine() -> dict[str, Any]:
    """Return the device and the processor, on which times depend."""
    return {
        "platform": jax.default_backend(),
        "device": device(),
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
    }


def give_threads(devices: int) -> None:
    """Give XLA threads for virtual CPU devices, before JAX looks for devices.

    A device that waits for others in an all-reduce keeps its thread: with few
    threads two programs in flight wait for each other for ever.

    Args:
        devices: number of virtual CPU devices.
    """
    threads = max(4 * devices, os.cpu_count() or 1)
    os.environ.setdefault("NPROC", str(threads))


def device() -> str:
    """Return the name of the accelerator, or of the processor."""
    kind = jax.devices()[0].device_kind
    about = pathlib.Path("/proc/cpuinfo")
    if kind == "cpu" and about.exists():
        for line in about.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return kind
