"""Penalties on weights that a loss adds: sums of their squares or sizes.

They are read off the program, from its beginning on: what is made of weights
alone and is a sum of squares is a penalty where it is added to something else.
The sum has to reach a result as it is, up to factors and means over a batch.
"""

import dataclasses
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from psi_optax.groups.paths import Tree, entries, some
from psi_optax.invariance import jaxprs
from psi_optax.invariance.analysis.liveness import called_body
from psi_optax.invariance.analysis.reasons import LAYOUT

Paths = frozenset[str]


@dataclasses.dataclass(frozen=True)
class Penalty:
    """A term of a loss that is made of weights alone.

    Attributes:
        names: "L2" for a sum of squares, "L1" for one of sizes, or both.
        paths: the weights.
        site: where it is added to the rest of the loss.
    """

    names: frozenset[str]
    paths: Paths
    site: str

    @property
    def name(self) -> str:
        """Return how the penalty is called."""
        return f"an {' and '.join(sorted(self.names))} penalty"


@dataclasses.dataclass(frozen=True)
class _Term:
    """What is known of an array.

    Attributes:
        kind: "fixed" without weights in it; "weights", as they are;
            "penalty"; its "root"; or "other".
        single: whether all elements are equal, as those of one number are.
        paths: the weights that it is made of.
        names: see `Penalty`.
        source: equal for weights in one order.
        added: the penalties that are terms of it.
    """

    kind: str
    single: bool = False
    paths: Paths = frozenset()
    names: frozenset[str] = frozenset()
    source: Any = None
    added: frozenset[Penalty] = frozenset()

    def but(self, **changes: Any) -> "_Term":
        """Return the same with something else known."""
        return dataclasses.replace(self, **changes)


class _Step(NamedTuple):
    """An equation, what is known of its operands, and where it is called."""

    equation: Any
    operands: list[_Term]
    site: str


_FIXED, _OTHER = _Term("fixed"), _Term("other")


def find_penalties(program: Any, params: Tree) -> list[Penalty]:
    """Return the penalties that a loss adds, in the order of their sites.

    Args:
        program: the jaxpr of a function of params and of other arrays.
        params: arrays or shapes.
    """
    inner, _ = jaxprs.open_jaxpr(program)
    terms = [
        _weights(entry.path, entry.leaf)
        for entry in entries(params)
        if not entry.is_hole
    ]
    others = inner.invars[len(terms) :]
    terms += [_FIXED.but(single=not jaxprs.shape(v)) for v in others]
    results = _follow(program, terms, jaxprs.function_site(program))
    found = frozenset().union(*(term.added for term in results))
    return sorted(found, key=lambda p: (p.site, sorted(p.paths)))


def reasons(penalties: Iterable[Penalty]) -> dict[str, str]:
    """Return for each parameter in a penalty why its scale matters."""
    found: dict[str, str] = {}
    for one in penalties:
        text = (
            f"{one.name} sees its scale: leave it out of the loss given to"
            f" find_groups, at {one.site}"
        )
        found = dict.fromkeys(one.paths, text) | found
    return found


def advice(
    penalties: Iterable[Penalty], paths: Container[str], reader: str
) -> str:
    """Return what to do about the penalties on some parameters, or "".

    Args:
        penalties: those of the loss.
        paths: the parameters whose scale matters.
        reader: the function that the loss is given to.
    """
    penalties = [p for p in penalties if any(x in paths for x in p.paths)]
    if not penalties:
        return ""
    names = " and ".join(sorted({one.name for one in penalties}))
    names = names[0].upper() + names[1:]
    sites = list(dict.fromkeys(one.site for one in penalties))
    return (
        f"{names} in the loss sees the scale of its weights: leave it out of"
        f" the loss given to {reader}, at {some(sites, 3)}"
    )


def _weights(path: str, leaf: Any) -> _Term:
    if not jax.numpy.issubdtype(jax.dtypes.result_type(leaf), np.floating):
        return _OTHER
    return _Term("weights", not np.shape(leaf), frozenset([path]), source=path)


# -- the program ------------------------------------------------------------


def _follow(program: Any, terms: Sequence[_Term], site: str) -> list[_Term]:
    """Return the terms that the results of a program are."""
    inner, _ = jaxprs.open_jaxpr(program)
    known = {v: _FIXED.but(single=not jaxprs.shape(v)) for v in inner.constvars}
    known |= zip(inner.invars, terms, strict=True)

    def read(atom: Any) -> _Term:
        return (
            _FIXED.but(single=True) if jaxprs.is_literal(atom) else known[atom]
        )

    for equation in inner.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = _equation(equation, operands, site)
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in inner.outvars]


