"""The style that figures share: thin grids, small titles and legends."""

from matplotlib import rc_context

styled = rc_context(
    {
        "axes.grid": True,
        "axes.titlesize": "medium",
        "figure.constrained_layout.use": True,
        "grid.alpha": 0.3,
        "legend.fontsize": "small",
    }
)
"""A decorator of functions that draw figures."""
