"""Plot of a history that `read_monitor` has returned."""

from collections.abc import Mapping, Sequence
from typing import Any


def plot_monitor(history: Sequence[Mapping[str, float]]) -> Any:
    """Plot the history of a run: one panel per quantity, one line per leaf.

    Needs matplotlib.

    Args:
        history: results of `read_monitor`, in the order of steps, not
            necessarily of each step; all with the same keys.

    Returns:
        A `matplotlib.figure.Figure` without a window: save it by `savefig`. A
        notebook displays it after `%matplotlib inline`. The horizontal axis is
        the index in history.

    Raises:
        ImportError: matplotlib is missing.
        TypeError: one dictionary, not a list of them.
        ValueError: the history is empty, or its keys differ.

    Examples:
        >>> history = [{"rotation/a": 0.1}, {"rotation/a": 0.05}]
        >>> figure = plot_monitor(history)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['rotation']
    """
    _check_history(history)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "plot_monitor needs matplotlib: pip install matplotlib"
        ) from None
    panels: dict[str, list[str]] = {}
    for key in history[0]:
        panels.setdefault(key.partition("/")[0], []).append(key)
    figure = Figure(figsize=(7, 2 * len(panels)), layout="constrained")
    rows = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axes, (quantity, keys) in zip(rows, panels.items(), strict=True):
        for key in keys:
            line = [values[key] for values in history]
            axes.plot(line, label=key.partition("/")[2])
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
    rows[-1].set_xlabel("index in the history")
    rows[0].legend(fontsize="small")
    return figure


def _check_history(history: Sequence[Mapping[str, float]]) -> None:
    """Require a list of dictionaries with the same keys.

    Raises:
        TypeError: one dictionary, not a list of them.
        ValueError: the history is empty, or its keys differ.
    """
    if isinstance(history, Mapping):
        raise TypeError("history is one dictionary: pass a list of them.")
    if not history:
        raise ValueError(
            "history is empty: append read_monitor(opt_state) to it."
        )
    for index, values in enumerate(history):
        if values.keys() != history[0].keys():
            raise ValueError(
                f"history[{index}] has other keys than history[0]: pass the"
                " history of one run."
            )
