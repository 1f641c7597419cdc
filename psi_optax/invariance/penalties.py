"""Find penalties on weights that a loss adds: sums of squares or of sizes.

They are read off the program: a sum of squares of weights alone is a penalty
where it is added to another term. The sum has to reach a result unchanged, up
to factors and means over a batch.
"""

import dataclasses
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from psi_optax._text import summarize
from psi_optax.invariance import jaxprs
from psi_optax.invariance.sites import function_site, site_of
from psi_optax.invariance.tracing import TracedLoss, is_weight

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
        """The name of the penalty, with an article."""
        return f"an {' and '.join(sorted(self.names))} penalty"


@dataclasses.dataclass(frozen=True)
class _Term:
    """Facts about an array of the program.

    Attributes:
        kind: "fixed" without weights in it; "weights", as they are;
            "penalty"; its "root"; or "other".
        single: whether all elements are equal, as those of one number are.
        paths: the weights that it is made of.
        names: see `Penalty`.
        source: equal for weights in one order.
        added: the penalties that are terms of it.
    """

    kind: Literal["fixed", "weights", "penalty", "root", "other"]
    single: bool = False
    paths: Paths = frozenset()
    names: frozenset[str] = frozenset()
    source: Any = None
    added: frozenset[Penalty] = frozenset()

    def replace(self, **changes: Any) -> "_Term":
        """Return the same array with other facts."""
        return dataclasses.replace(self, **changes)


class _Step(NamedTuple):
    """An equation with its operands.

    Attributes:
        equation: the equation.
        operands: the facts about its operands.
        site: the place in the user's source of the call around it.
    """

    equation: Any
    operands: list[_Term]
    site: str

    @property
    def primitive(self) -> str:
        """The name of the primitive."""
        return self.equation.primitive.name


_FIXED, _OTHER = _Term("fixed"), _Term("other")


def find_penalties(loss: TracedLoss) -> list[Penalty]:
    """Return the penalties that a loss adds, in the order of their sites."""
    inner, _ = jaxprs.open_jaxpr(loss.program)
    terms = [_weights(entry.path, entry.leaf) for entry in loss.parameters]
    terms += [_fixed(v) for v in inner.invars[len(terms) :]]
    results = _follow(loss.program, terms, function_site(loss.program))
    found = frozenset().union(*(term.added for term in results))
    return sorted(found, key=lambda p: (p.site, sorted(p.paths)))


def reasons(penalties: Iterable[Penalty]) -> dict[str, str]:
    """Return why the scale of each parameter in a penalty matters."""
    found: dict[str, str] = {}
    for one in penalties:
        text = (
            f"{one.name} sees its scale: leave it out of the loss passed to"
            f" find_groups, at {one.site}"
        )
        found = dict.fromkeys(one.paths, text) | found
    return found


def penalty_advice(
    penalties: Iterable[Penalty], paths: Container[str], reader: str
) -> str:
    """Return advice on the penalties on some parameters; "" without any.

    Args:
        penalties: the penalties of the loss.
        paths: the parameters whose scale matters.
        reader: the function that the loss is passed to.
    """
    penalties = [p for p in penalties if any(x in paths for x in p.paths)]
    if not penalties:
        return ""
    names = " and ".join(sorted({one.name for one in penalties}))
    names = names[0].upper() + names[1:]
    sites = list(dict.fromkeys(one.site for one in penalties))
    return (
        f"{names} in the loss sees the scale of its weights: leave it out of"
        f" the loss passed to {reader}, at {summarize(sites, 3)}"
    )


def _weights(path: str, leaf: Any) -> _Term:
    if not is_weight(leaf):
        return _OTHER
    single = not np.shape(leaf)
    return _Term("weights", single, frozenset([path]), source=path)


def _fixed(variable: Any) -> _Term:
    return _FIXED.replace(single=not jaxprs.shape_of(variable))


# -- the program ------------------------------------------------------------


def _follow(program: Any, terms: Sequence[_Term], site: str) -> list[_Term]:
    """Return the facts about the results of a program."""
    inner, _ = jaxprs.open_jaxpr(program)
    known = {v: _fixed(v) for v in inner.constvars}
    known |= zip(inner.invars, terms, strict=True)

    def read(atom: Any) -> _Term:
        if jaxprs.is_literal(atom):
            return _FIXED.replace(single=True)
        return known[atom]

    for equation in inner.eqns:
        operands = [read(atom) for atom in equation.invars]
        results = _equation(_Step(equation, operands, site))
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in inner.outvars]


def _equation(step: _Step) -> list[_Term]:
    """Return the facts about the results of an equation."""
    equation, operands, site = step
    body = jaxprs.called_body(equation)
    if step.primitive == "shard_map":
        body = equation.params["jaxpr"]
    if body is not None:
        return _follow(body, operands, site_of(equation) or site)
    results = _results(step)
    return [
        term.replace(single=term.single or not jaxprs.shape_of(v))
        for term, v in zip(results, equation.outvars, strict=True)
    ]