def _equation(equation: Any, operands: list[_Term], site: str) -> list[_Term]:
    name = equation.primitive.name
    shapes = [jaxprs.shape(variable) for variable in equation.outvars]
    body = called_body(equation)
    if name == "shard_map":
        body = equation.params["jaxpr"]
    if body is not None:
        return _follow(body, operands, jaxprs.site(equation) or site)
    if all(term.kind == "fixed" for term in operands) or _is_zero(equation):
        single = all(term.single for term in operands)
        # Random numbers are made of one key.
        known = name in _OF_EACH or name in _RULES
        return [
            _FIXED.but(single=not shape or (single and known))
            for shape in shapes
        ]
    found = _OF_EACH.get(name)
    if found is not None and len(operands) == len(shapes):
        results = [found(_Step(equation, [term], site)) for term in operands]
    elif name in _RULES:
        results = [_RULES[name](_Step(equation, operands, site))]
    else:
        return [_OTHER for _ in shapes]
    return [
        term.but(single=term.single or not shape)
        for term, shape in zip(results, shapes, strict=True)
    ]


def _is_zero(equation: Any) -> bool:
    """Return whether a result is multiplied by zero."""
    return equation.primitive.name == "mul" and any(
        jaxprs.is_literal(x) and np.all(np.asarray(x.val) == 0)
        for x in equation.invars
    )


# -- operations -------------------------------------------------------------


def _moved(step: _Step) -> _Term:
    [term] = step.operands
    source = None
    if step.equation.primitive.name in (
        "reshape",
        "convert_element_type",
        "copy",
    ):
        shape = jaxprs.shape(step.equation.outvars[0])
        source = term.source and (term.source, shape)
    return term.but(source=source)


def _square(step: _Step) -> _Term:
    term = step.operands[0]
    if term.kind == "root":
        return term.but(kind="penalty")
    if term.kind != "weights":
        return _OTHER
    return term.but(kind="penalty", names=frozenset(["L2"]), source=None)


def _power(step: _Step) -> _Term:
    exponent = step.equation.params.get("y")
    if exponent is None and jaxprs.is_literal(step.equation.invars[1]):
        exponent = float(step.equation.invars[1].val)
    return _square(step) if exponent == 2 else _OTHER


def _root(step: _Step) -> _Term:
    [term] = step.operands
    is_norm = term.kind == "penalty" and term.single and term.names == {"L2"}
    return term.but(kind="root") if is_norm else _OTHER


def _size(step: _Step) -> _Term:
    [term] = step.operands
    if term.kind != "weights":
        return _OTHER
    return term.but(kind="penalty", names=frozenset(["L1"]), source=None)


def _scaled(step: _Step) -> _Term:
    """Return a product or a quotient."""
    a, b = step.operands
    if step.equation.primitive.name == "mul" and a.kind == "fixed":
        a, b = b, a
    if b.kind == "fixed":
        if a.kind == "other":
            return a
        return a.but(source=None) if b.single else _OTHER
    x, y = step.equation.invars
    if x is y and step.equation.primitive.name == "mul":
        return _square(step)
    return _OTHER


def _dot(step: _Step) -> _Term:
    """Return a sum of squares where all of an array meets itself."""
    a, b = step.operands
    same = a.kind == "weights" and a.source is not None and a.source == b.source
    (mine, yours), _ = step.equation.params["dimension_numbers"]
    if (
        not same
        or jaxprs.shape(step.equation.outvars[0])
        or tuple(mine) != tuple(yours)
    ):
        return _OTHER
    return _square(step)


def _sum(step: _Step) -> _Term:
    """Return a sum of elements, or over devices."""
    [term] = step.operands
    return term if term.kind in ("fixed", "penalty", "other") else _OTHER


def _negative(step: _Step) -> _Term:
    return step.operands[0].but(source=None)


def _added(step: _Step) -> _Term:
    """Return a sum or a difference, in which a penalty may be a term."""
    a, b = step.operands
    for one, other in ((a, b), (b, a)):
        if other.kind == "fixed" and other.single and one.kind != "weights":
            return one
    both = {a.kind, b.kind}
    if both == {"penalty"}:
        if step.equation.primitive.name == "sub":
            return _OTHER
        names, paths = a.names | b.names, a.paths | b.paths
        return _Term("penalty", a.single and b.single, paths, names)
    added = a.added | b.added
    for one in (a, b):
        if one.kind == "penalty" and one.single:
            site = jaxprs.site(step.equation) or step.site
            added |= {Penalty(one.names, one.paths, site)}
    return _OTHER.but(added=added)


def _concatenated(step: _Step) -> _Term:
    if {term.kind for term in step.operands} != {"weights"}:
        return _OTHER
    paths = frozenset().union(*(term.paths for term in step.operands))
    source = tuple(term.source for term in step.operands)
    return _Term(
        "weights", False, paths, source=None if None in source else source
    )


_Rule = Callable[[_Step], _Term]

# Rules for each of the operands, which have a result each.
_OF_EACH: dict[str, _Rule] = {
    **dict.fromkeys(LAYOUT, _moved),
    **dict.fromkeys(("reduce_sum", "psum", "psum_invariant"), _sum),
}
_RULES: dict[str, _Rule] = {
    "square": _square,
    "integer_pow": _power,
    "pow": _power,
    "sqrt": _root,
    "abs": _size,
    "mul": _scaled,
    "div": _scaled,
    "dot_general": _dot,
    "neg": _negative,
    "add": _added,
    "add_any": _added,
    "sub": _added,
    "concatenate": _concatenated,
}
