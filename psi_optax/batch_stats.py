"""BatchNorm's running statistics, after weights were averaged or rescaled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psi_optax import geometry
from psi_optax._text import summarize
from psi_optax.groups import Groups, Leaves, Tree, make_plan
from psi_optax.groups.paths import is_within, leaves_with_paths, map_with_path
from psi_optax.groups.reductions import accumulation_dtype

_COLLECTION = "batch_stats"

# The second start of the running statistics. Beside it those of a batch are
# negligible; a product with a power of two is not rounded.
_LARGE = 2.0**30

# Degree of each statistic in the scale of the normalized outputs.
_POWERS = {"mean": 1, "var": 2, "covariance": 2}


def recalibrate(
    apply_fn: Callable[[Any, Any], Mapping[str, Any]],
    variables: Mapping[str, Any],
    batches: Iterable[Any],
) -> dict[str, Any]:
    r"""Compute BatchNorm's statistics anew, as a mean over batches.

    For weights without statistics of their own: averages of several models or
    of iterates, or weights after a projection. The result is the plain average
    over batches of each batch's mean and variance. As in training, each
    normalization sees the outputs of normalized layers.

    The momentum of a layer is not an argument. Running statistics s become
    \(m s + (1-m) b\) with the statistics b of a batch. Two runs, from zeros and
    from a large number, determine m and b. In float32 the relative error of b
    is about \(10^{-7}/(1-m)\).

    Args:
        apply_fn: apply_fn(variables, batch) runs the network in training mode
            and returns its new statistics: the collection, or a mapping with
            the collection at "batch_stats", such as the second result of Flax's
            `model.apply(..., mutable=["batch_stats"])`. It must be
            deterministic (fix the keys of dropout), and should be compiled.
        variables: the collections of the network, with statistics at
            "batch_stats".
        batches: arguments of apply_fn; of about the batch size in training, on
            which variances depend.

    Returns:
        The variables with new statistics, in their dtypes. The statistics are
        leaves named "mean", "var" or "covariance"; other leaves, such as
        counters, are unchanged.

    Raises:
        TypeError: apply_fn returns something else than statistics.
        ValueError: no batches; no "batch_stats" in variables; a statistic that
            apply_fn does not update, or that is non-finite.

    Examples:
        >>> def apply_fn(variables, batch):
        ...     old = variables["batch_stats"]["mean"]
        ...     return {"mean": 0.9 * old + 0.1 * batch.mean()}
        >>> variables = {"batch_stats": {"mean": jnp.array(5.0)}}
        >>> batches = [jnp.array([1.0, 3.0]), jnp.array([4.0])]
        >>> new = recalibrate(apply_fn, variables, batches)
        >>> print(f"{new['batch_stats']['mean']:.3f}")
        3.000

    References:
        Izmailov et al., [Averaging weights leads to wider
        optima](https://arxiv.org/abs/1803.05407), UAI 2018, on the statistics
        of averaged weights.
    """
    if _COLLECTION not in variables:
        raise ValueError(
            f"variables have {sorted(variables)}, but no {_COLLECTION!r}: pass"
            " all collections of the network, statistics included."
        )
    total: Leaves | None = None
    count = 0
    for batch in batches:
        from_zeros = _run(apply_fn, variables, batch, start=0.0)
        from_large = _run(apply_fn, variables, batch, start=_LARGE)
        found = _solve(from_zeros, from_large)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        count += 1
    if total is None:
        raise ValueError("batches are empty: pass one or more.")
    means = {path: x / count for path, x in total.items()}
    new = map_with_path(
        lambda path, s: (
            means[path].astype(jnp.asarray(s).dtype) if path in means else s
        ),
        variables[_COLLECTION],
    )
    return {**variables, _COLLECTION: new}


def _run(
    apply_fn: Callable[[Any, Any], Mapping[str, Any]],
    variables: Mapping[str, Any],
    batch: Any,
    *,
    start: float,
) -> Leaves:
    """Return the moments after a batch, all of them equal to `start` before.

    Raises:
        TypeError: apply_fn returns something else than statistics.
    """
    filled = map_with_path(
        lambda path, s: _fill(path, s, start), variables[_COLLECTION]
    )
    new = apply_fn({**variables, _COLLECTION: filled}, batch)
    if not isinstance(new, Mapping):
        raise TypeError(
            f"apply_fn returned a {type(new).__name__}, not statistics: of"
            " Flax's (outputs, new variables) return the second."
        )
    return _moments(new.get(_COLLECTION, new))


def _is_moment(path: str) -> bool:
    """Return whether a statistic is a mean, a variance or a covariance."""
    return path.rpartition("/")[2] in _POWERS


def _fill(path: str, statistic: ArrayLike, value: float) -> ArrayLike:
    """Return a moment filled with a value; other statistics as they are."""
    if not _is_moment(path):
        return statistic
    # Half precision could not hold the large number.
    wide = accumulation_dtype(jnp.asarray(statistic).dtype)
    return jnp.full_like(jnp.asarray(statistic), value, wide)


def _moments(statistics: Tree) -> Leaves:
    """Return the means and variances by path."""
    return {
        entry.path: entry.leaf
        for entry in leaves_with_paths(statistics)
        if _is_moment(entry.path)
    }


def _solve(from_zeros: Leaves, from_large: Leaves) -> Leaves:
    """Return the statistics of a batch, from two runs.

    Raises:
        ValueError: a statistic is not a running mean, or is non-finite.
    """
    found = {}
    for path, large in from_large.items():
        fresh = 1 - (large - from_zeros[path]) / _LARGE
        found[path] = from_zeros[path] / fresh
        running = (fresh > 0) & (fresh <= 1) & jnp.isfinite(found[path])
        if not np.all(running):
            raise ValueError(
                f"apply_fn does not update the statistic {path!r}, or makes it"
                " non-finite: run the network in training mode."
            )
    return found


def rescale(
    batch_stats: Tree,
    old_params: Tree,
    new_params: Tree,
    groups: Groups,
    follows: Mapping[str, str | Sequence[str]],
) -> Tree:
    """Rescale BatchNorm's statistics after a rescaling of weights.

    A kernel multiplied by c has outputs with the mean multiplied by c and the
    variance multiplied by c squared. In training BatchNorm removes the factor.
    In evaluation it does so only if its running statistics are rescaled too:
    the outputs are then unchanged, up to the layer's epsilon.

    The outputs must be proportional to the kernel. A bias added before the
    normalization must therefore be rescaled too: tie it to the kernel in the
    groups, or omit it from the network.

    Args:
        batch_stats: the collection, arrays.
        old_params: the weights that the statistics belong to.
        new_params: the same weights with rescaled groups, as by `normalize`.
        groups: scale groups in any form.
        follows: {path in batch_stats: path in params, or several}, such as
            {"norm_0": "hidden_0/kernel"}: the statistics at or below this path
            are those of outputs proportional to that parameter. This is not
            checked. Other statistics are unchanged. List every rescaled
            parameter: if the groups include a normalization's scale and bias,
            the next normalization follows them as well as its kernel,
            {"norm_1": ["hidden_1/kernel", "norm_0/scale"]}.

    Returns:
        A tree like batch_stats. At or below these paths, leaves named "mean"
        are multiplied by the factor c of each group, and leaves named "var" or
        "covariance" by its square. Other leaves are unchanged. Powers of two
        are exact factors.

    Raises:
        ValueError: an unknown path; a parameter without groups; a statistic of
            another name; a statistic that has neither the shape of the
            parameter's groups nor a parameter with a single group.

    Examples:
        >>> from psi_optax import ScaleGroup
        >>> stats = {"norm": {"mean": jnp.ones(1), "var": jnp.ones(1)}}
        >>> old = jnp.array([[3.0], [4.0]])
        >>> rescale(
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
    sources = {
        prefix: [given] if isinstance(given, str) else list(given)
        for prefix, given in follows.items()
    }
    _check_sources(sources, batch_stats, by_path)

    def rescale_statistic(path: str, statistic: ArrayLike) -> ArrayLike:
        for source in _sources_of(path, sources):
            factor = by_path[source]
            statistic = _rescale(path, jnp.asarray(statistic), source, factor)
        return statistic

    return map_with_path(rescale_statistic, batch_stats)


def _check_sources(
    sources: Mapping[str, list[str]], batch_stats: Tree, by_path: Leaves
) -> None:
    """Require paths of statistics, with paths of grouped parameters.

    Args:
        sources: {path in batch_stats: paths in params}.
        batch_stats: the collection.
        by_path: factors of the grouped parameters.

    Raises:
        ValueError: an unknown path, or a parameter without groups.
    """
    paths = [entry.path for entry in leaves_with_paths(batch_stats)]
    for prefix, listed in sources.items():
        if not any(is_within(path, prefix) for path in paths):
            raise ValueError(
                f"follows has no statistic at {prefix!r}: choose a path in"
                f" batch_stats, which has {summarize(paths)}."
            )
        for source in listed:
            if source not in by_path:
                raise ValueError(
                    f"follows[{prefix!r}] has no scale groups at {source!r}:"
                    " choose a parameter with scale groups, such as"
                    f" {summarize(sorted(by_path))}."
                )


def _sources_of(path: str, follows: Mapping[str, list[str]]) -> list[str]:
    """Return the parameters of a statistic: those of the longest prefix."""
    leading = [prefix for prefix in follows if is_within(path, prefix)]
    return follows[max(leading, key=len)] if leading else []


def _rescale(
    path: str, statistic: jax.Array, source: str, factor: jax.Array
) -> jax.Array:
    """Return a statistic after its outputs were multiplied by a factor.

    Raises:
        ValueError: a statistic of another name, or of another shape than the
            groups of its parameter.
    """
    if not _is_moment(path):
        raise ValueError(
            f"the statistic {path!r} is neither a mean nor a var: omit it from"
            " follows."
        )
    if factor.shape not in ((), statistic.shape):
        raise ValueError(
            f"the statistic {path!r} has shape {statistic.shape}, but"
            f" {source!r} has groups of shape {factor.shape}: state one group"
            " for each statistic, or one for all."
        )
    factor = factor.astype(statistic.dtype)
    linear = _POWERS[path.rpartition("/")[2]] == 1
    return statistic * (factor if linear else factor * factor)
