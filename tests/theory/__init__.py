"""The mathematics of PSI: what papers prove and the design promises."""
