"""Colours and markers of figures."""

# The colours of Okabe and Ito, which the colour-blind can tell apart.
COLOURS = (
    *("#E69F00", "#D55E00", "#CC79A7", "#56B4E9"),
    *("#999999", "#000000", "#0072B2", "#009E73"),
)
MARKERS = "osv^DPX*"
