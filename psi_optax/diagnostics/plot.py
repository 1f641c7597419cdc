"""A picture of what `read_monitor` collected."""

from collections.abc import Mapping, Sequence
from typing import Any


def plot_monitor(history: Sequence[Mapping[str, float]]) -> Any:
    """Draws the history of a run: a panel a quantity, a line a leaf.

    Needs matplotlib.

    Args:
        history: what `read_monitor` returned, once a step or less often; all of
            the same keys.

    Returns:
        A `matplotlib.figure.Figure` without a window: save it by `savefig`; a
        notebook that has imported `matplotlib.pyplot` shows it. The horizontal
        axis is the place in history.

    Raises:
        ImportError: matplotlib is missing.
        TypeError: one dictionary, not a list of them.
        ValueError: the history is empty, or its keys change.

    Examples:
        >>> history = [{"rotation/a": 0.1}, {"rotation/a": 0.05}]
        >>> figure = plot_monitor(history)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['rotation']
    """
    if isinstance(history, Mapping):
        raise TypeError("history is one dictionary: give a list of them.")
    if not history:
        raise ValueError(
            "the history is empty: append read_monitor(opt_state) to it."
        )
    for index, seen in enumerate(history):
        if seen.keys() != history[0].keys():
            raise ValueError(
                f"history[{index}] has other keys than history[0]: plot the"
                " history of one run."
            )
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "plot_monitor draws with matplotlib: pip install matplotlib"
        ) from None
    panels: dict[str, list[str]] = {}
    for key in history[0]:
        panels.setdefault(key.partition("/")[0], []).append(key)
    figure = Figure(figsize=(7, 2 * len(panels)), layout="constrained")
    rows = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (quantity, keys) in zip(rows, panels.items(), strict=True):
        for key in keys:
            line = [seen[key] for seen in history]
            axes.plot(line, label=key.partition("/")[2])
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
    rows[-1].set_xlabel("place in the history")
    rows[0].legend(fontsize="small")
    return figure
