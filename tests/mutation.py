"""Deliberate faults, each of which the fast tests must notice.

    python -m tests.mutation            all of them
    python -m tests.mutation radius     those whose description has "radius"

Each fault is one replacement in one file of a copy of the package. A fault that
the tests let pass is printed, and makes the exit status 1.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
FAST = [
    "tests/geometry",
    "tests/groups",
    "tests/transforms",
    "tests/diagnostics",
    "tests/test_optimizers.py",
]


OPTIONS = ["-x", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]


class Fault(NamedTuple):
    """One wrong line."""

    what: str
    file: str
    right: str
    wrong: str

    def apply(self, file: pathlib.Path) -> str:
        """The text of the file with the fault in it."""
        text = file.read_text()
        if text.count(self.right) != 1:
            raise ValueError(f"{self.what}: its line is not in {self.file}")
        return text.replace(self.right, self.wrong)


FAULTS = [
    Fault(
        "sum: a blocked axis is summed whole",
        "geometry/reductions.py",
        "position // max(length // count, 1) == block",
        "position // max(length // count, 1) >= block",
    ),
    Fault(
        "sum: blocks are interleaved",
        "geometry/reductions.py",
        "position // max(length // count, 1) == block",
        "position % count == block",
    ),
    Fault(
        "sum: float16 accumulates in itself",
        "geometry/reductions.py",
        "jnp.float64 if wide else jnp.float32",
        "jnp.float64 if wide else dtype",
    ),
    Fault(
        "step: the rounding of a sum passes into the weights",
        "geometry/step.py",
        "_GAIN = 0.25",
        "_GAIN = 1.0",
    ),
    Fault(
        "step: rounding of the weights is never corrected",
        "geometry/step.py",
        "_GAIN = 0.25",
        "_GAIN = 0.0",
    ),
    Fault(
        "norm: missing square root",
        "geometry/maps.py",
        "return jax.tree.map(safe_sqrt, groups.dot(w, w))",
        "return groups.dot(w, w)",
    ),
    Fault(
        "norm: root of zero has no finite derivative",
        "geometry/maps.py",
        "return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))",
        "return jnp.sqrt(x)",
    ),
    Fault(
        "tangent: wrong sign of the radial part",
        "geometry/maps.py",
        "widen(x) - q * widen(y), u, w",
        "widen(x) + q * widen(y), u, w",
    ),
    Fault(
        "tangent: divided by the norm and not by its square",
        "geometry/maps.py",
        "safe_divide, groups.dot(w, u), groups.dot(w, w))",
        "safe_divide, groups.dot(w, u), norm(groups, w))",
    ),
    Fault(
        "retract: a group of norm zero moves",
        "geometry/maps.py",
        "return (still | (norm == 0)).astype(norm.dtype)",
        "return still.astype(norm.dtype)",
    ),
    Fault(
        "retract: no rule for a zero step",
        "geometry/maps.py",
        "still = (step == 0) & (off <= ON_SPHERE)",
        "still = (step == 0) & (off < 0)",
    ),
    Fault(
        "retract: a zero step is never brought home",
        "geometry/maps.py",
        "still = (step == 0) & (off <= ON_SPHERE)",
        "still = step == 0",
    ),
    Fault(
        "displacement: rounded after the difference",
        "geometry/maps.py",
        "target[path].astype(x.dtype) - x",
        "(target[path] - widen(x)).astype(x.dtype)",
    ),
    Fault(
        "transport: the wrong way round",
        "geometry/maps.py",
        "safe_divide(-q * jnp.sin(a), r)",
        "safe_divide(q * jnp.sin(a), r)",
    ),
    Fault(
        "angle: measured against the change and not the new weights",
        "geometry/maps.py",
        "lambda r, q: r + safe_divide(q, r)",
        "lambda r, q: safe_divide(q, r)",
    ),
    Fault(
        "step: the radial part is kept",
        "geometry/step.py",
        "excess + ratio * fall - ratio * (rate * along) * reach",
        "excess + ratio * fall",
    ),
    Fault(
        "step: angle from the whole step and not its tangent part",
        "geometry/step.py",
        "jnp.maximum(length - along * along, 0)",
        "length",
    ),
    Fault(
        "step: the rate is missing in the angle",
        "geometry/step.py",
        "q = rate * rate * jnp",
        "q = rate * jnp",
    ),
    Fault(
        "step: wrong power of the radius",
        "geometry/step.py",
        "return alpha, rate * (ratio * s) * reach",
        "return alpha, rate * ratio * reach",
    ),
    Fault(
        "step: exponential with the sine of half the angle once",
        "geometry/step.py",
        "return -2 * jnp.sin(angle / 2) ** 2, sinc",
        "return -jnp.sin(angle / 2) ** 2, sinc",
    ),
    Fault(
        "step: no guard where the direction is not finite",
        "geometry/step.py",
        "jnp.where(square == 0, 0, change)",
        "change",
    ),
    Fault(
        "step: a group of one element has a tangent",
        "groups/plan.py",
        "if n == 1",
        "if n == -1",
    ),
    Fault(
        "plan: missing tie",
        "groups/plan.py",
        "part if before is None else before + part",
        "part",
    ),
    Fault(
        "plan: ties are summed in the narrowest precision",
        "groups/plan.py",
        "total[leaf.name] = part if",
        "part = part.astype(jnp.float32).astype(part.dtype)\n"
        "            total[leaf.name] = part if",
    ),
    Fault(
        "plan: any statement whose path begins alike covers",
        "groups/paths.py",
        'path.startswith(prefix + "/")',
        "path.startswith(prefix)",
    ),
    Fault(
        "plan: NNX's value is kept in the path",
        "groups/paths.py",
        "children[path[:-1]] == 1",
        "children[path[:-1]] == 0",
    ),
    Fault(
        "plan: a field called value is dropped beside others",
        "groups/paths.py",
        "children[path[:-1]] == 1",
        "children[path[:-1]] >= 1",
    ),
    Fault(
        "plan: a rule forgets what a mask hides",
        "groups/rules.py",
        "return {path: group for path, (_, group) in matched.items()}",
        "return {e.path: matched[e.path][1] for e in found if not e.is_hole}",
    ),
    Fault(
        "retract: what overflows becomes zero",
        "geometry/maps.py",
        "jnp.where(jnp.isinf(norm), jnp.nan, safe_divide(radius, norm))",
        "safe_divide(radius, norm)",
    ),
    Fault(
        "state: radii of any shape are accepted",
        "transforms/base.py",
        "if shapes != plan.group_shapes:",
        "if set(shapes) != set(plan.group_shapes):",
    ),
    Fault(
        "rules: a pattern matches anywhere",
        "groups/rules.py",
        "any(p.fullmatch(path) for p in patterns)",
        "any(p.search(path) for p in patterns)",
    ),
    Fault(
        "output_channels: the output axis is the group's",
        "groups/rules.py",
        "if i not in kept)",
        "if i in kept)",
    ),
    Fault(
        "retract: stale radius, the norm at each step",
        "transforms/base.py",
        "    return have\n",
        "    return norm(plan, w)\n",
    ),
    Fault(
        "rescale: one step late",
        "transforms/rescaling.py",
        "now = jnp.mod(count,",
        "now = jnp.mod(state.count,",
    ),
    Fault(
        "clip: shortens what is within the bound",
        "transforms/scaling.py",
        "n <= jnp.asarray(max_norm, n.dtype)",
        "n < 0",
    ),
    Fault(
        "retract: exponential takes the update for an angle",
        "geometry/step.py",
        "lambda s: safe_divide(s.dtype.type(1), s)",
        "lambda s: s / s",
    ),
    Fault(
        "psi: the gradient is not scaled",
        "optimizers/psi.py",
        "like(geometry.scale(plan, g, norms), g)",
        "g",
    ),
    Fault(
        "psi: the inner optimizer sees weights and not directions",
        "optimizers/psi.py",
        "            plan.merge(params, _directions(plan, w, norms)),\n",
        "            params,\n",
    ),
    Fault(
        "psi: ordinary parameters get no rate",
        "optimizers/psi.py",
        "if learning_rate is not None and ordinary is None:",
        "if False:",
    ),
    Fault(
        "psi: schedules stand still",
        "optimizers/psi.py",
        "rate = additive_rate(learning_rate, state.count)\n        moved",
        "rate = additive_rate(learning_rate, 0 * state.count)\n        moved",
    ),
    Fault(
        "psi_sgdm: the buffer is not rescaled with the weights",
        "optimizers/sgdm.py",
        "buffer = _rescaled_with_weights(plan, w, u, target)",
        "buffer = u",
    ),
    Fault(
        "psi_sgdm: one power of the radius is missing",
        "optimizers/sgdm.py",
        "geometry.scale(plan, geometry.scale(plan, g, r), r)",
        "geometry.scale(plan, g, r)",
    ),
    Fault(
        "psi_adam: decay acts on groups",
        "optimizers/recipes.py",
        'label == "ordinary"',
        'label != "ordinary"',
    ),
]


def survives(fault: Fault) -> bool:
    """Whether the fast tests pass in spite of the fault."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for name in ["psi_optax", "tests"]:
            shutil.copytree(ROOT / name, copy / name)
        shutil.copy(ROOT / "pyproject.toml", copy)
        file = copy / "psi_optax" / fault.file
        file.write_text(fault.apply(file))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, *FAST],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{fault.what}: pytest failed\n{done.stdout}")
    last = [x for x in done.stdout.splitlines() if x.startswith("FAILED")]
    where = last[0].removeprefix("FAILED ") if last else "NOT NOTICED"
    print(f"{fault.what}: {where.split(' - ')[0]}", flush=True)
    return done.returncode == 0


def main(words: list[str]) -> int:
    """Tries every fault; returns how many were not noticed."""
    chosen = [f for f in FAULTS if all(word in f.what for word in words)]
    for fault in chosen:
        fault.apply(ROOT / "psi_optax" / fault.file)
    with ThreadPoolExecutor(2) as pool:
        alive = sum(pool.map(survives, chosen))
    print(f"{len(chosen) - alive} of {len(chosen)} faults were noticed")
    return alive


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
