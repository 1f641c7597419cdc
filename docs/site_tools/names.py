"""Names in code lead to their entries, here and in other projects."""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.ext.intersphinx import InventoryAdapter
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

from site_tools.reference import PACKAGE

_CALL = re.compile(r"([A-Za-z_][\w.]*)(\(.*\))?", re.DOTALL)
# Modules under the names of their users.
_ALIASES = {
    "jnp": "jax.numpy",
    "lax": "jax.lax",
    "nn": "flax.linen",
    "nnx": "flax.nnx",
}
# Aliases of types that a page explains.
_EXPLAINED = {"Groups": "reference/groups"}
# Where code is no link.
_OUTSIDE = (
    nodes.reference,
    nodes.title,
    addnodes.pending_xref,
    addnodes.desc_signature,
)


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.add_post_transform(_LinkNames)
    # Before the names of other projects are looked up.
    app.connect("missing-reference", _on_missing, priority=400)
    return {"parallel_read_safe": True}


class _LinkNames(SphinxPostTransform):
    # Before references are resolved.
    default_priority = 5

    def run(self, **_: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            above = list(_ancestors(node))
            if any(isinstance(one, _OUTSIDE) for one in above):
                continue
            target = find(node.astext(), self.env)
            entries = [x for x in above if isinstance(x, addnodes.desc)]
            if target and not {target, node.astext()} & set(_own(entries)):
                link = _reference(target)
                node.replace_self(link)
                link += node


def find(text: str, env: Any) -> str | None:
    """Return the full name of what code names or calls, if it has an entry."""
    match = _CALL.fullmatch(text)
    if match is None:
        return None
    name = _without_alias(match[1])
    here = env.domains.python_domain.objects
    if f"{PACKAGE}.{name}" in here:
        return f"{PACKAGE}.{name}"
    if name in here or _is_elsewhere(name, env):
        return name
    return None if "." in name else _unique(name, here)


def _without_alias(name: str) -> str:
    head, dot, rest = name.partition(".")
    return _ALIASES.get(head, head) + dot + rest if dot else name


def _unique(name: str, objects: dict[str, Any]) -> str | None:
    """Return the only function or class of this name."""
    found = [
        full
        for full, entry in objects.items()
        if full.endswith(f".{name}") and entry.objtype in ("function", "class")
    ]
    return found[0] if len(found) == 1 else None


def _is_elsewhere(name: str, env: Any) -> bool:
    inventory = InventoryAdapter(env).main_inventory
    return any(name in names for names in inventory.values())


def _own(entries: list[addnodes.desc]) -> Iterator[str]:
    """Yield the names of entries and of their parameters."""
    for entry in entries:
        for signature in entry.findall(addnodes.desc_signature):
            yield f"{signature['module']}.{signature['fullname']}"
            for parameter in signature.findall(addnodes.desc_parameter):
                yield parameter.astext().partition(":")[0].strip("* ")


def _ancestors(node: nodes.Node) -> Iterator[nodes.Node]:
    while node.parent is not None:
        node = node.parent
        yield node


def _reference(target: str) -> addnodes.pending_xref:
    return addnodes.pending_xref(
        "", refdomain="py", reftype="obj", reftarget=target, refexplicit=True
    )


def _on_missing(
    app: Any, env: Any, node: addnodes.pending_xref, text: nodes.Node
) -> nodes.Node | None:
    """Resolve annotations of one word, which are the package's own.

    A type checker knows that they exist; an alias of types has no entry.
    """
    node["reftarget"] = _without_alias(node["reftarget"])
    if node.get("reftype") != "class" or "." in node["reftarget"]:
        return None
    page = _EXPLAINED.get(node["reftarget"])
    if page in env.all_docs:
        return make_refnode(app.builder, node["refdoc"], page, "", text)
    domain = env.domains.python_domain
    target = _unique(node["reftarget"], domain.objects)
    if target is None:
        return text
    link = _reference(target)
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", target, link, text
    )
