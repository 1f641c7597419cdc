"""Faults that were thought of: wrong lines, each a mistake one could make."""

import pathlib
from typing import NamedTuple

from tests.mutation.structure import replaced


class Fault(NamedTuple):
    """One replacement in one file of the package.

    The code is found by its structure: its names may have been changed.

    Attributes:
        what: the mistake, in words.
        file: where, from psi_optax on.
        right: the code that stands there, in one place.
        wrong: the code that stands there instead.
    """

    what: str
    file: str
    right: str
    wrong: str

    def apply(self, package: pathlib.Path) -> str:
        """The text of the file with the fault in it.

        Raises:
            ValueError: the right code is not there, or is there twice.
        """
        text = (package / self.file).read_text()
        try:
            return replaced(text, self.right, self.wrong)
        except ValueError as error:
            raise ValueError(f"{self.what}: in {self.file} {error}") from None


FAULTS = [
    Fault(
        "sum: a blocked axis is summed whole",
        "groups/reductions.py",
        "position // max(length // count, 1) == block",
        "position // max(length // count, 1) >= block",
    ),
    Fault(
        "sum: blocks are interleaved",
        "groups/reductions.py",
        "position // max(length // count, 1) == block",
        "position % count == block",
    ),
    Fault(
        "sum: float16 accumulates in itself",
        "groups/reductions.py",
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
        "geometry/numerics.py",
        "return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))",
        "return jnp.sqrt(x)",
    ),
    Fault(
        "tangent: wrong sign of the radial part",
        "geometry/maps.py",
        "widen(x) - q * widen(y)",
        "widen(x) + q * widen(y)",
    ),
    Fault(
        "tangent: divided by the norm and not by its square",
        "geometry/maps.py",
        "safe_divide, groups.dot(w, u), groups.dot(w, w)",
        "safe_divide, groups.dot(w, u), norm(groups, w)",
    ),
    Fault(
        "step: no rule for a zero step",
        "geometry/step.py",
        "still & (off <= ON_SPHERE_TOLERANCE * s * total)",
        "still & (off < 0)",
    ),
    Fault(
        "step: a zero step is never brought home",
        "geometry/step.py",
        "still & (off <= ON_SPHERE_TOLERANCE * s * total)",
        "still",
    ),
    Fault(
        "retract: a radius far below the norm is taken in one step",
        "geometry/rounding.py",
        "jnp.maximum(radius, norm / ratio)",
        "radius",
    ),
    Fault(
        "retract: the finest dtype of a group counts",
        "geometry/rounding.py",
        "min(jnp.finfo(dtype).nmant + 1 for dtype in dtypes)",
        "max(jnp.finfo(dtype).nmant + 1 for dtype in dtypes)",
    ),
    Fault(
        "retract: a radius of zero is never reached",
        "geometry/rounding.py",
        "jnp.where(radius == 0, 0, jnp.maximum(radius, norm / ratio))",
        "jnp.where(radius < 0, 0, jnp.maximum(radius, norm / ratio))",
    ),
    Fault(
        "retract: the radial part of an update is dropped",
        "geometry/step.py",
        'tangent=retraction != "projection"',
        "tangent=True",
    ),
    Fault(
        "step: the derivative of a maximum at a zero step",
        "geometry/step.py",
        "replace_value(t_t, jnp.maximum(t_t, 0))",
        "jnp.maximum(t_t, 0)",
    ),
    Fault(
        "step: the gain of the gap is in its derivative",
        "geometry/step.py",
        "return replace_value(whole, gap) / total",
        "return gap / total",
    ),
    Fault(
        "step: exponential without the derivative of its cosine at zero",
        "geometry/step.py",
        "replace_value(jnp.where(near, near_fall, far_fall), fall)",
        "fall",
    ),
    Fault(
        "step: exponential without the derivative of its sine at zero",
        "geometry/step.py",
        "replace_value(jnp.where(near, near_sinc, far_sinc), sinc)",
        "sinc",
    ),
    Fault(
        "step: a sphere out of reach is landed on in one step",
        "geometry/step.py",
        "reached = reachable(radius, s, ratio)",
        "reached = radius",
    ),
    Fault(
        "psi_sgdm: the buffer follows the wrong coefficient",
        "optimizers/psi_sgdm.py",
        "return moved, geometry.scale(plan, u, beta)",
        "return moved, geometry.scale(plan, u, alpha)",
    ),
    Fault(
        "narrow: any weight that shrinks is limited, in any leaf",
        "wrappers/_low_precision.py",
        "jnp.where(falls & small, least, new)",
        "jnp.where(small, least, new)",
    ),
    Fault(
        "narrow: zero is never reached",
        "wrappers/_low_precision.py",
        "(new != 0) & (jnp.abs(new) < jnp.abs(least))",
        "jnp.abs(new) < jnp.abs(least)",
    ),
    Fault(
        "rounding: a leaf that falls far is drawn like any other",
        "wrappers/stochastic_rounding.py",
        "limit_shrinkage(w, wide + step.astype(jnp.float32))",
        "wide + step.astype(jnp.float32)",
    ),
    Fault(
        "master weights: a parameter that falls far becomes zero",
        "wrappers/master_weights.py",
        "target = limit_shrinkage(w, wide)",
        "target = wide",
    ),
    Fault(
        "displacement: rounded after the difference",
        "geometry/rounding.py",
        "target[path].astype(x.dtype) - x",
        "(target[path] - widen(x)).astype(x.dtype)",
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
        "gap + radius * (fall - p * reach)",
        "gap + radius * fall",
    ),
    Fault(
        "step: angle from the whole step and not its tangent part",
        "geometry/step.py",
        "t_t = length - v_d * v_d",
        "t_t = length",
    ),
    Fault(
        "step: the rate is missing in the angle",
        "geometry/step.py",
        "rate * rate * replace_value(t_t, jnp.maximum(t_t, 0))",
        "rate * replace_value(t_t, jnp.maximum(t_t, 0))",
    ),
    Fault(
        "step: wrong power of the radius",
        "geometry/step.py",
        "return (gap + radius * (fall - p * reach)) / s, rate * radius * reach",
        "return (gap + radius * (fall - p * reach)) / s, rate * reach",
    ),
    Fault(
        "step: exponential with the sine of half the angle once",
        "geometry/step.py",
        "return -2 * jnp.sin(angle / 2) ** 2, sinc",
        "return -1 * jnp.sin(angle / 2) ** 2, sinc",
    ),
    Fault(
        "step: no guard where the direction is not finite",
        "geometry/step.py",
        "jnp.where(square == 0, 0, change)",
        "change",
    ),
    Fault(
        "step: directions do not wait for each other",
        "geometry/_scheduling.py",
        "after(d[path], known)",
        "d[path]",
    ),
    Fault(
        "step: what waits is multiplied by what it waits for",
        "geometry/_scheduling.py",
        "jnp.any(done > 0).astype(x.dtype)",
        "jnp.max(done).astype(x.dtype)",
    ),
    Fault(
        "psi: momentum is copied to wait",
        "optimizers/psi.py",
        "sequential(plan, w, d, live=inner_state)",
        "sequential(plan, w, d)",
    ),
    Fault(
        "step: a group of one element has a tangent",
        "groups/plan.py",
        "frozenset(name for name, n in self.sizes.items() if n == 1)",
        "frozenset(name for name, n in self.sizes.items() if n == -1)",
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
        "total[leaf.name] = part if before is None else before + part",
        "part = part.astype(jnp.float32).astype(part.dtype)\n"
        "total[leaf.name] = part if before is None else before + part",
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
        "geometry/numerics.py",
        "jnp.where(jnp.isinf(y), jnp.nan, quotient)",
        "quotient",
    ),
    Fault(
        "state: radii of any shape are accepted",
        "transforms/states.py",
        "if shapes != plan.group_shapes:",
        "if set(shapes) != set(plan.group_shapes):",
    ),
    Fault(
        "rules: a pattern matches anywhere",
        "groups/rules.py",
        "return lambda path, _: pattern.fullmatch(path)",
        "return lambda path, _: pattern.search(path)",
    ),
    Fault(
        "output_channels: the output axis is the group's",
        "groups/rules.py",
        "tuple(i for i in range(len(shape)) if i not in kept)",
        "tuple(i for i in range(len(shape)) if i in kept)",
    ),
    Fault(
        "retract: stale radius, the norm at each step",
        "transforms/radius.py",
        "    return have\n",
        "    return norm(plan, w)\n",
    ),
    Fault(
        "rescale: one step late",
        "transforms/rescaling.py",
        "jnp.mod(count, jnp.asarray(every, jnp.int32))",
        "jnp.mod(state.count, jnp.asarray(every, jnp.int32))",
    ),
    Fault(
        "clip: shortens what is within the bound",
        "transforms/scaling.py",
        "jnp.where(norm <= bound, 1, factor)",
        "jnp.where(norm < 0, 1, factor)",
    ),
    Fault(
        "retract: exponential takes the update for an angle",
        "geometry/step.py",
        "safe_divide(jnp.ones_like(x), safe_sqrt(x))",
        "jnp.ones_like(x)",
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
        "_directions(plan, w, norms, params)",
        "params",
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
        "rate = signed_rate(learning_rate, state.count)",
        "rate = signed_rate(learning_rate, 0 * state.count)",
    ),
    Fault(
        "psi_sgdm: the buffer is not rescaled with the weights",
        "optimizers/psi_sgdm.py",
        "return moved, geometry.scale(plan, u, beta)",
        "return moved, u",
    ),
    Fault(
        "psi_sgdm: one power of the radius is missing",
        "optimizers/psi_sgdm.py",
        "geometry.scale(plan, geometry.scale(plan, g, r), r)",
        "geometry.scale(plan, g, r)",
    ),
    Fault(
        "psi_adam: decay acts on groups",
        "optimizers/recipes.py",
        "add_decayed_weights(decay, groups)",
        'add_decayed_weights(decay, groups, of="scale")',
    ),
    Fault(
        "decay: of the other kind",
        "transforms/weight_decay.py",
        "label == of",
        "label != of",
    ),
    Fault(
        "step: whole steps lose their radial part",
        "geometry/step.py",
        "fall, reach = curve(q, p)",
        "fall, reach = curve(q, 0 * p)",
    ),
    Fault(
        "transport: to the other side",
        "geometry/maps.py",
        "widen(x) - q * b",
        "widen(x) + q * b",
    ),
    Fault(
        "center: by the mean of all groups",
        "geometry/maps.py",
        "groups.dot(u, ones), groups.dot(ones, ones)",
        "groups.dot(u, ones), groups.dot(u, u)",
    ),
    Fault(
        "momentum: is not carried along",
        "transforms/momentum.py",
        "moved = geometry.project_to_tangent(plan, w, m)",
        "moved = m",
    ),
    Fault(
        "momentum: parallel transport from where it was long ago",
        "transforms/momentum.py",
        "plan.merge(base_point, cast_like(w, old))",
        "base_point",
    ),
    Fault(
        "moments: their bias stays",
        "transforms/moments.py",
        "return 1 / (1 - decay ** count.astype(like.dtype))",
        "return 1 + 0 * decay",
    ),
    Fault(
        "moments: the second is not rooted",
        "transforms/moments.py",
        "geometry.safe_sqrt(square) + jnp.asarray(eps, square.dtype)",
        "square + jnp.asarray(eps, square.dtype)",
    ),
    Fault(
        "orthogonality: its gradient is of degree 0",
        "transforms/orthogonality.py",
        "return geometry.scale(plan, tangent, inverse)",
        "return tangent",
    ),
    Fault(
        "orthogonality: the radial part stays",
        "transforms/orthogonality.py",
        "tangent = geometry.project_to_tangent(plan, w, slopes)",
        "tangent = slopes",
    ),
    Fault(
        "moments: the epsilon is inside of the root",
        "transforms/moments.py",
        "geometry.safe_sqrt(square) + jnp.asarray(eps, square.dtype)",
        "geometry.safe_sqrt(square + jnp.asarray(eps, square.dtype))",
    ),
    Fault(
        "moments: the mean square is forgotten",
        "transforms/moments.py",
        "nu if isinstance(before, dict) else before",
        "nu if not isinstance(before, dict) else before",
    ),
    Fault(
        "cosine: vectors are projected",
        "wrappers/project_by_cosine.py",
        "_views(w, axis) if w.ndim > 1 else ()",
        "_views(w, axis) if w.ndim > 0 else ()",
    ),
    Fault(
        "transported trace: Nesterov is ignored",
        "transforms/momentum.py",
        "jax.tree.map(add, trace, updates) if nesterov else trace",
        "jax.tree.map(add, carried, updates) if nesterov else trace",
    ),
    Fault(
        "transported trace: the look ahead is kept",
        "transforms/momentum.py",
        "jax.tree.map(lambda m, x: x.astype(m.dtype), state.trace, trace)",
        "jax.tree.map(lambda m, x: x.astype(m.dtype), state.trace, step)",
    ),
    Fault(
        "cosine: the bound of a channel for the whole view",
        "wrappers/project_by_cosine.py",
        "(view(tuple(range(w.ndim))), w.size)",
        "(view(tuple(range(w.ndim))), w.size // max(channels, 1))",
    ),
    Fault(
        "cosine: both views project",
        "wrappers/project_by_cosine.py",
        "here & ~fires",
        "here",
    ),
    Fault(
        "normalize: to the norm squared",
        "transforms/scaling.py",
        "geometry.project_to_sphere(plan, u, plan.full(1))",
        "geometry.project_to_sphere(plan, u, plan.dot(u, u))",
    ),
    Fault(
        "joint groups: ties are lost",
        "groups/joint.py",
        "tie=self.tie or leaf.group.tie",
        "tie=self.tie",
    ),
    Fault(
        "sgdp: decay is not that of SGD",
        "optimizers/adamp.py",
        "_times(weight_decay, 1 / (1 - momentum))",
        "weight_decay",
    ),
    Fault(
        "sgdp: groups decay like all others",
        "optimizers/adamp.py",
        "_times(weight_decay, wd_ratio)",
        "weight_decay",
    ),
    Fault(
        "sgd_g: the bound is put on what is not tangent",
        "optimizers/riemannian.py",
        "return optax.chain(tangent, clip_by_group_norm(groups, max_norm))",
        "return optax.chain(clip_by_group_norm(groups, max_norm), tangent)",
    ),
    Fault(
        "adam_g: its momentum is not transported",
        "optimizers/riemannian.py",
        "scale_by_group_adam(groups, b1, b2, 0.0, eps_root, "
        'transport="parallel")',
        "scale_by_group_adam(groups, b1, b2, 0.0, eps_root, transport=None)",
    ),
    Fault(
        "rotational: the radial part counts in the mean square",
        "optimizers/rotational.py",
        "            project_to_tangent(groups),\n",
        "",
    ),
    Fault(
        "hyperball: steps are made tangent",
        "optimizers/hyperball.py",
        "            tangent=False,\n",
        "",
    ),
    Fault(
        "hyperball: the published form sees the radius of every group",
        "optimizers/hyperball.py",
        "retract(balls, radius=radius)",
        "retract(groups, radius=radius)",
    ),
    Fault(
        "weight rescaling: one step late",
        "transforms/rescaling.py",
        "jnp.mod(count, jnp.asarray(every, jnp.int32)) == 0",
        "jnp.mod(count, jnp.asarray(every, jnp.int32)) == 1",
    ),
    Fault(
        "equilibrium: momentum is forgotten",
        "dynamics/laws.py",
        "return _autoregressive(jnp.full_like(x, -mu), x)",
        "return _autoregressive(jnp.full_like(x, 0), x)",
    ),
    Fault(
        "transient: at the rate of the norm and not of its power",
        "dynamics/equilibria.py",
        "return 4, 4 * shrinkage / (1 - decay.momentum)",
        "return 4, shrinkage / (1 - decay.momentum)",
    ),
    Fault(
        "matching: the buffer has no radial part",
        "dynamics/matching.py",
        "(1 - mu**2) * (1 + radial * radial)",
        "(1 - mu**2)",
    ),
    Fault(
        "schedule: one power of the shrinkage is missing",
        "dynamics/schedules.py",
        "time = 2 * jnp.asarray(count).astype(float) + 1",
        "time = 2 * jnp.asarray(count).astype(float)",
    ),
    Fault(
        "statistics: variances go with the norm",
        "batch_stats.py",
        '_POWERS = {"mean": 1, "var": 2}',
        '_POWERS = {"mean": 1, "var": 1}',
    ),
    Fault(
        "monitor: rotation has no radial part",
        "diagnostics/monitor.py",
        "jnp.arctan2(jnp.sqrt(across), norm + radial)",
        "jnp.arctan2(jnp.sqrt(across), norm)",
    ),
    Fault(
        "turns: squared norms do not wait for each other",
        "geometry/_scheduling.py",
        "return jax.lax.optimization_barrier(scalars)",
        "return scalars",
    ),
    Fault(
        "psi: norms over devices are formed again by the step",
        "optimizers/psi.py",
        "            square=square,\n",
        "",
    ),
    Fault(
        "psi: the step is told norms in place of their squares",
        "optimizers/psi.py",
        "square=square,",
        "square=norms,",
    ),
    Fault(
        "degrees: of one over a root",
        "invariance/analysis/rules/products.py",
        '{"sqrt": Fraction(1, 2), "rsqrt": Fraction(-1, 2), "cbrt": '
        'Fraction(1, 3), "reciprocal": Fraction(-1)}',
        '{"sqrt": Fraction(1, 2), "rsqrt": Fraction(1, 2), "cbrt": '
        'Fraction(1, 3), "reciprocal": Fraction(-1)}',
    ),
    Fault(
        "degrees: of a square",
        "invariance/analysis/rules/products.py",
        "        times(value.form, 2),\n",
        "        value.form,\n",
    ),
    Fault(
        "degrees: of a product",
        "invariance/analysis/rules/products.py",
        "ZERO if zero else plus(a.form, b.form)",
        "ZERO if zero else a.form",
    ),
    Fault(
        "degrees: of a quotient",
        "invariance/analysis/rules/products.py",
        "ZERO if a.is_zero_or_inf else minus(a.form, b.form)",
        "ZERO if a.is_zero_or_inf else plus(a.form, b.form)",
    ),
    Fault(
        "degrees: of a power",
        "invariance/analysis/rules/products.py",
        "        times(value.form, power),\n",
        "        value.form,\n",
    ),
    Fault(
        "degrees: a sum of what scales differently",
        "invariance/analysis/rules/sums.py",
        "form = context.unify(a, b)\n"
        "offsets = context.merge_offsets((*a.offsets, *b.offsets))",
        "form = a.form\n"
        "offsets = context.merge_offsets((*a.offsets, *b.offsets))",
    ),
    Fault(
        "degrees: a mean cancels what is not constant",
        "invariance/analysis/context.py",
        "axes <= offset.constant_axes",
        "True",
    ),
    Fault(
        "degrees: an epsilon of any sign bounds a norm",
        "invariance/analysis/rules/selections.py",
        "bound.number is not None and bound.number * sign > 0",
        "bound.number is not None and bound.number * sign != 0",
    ),
    Fault(
        "degrees: a conversion to integers",
        "invariance/analysis/rules/elementwise.py",
        'x = call.context.require_invariant(x, "nonlinear", text)',
        "x = call.context.resolve_offsets(x)",
    ),
    Fault(
        "degrees: the angle of what scales differently",
        "invariance/analysis/rules/selections.py",
        "call.context.unify_all(call.operands)\n"
        "return [elementwise(call.operands, call.shape, ZERO)]",
        "return [elementwise(call.operands, call.shape, ZERO)]",
    ),
    Fault(
        "degrees: a sum along a scaled axis",
        "invariance/analysis/rules/reductions.py",
        "form = value.form\n"
        "for axis in axes:\n"
        "    form = context.require_uniform(form, axis)\n"
        "positions = remaining_axes(value.rank, axes)",
        "form = value.form\npositions = remaining_axes(value.rank, axes)",
    ),
    Fault(
        "degrees: of a product along an axis",
        "invariance/analysis/rules/reductions.py",
        "times(product.form, Fraction(count))",
        "product.form",
    ),
    Fault(
        "degrees: a matrix product along a scaled axis",
        "invariance/analysis/rules/contractions.py",
        "for axis in sorted(axes.summed):\n"
        "    form = context.require_uniform(form, axis)\n",
        "",
    ),
    Fault(
        "degrees: a window over scaled positions",
        "invariance/analysis/rules/contractions.py",
        "_uniform(context, x.form, spatial)",
        "x.form",
    ),
    Fault(
        "degrees: groups of a convolution have all channels",
        "invariance/analysis/rules/contractions.py",
        "kernel.shape[outputs] // groups",
        "kernel.shape[outputs]",
    ),
    Fault(
        "degrees: what fills up a lookup scales along",
        "invariance/analysis/rules/indexing.py",
        "if not is_number or filling == 0:",
        "if True:",
    ),
    Fault(
        "degrees: values put among others",
        "invariance/analysis/rules/indexing.py",
        "form = context.unify(x.replace(form=old), "
        "updates.replace(form=new, shape=x.shape))",
        "form = old",
    ),
    Fault(
        "degrees: padding with what does not scale",
        "invariance/analysis/rules/slices.py",
        "if padded and not padding.is_zero_or_inf:",
        "if padded and padding.is_zero_or_inf:",
    ),
    Fault(
        "degrees: a reversed axis keeps its scales",
        "invariance/analysis/rules/shapes.py",
        'for axis in call.params["dimensions"]:\n'
        "    form = call.context.require_uniform(form, axis)\n",
        "",
    ),
    Fault(
        "degrees: a transpose the other way round",
        "invariance/analysis/rules/shapes.py",
        "{a: b for b, a in enumerate(order)}",
        "{b: a for b, a in enumerate(order)}",
    ),
    Fault(
        "degrees: strides of blocks",
        "invariance/analysis/rules/shapes.py",
        "return Digit(axis, stride // tail, digit.count)",
        "return Digit(axis, 1, digit.count)",
    ),
    Fault(
        "degrees: the branch that is not taken has no say",
        "invariance/analysis/control_flow.py",
        "context.unify_all(values)",
        "values[0].form",
    ),
    Fault(
        "degrees: factors that are scattered may scale",
        "invariance/analysis/rules/indexing.py",
        'call.context.require_invariant(factors, "mixture", text)',
        "",
    ),
    Fault(
        "degrees: a Fourier transform along a scaled axis",
        "invariance/analysis/rules/reductions.py",
        'range(x.rank - len(call.params["fft_lengths"]), x.rank)',
        "()",
    ),
    Fault(
        "degrees: shards are gathered in another order",
        "invariance/analysis/rules/collectives.py",
        "Digit(axis, d.stride * local, d.count)",
        "Digit(axis, d.stride, d.count)",
    ),
    Fault(
        "degrees: what comes from another device scales as one's own",
        "invariance/analysis/rules/collectives.py",
        "return call.context.require_uniform(x.form, name)",
        "return x.form",
    ),
    Fault(
        "degrees: rows of one product are of one group",
        "invariance/analysis/rules/contractions.py",
        'd._replace(axis=name, over=over) if d.axis == "group" else d',
        'd._replace(axis=name) if d.axis == "group" else d',
    ),
    Fault(
        "decompositions: columns and rows of r scale alike",
        "invariance/analysis/rules/decompositions.py",
        "x.derived(triangle, columns)",
        "x.derived(triangle)",
    ),
    Fault(
        "decompositions: a triangle is of the degree of its product",
        "invariance/analysis/rules/decompositions.py",
        "times(_matrix_form(call.context, x), Fraction(1, 2))",
        "_matrix_form(call.context, x)",
    ),
    Fault(
        "decompositions: ones on a diagonal scale along",
        "invariance/analysis/rules/decompositions.py",
        'call.params["unit_diagonal"]',
        "False",
    ),
    Fault(
        "decompositions: values that do not scale",
        "invariance/analysis/rules/decompositions.py",
        "x.derived(call.shapes[values], form)",
        "x.derived(call.shapes[values])",
    ),
    Fault(
        "windows: what they move is lost",
        "invariance/analysis/rules/reductions.py",
        "moving.derived(call.shape, form)",
        "moving.derived(call.shape)",
    ),
    Fault(
        "guards: of a norm of something else",
        "invariance/analysis/rules/products.py",
        "o.guard is None or o.guard.of is not numerator.identity or "
        "not o.guard.is_aligned(numerator.rank)",
        "o.guard is None or not o.guard.is_aligned(numerator.rank)",
    ),
    Fault(
        "guards: of a norm along other axes",
        "invariance/analysis/rules/products.py",
        "o.guard is None or o.guard.of is not numerator.identity or "
        "not o.guard.is_aligned(numerator.rank)",
        "o.guard is None or o.guard.of is not numerator.identity",
    ),
    Fault(
        "guards: what may be zero never is",
        "invariance/analysis/rules/selections.py",
        "if norm is None or zero:",
        "if True:",
    ),
    Fault(
        "guards: any bound is an epsilon",
        "invariance/analysis/rules/selections.py",
        "is_bound and context.ignore_epsilon(x, number)",
        "is_bound",
    ),
    Fault(
        "degrees: what a reshape merges is constant",
        "invariance/analysis/rules/shapes.py",
        "n > 1 < m and segment(tails[a]) == segment(tail)",
        "n > 1 < m and tails[a] == tail",
    ),
    Fault(
        "refs: writes are dropped",
        "invariance/analysis/liveness.py",
        "return bool(kept) or compat.has_effects(equation)",
        "return False",
    ),
    Fault(
        "refs: what the next turn reads is not kept",
        "invariance/analysis/liveness.py",
        "after = before | (wanted & refs)",
        "after = before",
    ),
    Fault(
        "refs: a part is written without a word",
        "invariance/analysis/rules/refs.py",
        "ref.content = _written(call.context, ref.content, new, box)",
        "ref.content = ref.content if box.single else new",
    ),
    Fault(
        "refs: what one branch wrote stays for the other",
        "invariance/analysis/control_flow.py",
        "        _store(refs, before)\n",
        "",
    ),
    Fault(
        "refs: what a loop writes may scale from turn to turn",
        "invariance/analysis/control_flow.py",
        "end = [*found[:count], *(ref.content for ref in refs)]",
        "end = [*found[:count], *carried[count:]]",
    ),
    Fault(
        "refs: what is unknown keeps its scale",
        "invariance/analysis/rules/table.py",
        "self.context.require_invariant(content, kind, text)",
        "pass",
    ),
    Fault(
        "degrees: a callback that acts has no say",
        "invariance/jaxprs.py",
        "type(e).__name__ not in _LOCAL_EFFECTS",
        "False",
    ),
    Fault(
        "degrees: a number that is closed over is a constant",
        "invariance/analysis/interpreter.py",
        "return data_value(array)",
        "return literal_value(array)",
    ),
    Fault(
        "inert: a custom derivative is that of the value",
        "invariance/analysis/custom_derivatives.py",
        "if not any(x.form for x in arrays):",
        "    if True:\n",
    ),
    Fault(
        "inert: gradients go where values do",
        "invariance/analysis/liveness.py",
        "if jaxprs.has_custom_derivative(equation):\n    return None",
        "",
    ),
    Fault(
        "inert: a stopped gradient is the true one",
        "invariance/analysis/proof.py",
        "if isinstance(x, CustomGradient):",
        "        if False:",
    ),
    Fault(
        "probe: what is inert is not confronted",
        "invariance/cross_check.py",
        '(f"{path!r}: inert, but it has a gradient" for path in '
        'paths_of_kind("inert", findings) if '
        "probe.gradients.is_nonzero(path, groups))",
        "()",
    ),
    Fault(
        "probe: any gradient is that of an epsilon",
        "invariance/probe/gradients.py",
        "if share > NOTICEABLE:",
        "        if False:\n",
    ),
    Fault(
        "probe: counters and gates stay as they are",
        "invariance/probe/points.py",
        "if any(moved is not x for x, moved in pairs):",
        "if False:",
    ),
    Fault(
        "probe: thresholds are passed over",
        "invariance/probe/probe.py",
        "changes[i] <= 30 * points.noise(rungs[i]) for i in sudden",
        "True for i in sudden",
    ),
    Fault(
        "probe: weights are not made small enough",
        "invariance/probe/probe.py",
        "range(_END, -_END - 1, -step)",
        "range(_END, -2, -step)",
    ),
    Fault(
        "degrees: what the loss returns may scale",
        "invariance/analysis/proof.py",
        'at_result.require_invariant(value, "output", text)\n',
        "",
    ),
    Fault(
        "degrees: any constant is an epsilon",
        "invariance/analysis/context.py",
        "not 0 < abs(constant) <= largest",
        "not 0 < abs(constant)",
    ),
    Fault(
        "degrees: two that must be alike are not told so",
        "invariance/analysis/context.py",
        "self.equations.require_zero(minus(a.form, b.form), reason)\n",
        "",
    ),
    Fault(
        "equations: solved with the wrong sign",
        "invariance/analysis/equations.py",
        "times(rest, -1 / form[pivot])",
        "times(rest, 1 / form[pivot])",
    ),
    Fault(
        "equations: what was solved is put in without its factor",
        "invariance/analysis/solutions.py",
        "reduced += times(one, c).items()",
        "reduced += one.items()",
    ),
    Fault(
        "equations: a copy is narrowed with its original",
        "invariance/analysis/solutions.py",
        "other._layers = [*self._layers[:-1], {}]",
        "other._layers = self._layers",
    ),
    Fault(
        "equations: as many layers as copies",
        "invariance/analysis/solutions.py",
        "while len(layers) > 1 and len(layers[-2]) <= len(layers[-1]):",
        "while False:",
    ),
    Fault(
        "symmetries: all others are held for each parameter",
        "invariance/analysis/isolation.py",
        "middle = len(free) // 2",
        "middle = 1",
    ),
    Fault(
        "symmetries: sets that cannot scale as one are tried again",
        "invariance/analysis/ties.py",
        "if key not in self._failed:",
        "if True:",
    ),
    Fault(
        "symmetries: what connects two of a basis is not followed",
        "invariance/analysis/ties.py",
        "isolate(self._equations, order, set(basis))",
        "isolate(self._equations, "
        "[p for p in parameters_of(order) if p.path in basis], set(basis))",
    ),
    Fault(
        "symmetries: a set is the first in which a parameter scales",
        "invariance/analysis/ties.py",
        "{one.path: ways[path] for path in basis if path in ways for "
        "one in parameters_of(ways[path].followed)}",
        "{one.path: ways[path] for path in basis[::-1] if path in "
        "ways for one in parameters_of(ways[path].followed)}",
    ),
    Fault(
        "symmetries: what no way of a basis moves is alone",
        "invariance/analysis/ties.py",
        "Isolated(one, self._equations, self._orders[index])",
        "Isolated(one, self._equations, [one])",
    ),
    Fault(
        "symmetries: a set may have what is tied already",
        "invariance/analysis/ties.py",
        "        if search.overlaps(one, found):",
        "        if False:",
    ),
    Fault(
        "finder: the loss is traced twice",
        "invariance/finder.py",
        "unproved | analyse(loss, epsilon)",
        "unproved | analyse(trace_loss(loss.function, loss.params, "
        "loss.args), epsilon)",
    ),
    Fault(
        "rounding: towards zero",
        "wrappers/stochastic_rounding.py",
        "number = (number + (bits & beyond)) & ~beyond",
        "number = number & ~beyond",
    ),
    Fault(
        "rounding: the same bits at every step",
        "wrappers/stochastic_rounding.py",
        "jax.random.fold_in(key, state.count)",
        "key",
    ),
    Fault(
        "master weights: the copies are rounded as well",
        "wrappers/master_weights.py",
        "return wide + step.astype(wide.dtype)\n",
        "return (wide + step).astype(w.dtype).astype(wide.dtype)\n",
    ),
    Fault(
        "averages: their bias stays",
        "wrappers/average_weights.py",
        "share = geometry.safe_divide(1 - d, weight)",
        "share = 1 - d",
    ),
    Fault(
        "averages: of the weights before the step",
        "wrappers/average_weights.py",
        "moved = w if is_hole(u) else optax.apply_updates(w, u)",
        "moved = w",
    ),
    Fault(
        "averages: inside of the sphere",
        "wrappers/average_weights.py",
        "on_spheres.get(path, found.leaf)",
        "found.leaf",
    ),
    Fault(
        "entrance: optimizers see integers",
        "transforms/floating.py",
        "return None if hide else x",
        "return x",
    ),
    Fault(
        "entrance: Python numbers stay what they are",
        "transforms/floating.py",
        "            return _as_array(x, w)\n",
        "            return x\n",
    ),
    Fault(
        "entrance: a Python number has a dtype of its own",
        "transforms/floating.py",
        'x if hasattr(x, "dtype") else w',
        "x",
    ),
    Fault(
        "entrance: all that has a dtype is moved",
        "transforms/floating.py",
        'jnp.issubdtype(getattr(leaf, "dtype", object), jnp.inexact)',
        'hasattr(leaf, "dtype")',
    ),
    Fault(
        "entrance: a state of any class is taken",
        "transforms/states.py",
        "if type(state) is not kind:",
        "if not isinstance(state, tuple):",
    ),
    Fault(
        "entrance: states inside are not looked at",
        "transforms/contract.py",
        "            _check_state("
        "state, _state_of(inner, shown), shapes=shapes)\n",
        "",
    ),
    Fault(
        "momentum: a state of another transport decides",
        "transforms/momentum.py",
        "check_base_point(transport, base_point)",
        "",
    ),
    Fault(
        "checks: a boolean is a number",
        "_validation.py",
        "isinstance(value, (int, float)) and not isinstance(value, bool)",
        "isinstance(value, (int, float))",
    ),
    Fault(
        "checks: several numbers are one",
        "_validation.py",
        "if np.shape(value) and not arrays:",
        "if False:",
    ),
    Fault(
        "checks: NaN is not negative",
        "_validation.py",
        "_lies(value, lambda x: x >= 0)",
        "_lies(value, lambda x: ~(x < 0))",
    ),
    Fault(
        "checks: a decay is rounded to one",
        "_validation.py",
        "x.astype(np.float32) < 1",
        "x < 1",
    ),
    Fault(
        "checks: the values of a schedule pass",
        "_validation.py",
        '        check_number(f"{name}(count)", at_step)\n',
        "",
    ),
    Fault(
        "psi_adam: decay is dropped beside an optimizer of ordinary parameters",
        "optimizers/recipes.py",
        "    if unknown or weight_decay:\n",
        "    if False:\n",
    ),
    Fault(
        "monitor: a degree is dropped without a rate",
        "diagnostics/monitor.py",
        "(learning_rate is None) != (degree is None)",
        "learning_rate is not None and degree is None",
    ),
    Fault(
        "hash: of one report alone",
        "invariance/report.py",
        "hash((frozenset(self.findings.items()), self.returned))",
        "id(self)",
    ),
    Fault(
        "hash: reports are equal whatever holds the params",
        "invariance/report.py",
        "jax.tree.structure(self.groups) == jax.tree.structure(other.groups)",
        "True",
    ),
    Fault(
        "hash: of one joint rule alone",
        "groups/joint.py",
        "hash((frozenset(entries(self.groups)), self.tie))",
        "id(self)",
    ),
    Fault(
        "plan: a word has no dtype to name",
        "groups/plan.py",
        "        return type(leaf).__name__\n",
        "        raise\n",
    ),
    Fault(
        "psi_sgd: nesterov is dropped without momentum",
        "optimizers/recipes.py",
        "if momentum is not None:\n"
        '    check_decay("momentum", momentum)\n'
        "elif nesterov: ...",
        'if momentum is not None:\n    check_decay("momentum", momentum)',
    ),
    Fault(
        "statistics: the shortest path says what they follow",
        "batch_stats.py",
        "follows[max(leading, key=len)]",
        "follows[min(leading, key=len)]",
    ),
    Fault(
        "cosine: the epsilon of the weights' norm is inside of its root",
        "wrappers/project_by_cosine.py",
        "norm = jnp.sqrt(dot(w, w)) + tiny",
        "norm = jnp.sqrt(dot(w, w) + tiny)",
    ),
    Fault(
        "adamp: its epsilon is not passed on",
        "optimizers/adamp.py",
        "optax.scale_by_adam(b1, b2, eps),",
        "optax.scale_by_adam(b1, b2),",
    ),
    Fault(
        "span: rounding is measured by the shorter side of the inputs",
        "diagnostics/input_span.py",
        "limit = max(inputs.shape)",
        "limit = min(inputs.shape)",
    ),
    Fault(
        "normalize: weights are equal within one precision only",
        "diagnostics/norms.py",
        "rest <= 64 * jnp.finfo(norm.dtype).eps * norm",
        "rest <= jnp.finfo(norm.dtype).eps * norm",
    ),
    Fault(
        "mesh: what differs between devices is constant",
        "invariance/analysis/mesh.py",
        "value.constant_axes | (sizes.keys() - varying)",
        "value.constant_axes | sizes.keys()",
    ),
    Fault(
        "mesh: what is constant in an array has parts that differ",
        "invariance/analysis/mesh.py",
        "value.constant_axes | (sizes.keys() - varying)",
        "value.constant_axes",
    ),
    Fault(
        "mesh: that of a `shard_map` is the whole one",
        "invariance/jaxprs.py",
        '{name: n for name, n in params["mesh"].shape.items() if '
        "name in manual}",
        '{name: n for name, n in params["mesh"].shape.items()}',
    ),
    Fault(
        "mesh: a mean over devices is over the whole batch of one",
        "invariance/analysis/rules/reductions.py",
        "own |= context.mesh.keys() & set(axes)\n",
        "axes = tuple(a for a in axes if isinstance(a, int))\n",
    ),
    Fault(
        "mesh: a sum over devices is over two",
        "invariance/analysis/rules/reductions.py",
        "{**dict(enumerate(x.shape)), **context.mesh}",
        "{**dict(enumerate(x.shape)), **dict.fromkeys(context.mesh, 2)}",
    ),
    Fault(
        "mesh: groups of devices are all devices",
        "invariance/analysis/rules/reductions.py",
        'if call.params.get("axis_index_groups") is not None:',
        'if call.params.get("axis_index_groups") == ():',
    ),
    Fault(
        "mesh: numbers differ between devices",
        "invariance/analysis/rules/sums.py",
        "axes if value.const is None else axes | context.mesh.keys()",
        "axes",
    ),
    Fault(
        "mesh: axes of the mesh do not tell terms apart",
        "invariance/analysis/rules/sums.py",
        "less < more if arrays[0] == arrays[1] else arrays[0] < arrays[1]",
        "arrays[0] < arrays[1]",
    ),
    Fault(
        "stacks: offsets of their parts are forgotten",
        "invariance/analysis/context.py",
        "for part in value.parts:\n    self.resolve_offsets(part)\n",
        "",
    ),
    Fault(
        "stacks: rules that keep offsets keep parts",
        "invariance/analysis/rules/table.py",
        "resolve = context.merge_parts",
        "resolve = lambda x: x",
    ),
    Fault(
        "stacks: the first part is every part",
        "invariance/analysis/rules/slices.py",
        "x.parts[starts[x.stack_axis]]",
        "x.parts[0]",
    ),
    Fault(
        "inert: a mean with its own derivative is a mean",
        "invariance/analysis/interpreter.py",
        "context.merge_parts(x).as_new_array()",
        "context.merge_parts(x)",
    ),
    Fault(
        "inert: a function with its own derivative is what it is of",
        "invariance/analysis/values.py",
        "return self.without_moment().replace(identity=Identity())",
        "return self.without_moment()",
    ),
    Fault(
        "stacks: with a derivative they keep their parts",
        "invariance/analysis/interpreter.py",
        "context.merge_parts(x).as_new_array()",
        "x.as_new_array()",
    ),
    Fault(
        "stacks: two are one",
        "invariance/analysis/rules/table.py",
        "len(stacks) != 1 or not stacks[0].parts",
        "not (stacks and stacks[0].parts)",
    ),
    Fault(
        "guards: an infinity is that of another array",
        "invariance/analysis/rules/selections.py",
        "is_largest and predicate.tested_for_inf is usual.identity",
        "is_largest",
    ),
    Fault(
        "guards: any number stands for an infinity",
        "invariance/analysis/rules/selections.py",
        "other.const is not None and abs(other.const) >= LARGEST",
        "other.const is not None",
    ),
    Fault(
        "guards: infinity is where it is not",
        "invariance/analysis/rules/selections.py",
        "usual, other = _usual_first(predicate, cases)\n"
        "is_largest = other.const is not None and abs(other.const) >= LARGEST",
        "other, usual = _usual_first(predicate, cases)\n"
        "is_largest = other.const is not None and abs(other.const) >= LARGEST",
    ),
    Fault(
        "epsilon: an argument of any sign",
        "invariance/analysis/interpreter.py",
        "runtime_number=number if number > 0 else math.nan",
        "runtime_number=number",
    ),
    Fault(
        "epsilon: an argument that is zero is one that guards",
        "invariance/analysis/rules/selections.py",
        'bound.const == 0 and (is_exact or (norm and name in ("le", "gt")))',
        "bound.number is not None and (is_exact or (norm and name in "
        '("le", "gt")))',
    ),
    Fault(
        "epsilon: several arguments are one",
        "invariance/analysis/interpreter.py",
        "math.prod(shape) != 1 or dtype is None",
        "dtype is None",
    ),
    Fault(
        "bound: it acts on what it is far above",
        "invariance/analysis/context.py",
        "if abs(bound) * self.max_epsilon < 1 - 1e-6:",
        "if abs(bound) * self.max_epsilon < 0.5:",
    ),
    Fault(
        "bound: it is not recorded",
        "invariance/analysis/context.py",
        "if form and size < LARGEST:\n",
        'if form and size < LARGEST and kind == "epsilon":\n',
    ),
    Fault(
        "bound: the largest counts",
        "invariance/analysis/proof.py",
        'return min(_ignored("bound", symmetry), default=math.inf)',
        'return max(_ignored("bound", symmetry), default=math.inf)',
    ),
    Fault(
        "bound: an argument is a bound",
        "invariance/analysis/rules/selections.py",
        "if bound.const is None or not math.isfinite(bound.const):\n"
        "    return False\n"
        "return context.ignore_bound(x, bound.const)",
        "return context.ignore_bound(x, bound.number or 0.0)",
    ),
    Fault(
        "bound: one that is exceeded is not noticed",
        "invariance/cross_check.py",
        "not probe.holds_within_bound(tied_with(path, bounded))",
        "not bounded",
    ),
    Fault(
        "bound: one that is exceeded everywhere",
        "invariance/probe/probe.py",
        "all(np.any(euler(path)[path]) for path in groups)",
        "True",
    ),
    Fault(
        "bound: an effect that grows is that of an epsilon",
        "invariance/probe/probe.py",
        "            if change > allowed:\n                return False\n",
        "            if change > NOTICEABLE:\n                continue\n",
    ),
    Fault(
        "bound: weights beyond it are confronted",
        "invariance/cross_check.py",
        "{p: g for p, g in groups.items() if p not in bounded}",
        "dict(groups)",
    ),
    Fault(
        "symmetries: parts that scale inversely are scale groups",
        "invariance/analysis/scale_groups.py",
        "term.where and len(signs[term.variable]) == 1",
        "term.where",
    ),
    Fault(
        "symmetries: who lost a tie is not told",
        "invariance/analysis/ties.py",
        "return found, _lost(first, [p for p in rest if p.path not in found])",
        "return found, {}",
    ),
    Fault(
        "offsets: of those that scale alike the last has a gradient",
        "invariance/analysis/context.py",
        "offset.depends_on | (before.depends_on if before else 0)",
        "offset.depends_on",
    ),
    Fault(
        "probe: a bias without effect stays tied",
        "invariance/measurement.py",
        "not all(map(probe.has_effect, smaller))",
        "False",
    ),
    Fault(
        "probe: of a dead unit sums are not rounding",
        "invariance/probe/search.py",
        "np.abs(total) <= _CANDIDATE * size + rounding",
        "np.abs(total) <= _CANDIDATE * size",
    ),
    Fault(
        "probe: branches stay as small as they begin",
        "invariance/probe/perturbation.py",
        "size if size > _SMALL else 1.0",
        "size or 1.0",
    ),
]
