"""Names that are known, and the nearest of them to one that is not."""

import difflib
from collections.abc import Collection


def unknown(text: str, names: Collection[str]) -> str:
    """Return an error that lists the known names and suggests the nearest.

    Examples:
        >>> unknown("resnt", ["cnn", "resnet"])
        "'resnt' is none of cnn, resnet (is it 'resnet'?)"
    """
    near = difflib.get_close_matches(text, names, 1)
    return f"{text!r} is none of {', '.join(names)}" + "".join(
        f" (is it {found!r}?)" for found in near
    )