def _results(step: _Step) -> list[_Term]:
    equation, operands, site = step
    count = len(equation.outvars)
    is_each, is_one = step.primitive in _OF_EACH, step.primitive in _RULES
    if all(term.kind == "fixed" for term in operands) or _is_zero(equation):
        single = all(term.single for term in operands)
        # Random numbers are made of one key.
        known = is_each or is_one
        return [_FIXED.replace(single=single and known)] * count
    if is_each and len(operands) == count:
        function = _OF_EACH[step.primitive]
        return [function(_Step(equation, [x], site)) for x in operands]
    if is_one:
        return [_RULES[step.primitive](step)]
    return [_OTHER] * count


def _is_zero(equation: Any) -> bool:
    """Check that an equation multiplies by zero."""
    return equation.primitive.name == "mul" and any(
        jaxprs.is_literal(x) and np.all(np.asarray(x.val) == 0)
        for x in equation.invars
    )


# -- operations -------------------------------------------------------------


def _moved(step: _Step) -> _Term:
    [term] = step.operands
    source = None
    if step.primitive in (
        "reshape",
        "convert_element_type",
        "copy",
    ):
        shape = jaxprs.shape_of(step.equation.outvars[0])
        source = term.source and (term.source, shape)
    return term.replace(source=source)


def _square(step: _Step) -> _Term:
    term = step.operands[0]
    if term.kind == "root":
        return term.replace(kind="penalty")
    if term.kind != "weights":
        return _OTHER
    return term.replace(kind="penalty", names=frozenset(["L2"]), source=None)


def _power(step: _Step) -> _Term:
    exponent = step.equation.params.get("y")
    if exponent is None and jaxprs.is_literal(step.equation.invars[1]):
        exponent = float(step.equation.invars[1].val)
    return _square(step) if exponent == 2 else _OTHER


def _root(step: _Step) -> _Term:
    [term] = step.operands
    is_norm = term.kind == "penalty" and term.single and term.names == {"L2"}
    return term.replace(kind="root") if is_norm else _OTHER


def _size(step: _Step) -> _Term:
    [term] = step.operands
    if term.kind != "weights":
        return _OTHER
    return term.replace(kind="penalty", names=frozenset(["L1"]), source=None)


def _scaled(step: _Step) -> _Term:
    """Return a product or a quotient."""
    a, b = step.operands
    if step.primitive == "mul" and a.kind == "fixed":
        a, b = b, a
    if b.kind == "fixed":
        if a.kind == "other":
            return a
        return a.replace(source=None) if b.single else _OTHER
    x, y = step.equation.invars
    if x is y and step.primitive == "mul":
        return _square(step)
    return _OTHER


def _dot(step: _Step) -> _Term:
    """Return a sum of squares where an array is contracted with itself."""
    a, b = step.operands
    same = a.kind == "weights" and a.source is not None and a.source == b.source
    (mine, yours), _ = step.equation.params["dimension_numbers"]
    if (
        not same
        or jaxprs.shape_of(step.equation.outvars[0])
        or tuple(mine) != tuple(yours)
    ):
        return _OTHER
    return _square(step)


def _sum(step: _Step) -> _Term:
    """Return a sum of elements, or over devices."""
    [term] = step.operands
    return term if term.kind in ("fixed", "penalty", "other") else _OTHER


def _negative(step: _Step) -> _Term:
    return step.operands[0].replace(source=None)


def _added(step: _Step) -> _Term:
    """Return a sum or a difference, in which a penalty may be a term."""
    a, b = step.operands
    for one, other in ((a, b), (b, a)):
        if other.kind == "fixed" and other.single and one.kind != "weights":
            return one
    both = {a.kind, b.kind}
    if both == {"penalty"}:
        if step.primitive == "sub":
            return _OTHER
        names, paths = a.names | b.names, a.paths | b.paths
        return _Term("penalty", a.single and b.single, paths, names)
    added = a.added | b.added
    for one in (a, b):
        if one.kind == "penalty" and one.single:
            site = site_of(step.equation) or step.site
            added |= {Penalty(one.names, one.paths, site)}
    return _OTHER.replace(added=added)


def _concatenated(step: _Step) -> _Term:
    if {term.kind for term in step.operands} != {"weights"}:
        return _OTHER
    paths = frozenset().union(*(term.paths for term in step.operands))
    source = tuple(term.source for term in step.operands)
    return _Term(
        "weights", False, paths, source=None if None in source else source
    )


_Rule = Callable[[_Step], _Term]

# Rules for primitives with one result for each operand.
_OF_EACH: dict[str, _Rule] = {
    **dict.fromkeys(jaxprs.LAYOUT, _moved),
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
