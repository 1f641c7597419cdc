"""Notes on an error that a loss raises: likely causes, with remedies."""

from collections.abc import Iterator, Sequence

_VARIABLES = (
    "A Flax Linen module lacks variables: pass all that `init` returns, as in"
    " find_groups(model, variables, x), or give them to `apply` in the loss."
)
# By the names of errors of frameworks, which are not imported here.
_BY_ERROR = {
    "TraceContextError": (
        "The loss changes an NNX object that it closes over, such as nnx.Rngs"
        " or a model: pass it as an argument, or make it inside the loss."
    ),
    "ModifyScopeVariableError": (
        "The loss updates variables of a Flax Linen module: pass"
        ' mutable=["batch_stats"] to `apply`, and has_aux=True here.'
    ),
    "InvalidRngError": (
        "A Flax Linen module needs random keys, as Dropout does: wrap it, as in"
        " find_groups(lambda variables, x: model.apply(variables, x,"
        ' rngs={"dropout": key}), variables, x).'
    ),
    "ApplyScopeInvalidVariablesStructureError": _VARIABLES,
    "ApplyScopeInvalidVariablesTypeError": _VARIABLES,
    "ScopeCollectionNotFound": _VARIABLES,
    "ScopeParamNotFoundError": _VARIABLES,
    "ScopeVariableNotFoundError": _VARIABLES,
}


def notes_on(error: Exception, names: Sequence[str]) -> Iterator[str]:
    """Yield notes on an error.

    Args:
        error: raised while the loss was traced.
        names: the names of axes of devices that are bound.
    """
    yield (
        "while calling loss_fn(params, *args): it has to take params of"
        " this structure and these arguments, and to be traceable by jit."
    )
    if note := _BY_ERROR.get(type(error).__name__):
        yield note
    if isinstance(error, NameError) and "axis name" in str(error):
        yield (
            "The loss refers to an axis of devices: pass its name, such as"
            ' axis_name="batch".'
        )
    if names:
        yield (
            f"axis_name={tuple(names)} is bound by jax.vmap, to two devices for"
            " each name. If the loss needs another number of devices, as in"
            " ppermute, a reshape or axis_index_groups, or an operation that"
            " vmap has no rule for, such as pcast: pass the function that"
            " jax.shard_map returns, without axis_name."
        )
