"""The places in a user's source that equations of a program come from."""

import pathlib
import re
from typing import Any

from psi_optax.invariance import jaxprs

_PACKAGE = str(pathlib.Path(__file__).parents[1])


def site_of(equation: Any) -> str:
    """Return the file, line, function and module scope of an equation."""
    info = equation.source_info
    scope = re.sub(r"(^|/)vmap\(\)", "", str(info.name_stack))
    frames = info.traceback.frames if info.traceback is not None else ()
    frame = next((f for f in frames if not _is_library(f.file_name)), None)
    if frame is None:
        return scope
    line = getattr(frame, "line_num", None) or getattr(frame, "start_line", 0)
    file = frame.file_name.rsplit("/", 1)[-1]
    place = f"{file}:{line} ({frame.function_name})"
    return f"{place}, {scope}" if scope else place


def result_sites(jaxpr: Any) -> list[str]:
    """Return the site of each result of a program; "" if unknown."""
    inner, _ = jaxprs.open_jaxpr(jaxpr)
    made_by = {v: e for e in inner.eqns for v in e.outvars}
    makers = [
        None if jaxprs.is_literal(atom) else made_by.get(atom)
        for atom in inner.outvars
    ]
    return ["" if maker is None else site_of(maker) for maker in makers]


def function_site(jaxpr: Any) -> str:
    """Return the site of the function of a program; "" if unknown."""
    inner, _ = jaxprs.open_jaxpr(jaxpr)
    name, at, place = str(inner.debug_info.func_src_info).partition(" at ")
    return f"{place.rsplit('/', 1)[-1]} ({name})" if at else ""


def _is_library(file: str) -> bool:
    if file.startswith(("<stdin", "<ipython")):
        return False
    return "site-packages" in file or file.startswith((_PACKAGE, "<"))
