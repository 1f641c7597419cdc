"""What has to hold in numbers of the verdicts on a loss."""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from psi_optax.groups import make_plan
from psi_optax.invariance import analysis
from psi_optax.invariance.tracing import trace_loss

SAME = 1e-9
# Weights moved by this much may move the loss by `SAME` / 10 at most: of what
# is rounding alone, nothing can be said.
NOISE = 1e-14


def analyse(loss, params, *args, **options):
    """Return the findings of the analysis alone, by path."""
    return analysis.analyse(trace_loss(loss, params, args), **options)


def site(reason):
    """Return the file and the line that a reason names, or None."""
    found = re.search(r"at ([\w.<>-]+):(\d+)", reason)
    return found and (found[1], int(found[2]))


def proved(verdicts):
    """Return the sets of groups that scale together, by path."""
    found = {}
    for path, verdict in verdicts.items():
        if verdict.bound < math.inf:
            continue  # What is clipped may be beyond it.
        if verdict.kind.startswith("proved"):
            key = verdict.group.tie or ("alone", path)
            found.setdefault(key, {})[path] = verdict.group
        elif verdict.kind == "inert" and "signs" in verdict.reason:
            found["signs", path] = {path: "elements"}
    return list(found.values())


def rescaled(params, groups, random):
    """Multiply each group by a random number."""
    scaled = dict(params)
    stated = {p: g for p, g in groups.items() if g != "elements"}
    for path in groups.keys() - stated.keys():
        shape = params[path].shape
        scaled[path] = params[path] * np.exp(random.uniform(-1, 1, shape))
    if stated:
        plan = make_plan({p: stated.get(p) for p in params}, params)
        factors = plan.broadcast(
            {
                name: jnp.asarray(np.exp(random.uniform(-1, 1, shape)))
                for name, shape in plan.group_shapes.items()
            }
        )
        for path in stated:
            scaled[path] = params[path] * factors[path]
    return scaled


def change(loss, params, other):
    before, after = float(loss(params)), float(loss(other))
    return abs(after - before) / max(abs(before), 1e-2)


def moved(params, random):
    """Change parameters by rounding alone."""
    return {
        path: w * (1 + NOISE * random.normal(size=w.shape))
        for path, w in params.items()
    }


def noise(loss, params, random):
    """Return the change of the loss when nothing but rounding changes."""
    found = change(loss, params, moved(params, random))
    return found if math.isfinite(found) else math.inf


def allowed(groups, verdicts):
    """Return the change that a recorded epsilon explains."""
    return SAME + 10 * max(verdicts[path].epsilon for path in groups)


def reached(loss, params, verdicts, *args):
    """Return the parameters that are said to be inert and have a gradient."""
    said = [p for p, v in verdicts.items() if v.kind == "inert"]
    if not said:
        return []
    traced = jax.jit(jax.grad(loss)).trace(params, *args)
    zeros = unused(traced.jaxpr, params)
    said = [p for p in said if p not in zeros]
    if not said:
        return []
    differentiate = traced.lower().compile()
    found = differentiate(params, *args)
    wrong = [p for p in said if np.max(np.abs(found[p])) > 1e-6]
    if not wrong:
        return []
    # Rounding that is divided by rounding differs from draw to draw; a mean of
    # equal numbers is right or off by one of it, so several draws are made.
    random = np.random.RandomState(0)
    jitted = jax.jit(loss)
    for _ in range(8):
        other = moved(params, random)
        if change(lambda p: jitted(p, *args), params, other) > SAME / 10:
            return []
        again = differentiate(other, *args)
        wrong = [
            p
            for p in wrong
            if np.allclose(again[p], found[p], rtol=1e-3, atol=1e-9)
        ]
    return wrong


def unused(program, params):
    """Return the parameters whose gradient is a zero of the program."""
    zeros = {
        equation.outvars[0]
        for equation in program.eqns
        if equation.primitive.name == "broadcast_in_dim"
        and isinstance(equation.invars[0], Literal)
        and equation.invars[0].val == 0
    }
    pairs = zip(sorted(params), program.jaxpr.outvars, strict=True)
    return {p for p, v in pairs if not isinstance(v, Literal) and v in zeros}


def broken(loss, params, verdicts, *variants):
    """Return the groups whose scales change a loss, and by how much.

    Variants are further arguments of the loss, each of which is tried.
    """
    sets = proved(verdicts)
    if not sets:
        return []
    random = np.random.RandomState(0)
    jitted = jax.jit(loss)
    together = {p: g for groups in sets for p, g in groups.items()}
    found = []
    tries = itertools.product(
        [*sets, together] if len(sets) > 1 else sets, variants or [()], range(2)
    )
    for groups, args, _ in tries:

        def value(p, args=args):
            return jitted(p, *args)

        other = rescaled(params, groups, random)
        grown = change(value, params, other)
        if grown <= allowed(groups, verdicts):
            continue
        rounding = [noise(value, p, random) for p in (params, other)]
        if max(rounding) > SAME / 10 or not math.isfinite(grown):
            continue
        found.append((groups, grown))
    return found
