"""The mathematics of PSI: what the papers prove, and what the design promises."""
