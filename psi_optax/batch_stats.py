"""BatchNorm's running statistics, after weights were averaged or rescaled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psi_optax import geometry
from psi_optax._messages import summarize
from psi_optax.groups import make_plan
from psi_optax.groups.paths import is_within, leaves_with_paths, map_with_path
from psi_optax.groups.types import Tree

_COLLECTION = "batch_stats"


def recalibrate(
    apply_fn: Callable[[Any, Any], Mapping[str, Any]],
    variables: Mapping[str, Any],
    batches: Iterable[Any],
) -> dict[str, Any]:
    r"""Collects BatchNorm's statistics anew: their mean over some batches.

    For weights that no statistics belong to: averages of several models or of
    an iterate, or weights that were projected. The result is the plain average
    over batches of each batch's mean and variance; a network of several
    normalizations is seen as in training, each one after normalized inputs.

    A layer's momentum need not be known. Running statistics become
    \(m s + (1-m) b\) of what they were, s, and a batch's, b, so that two runs,
    from zeros and from a large number, tell m and b. In float32 this gets b to
    about \(10^{-7}/(1-m)\), relatively.

    Args:
        apply_fn: apply_fn(variables, batch) runs the network in training mode
            and returns its new statistics, either the collection or a mapping
            with it at "batch_stats", as is the second result of Flax's
            `model.apply(..., mutable=["batch_stats"])`. It must do the same
            every time (fix the keys of dropout), and should be compiled.
        variables: with the collection at "batch_stats", and whatever else the
            network has.
        batches: anything that apply_fn takes; of about the size that the
            network was trained with, on which variances depend.

    Returns:
        The variables with the new statistics, in their dtypes. They are the
        leaves called "mean" and "var"; others, such as counters, stay.

    Raises:
        TypeError: apply_fn returns something else.
        ValueError: no batches; no "batch_stats" in variables; a statistic that
            apply_fn does not update.

    Examples:
        >>> def apply_fn(variables, batch):
        ...     old = variables["batch_stats"]["mean"]
        ...     return {"mean": 0.9 * old + 0.1 * batch.mean()}
        >>> variables = {"batch_stats": {"mean": jnp.array(5.0)}}
        >>> batches = [jnp.array([1.0, 3.0]), jnp.array([4.0])]
        >>> new = recalibrate_batch_stats(apply_fn, variables, batches)
        >>> print(f"{new['batch_stats']['mean']:.3f}")
        3.000

    References:
        Izmailov et al., [Averaging weights leads to wider
        optima](https://arxiv.org/abs/1803.05407), UAI 2018, on why averaged
        weights need it.
    """
    if _COLLECTION not in variables:
        raise ValueError(
            f"variables have {sorted(variables)}, but no {_COLLECTION!r}: pass"
            " all collections of the network, statistics included."
        )
    old = variables[_COLLECTION]

    def updated(start: float, batch: Any) -> Tree:
        filled = map_with_path(lambda path, s: _fill(path, s, start), old)
        new = apply_fn({**variables, _COLLECTION: filled}, batch)
        if not isinstance(new, Mapping):
            raise TypeError(
                f"apply_fn returned a {type(new).__name__}, not statistics: of"
                " Flax's (outputs, new variables) return the second."
            )
        return new.get(_COLLECTION, new)

    total, count = None, 0
    for batch in batches:
        seen = _solve(_moments(updated(0.0, batch)), updated(_LARGE, batch))
        total = seen if total is None else jax.tree.map(jnp.add, total, seen)
        count += 1
    if total is None:
        raise ValueError("there are no batches: pass one or more.")
    mean = map_with_path(
        lambda path, s: (
            (total[path] / count).astype(jnp.asarray(s).dtype)
            if path in total
            else s
        ),
        old,
    )
    return {**variables, _COLLECTION: mean}


# Against which the statistics of a batch are small, so that they do not spoil
# the momentum; a power of two, so that a product with it is not rounded.
_LARGE = 2.0**30

# How each statistic goes with the scale of what it is taken of.
_POWERS = {"mean": 1, "var": 2}


def _is_moment(path: str) -> bool:
    return path.rpartition("/")[2] in _POWERS


def _fill(path: str, x: jax.typing.ArrayLike, value: float) -> Any:
    if not _is_moment(path):
        return x
    # In no narrower dtype, which would not hold the large number.
    wide = geometry.accumulator(jnp.asarray(x).dtype)
    return jnp.full_like(jnp.asarray(x), value, wide)


def _moments(statistics: Tree) -> dict[str, jax.Array]:
    return {
        entry.path: entry.leaf
        for entry in leaves_with_paths(statistics)
        if _is_moment(entry.path)
    }


def _solve(from_zeros: dict[str, jax.Array], from_large: Tree):
    """The statistics of a batch.

    Raises:
        ValueError: a statistic is no running mean of anything.
    """
    seen = {}
    for path, large in _moments(from_large).items():
        fresh = 1 - (large - from_zeros[path]) / _LARGE
        seen[path] = from_zeros[path] / fresh
        running = (fresh > 0) & (fresh <= 1) & jnp.isfinite(seen[path])
        if not np.all(running):
            raise ValueError(
                f"the statistic {path!r} is not updated by apply_fn, or is not"
                " finite: run the network in training mode."
            )
    return seen


def rescale(
    batch_stats: Tree,
    old_params: Tree,
    new_params: Tree,
    groups: Any,
    follows: Mapping[str, str | Sequence[str]],
) -> Tree:
    """Lets BatchNorm's statistics follow weights whose norms have changed.

    A kernel multiplied by c has outputs whose mean is multiplied by c and
    whose variance by c squared. In training BatchNorm removes that; in
    evaluation it does so only if its running statistics are multiplied too.
    With them the outputs are what they were, up to the layer's epsilon.

    What stands between the kernel and the normalization must be rescaled by
    it. A bias that is added there must be rescaled as well: state it in the
    kernel's groups, by a tie, or leave it out of the network.

    Args:
        batch_stats: the collection, arrays.
        old_params: the weights that the statistics belong to.
        new_params: the same, groups rescaled, as by `normalize`.
        groups: scale groups in any form.
        follows: {path in batch_stats: path in params, or several}, say
            {"norm_0": "hidden_0/kernel"}: the statistics there, or below, were
            taken of outputs that are multiplied with that parameter. Nothing
            checks it, and statistics that are not named stay as they are. All
            that was rescaled counts: where `normalize` was given groups of a
            normalization's scale and bias as well, the next one follows its
            kernel and them, {"norm_1": ["hidden_1/kernel", "norm_0/scale"]}.

    Returns:
        A tree like batch_stats: below these paths leaves called "mean" are
        multiplied by each group's c, those called "var" by its square, the
        others are as before. A factor that is a power of two rounds nothing.

    Raises:
        ValueError: a path that is not there, a parameter without groups, a
            statistic of another name, or of a shape that is neither that of
            the parameter's groups nor met by one group for the whole leaf.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> stats = {"norm": {"mean": jnp.ones(1), "var": jnp.ones(1)}}
        >>> old = jnp.array([[3.0], [4.0]])
        >>> rescale_batch_stats(
        ...     stats, {"k": old}, {"k": 2 * old}, {"k": ScaleGroup(0)},
        ...     {"norm": "k"},
        ... )
        {'norm': {'mean': Array([2.], dtype=float32),
                  'var': Array([4.], dtype=float32)}}
    """
    plan = make_plan(groups, old_params)
    factors = jax.tree.map(
        geometry.rescaling_factor,
        geometry.norm(plan, plan.select(new_params, "new_params")),
        geometry.norm(plan, plan.select(old_params, "old_params")),
    )
    by_path = {leaf.path: factors[leaf.name] for leaf in plan.leaves}
    paths = [entry.path for entry in leaves_with_paths(batch_stats)]
    sources = {
        prefix: [many] if isinstance(many, str) else list(many)
        for prefix, many in follows.items()
    }
    for prefix, many in sources.items():
        if not any(is_within(path, prefix) for path in paths):
            raise ValueError(
                f"follows speak of {prefix!r}, but batch_stats have"
                f" {summarize(paths)}."
            )
        for source in many:
            if source not in by_path:
                raise ValueError(
                    f"follows speak of {source!r}, but the parameters with"
                    f" scale groups are {summarize(sorted(by_path))}."
                )

    def rescale(path, statistic):
        for source in _sources(path, sources):
            factor = by_path[source]
            statistic = _rescale(path, jnp.asarray(statistic), source, factor)
        return statistic

    return map_with_path(rescale, batch_stats)


def _sources(path: str, follows: Mapping[str, list[str]]) -> list[str]:
    """What the longest prefix of a path says."""
    leading = [prefix for prefix in follows if is_within(path, prefix)]
    return follows[max(leading, key=len)] if leading else []


def _rescale(path, statistic, source, factor):
    if not _is_moment(path):
        raise ValueError(
            f"the statistic {path!r} is neither a mean nor a var: let only"
            " those of BatchNorm follow."
        )
    if factor.shape not in ((), statistic.shape):
        raise ValueError(
            f"the statistic {path!r} has shape {statistic.shape}, but"
            f" {source!r} has groups of shape {factor.shape}: one group for"
            " each statistic is needed, or one for all."
        )
    wide = factor.astype(statistic.dtype)
    once = _POWERS[path.rpartition("/")[2]] == 1
    return statistic * (wide if once else wide * wide)
