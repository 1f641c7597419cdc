"""Deliberate faults in copies of the package, which the tests must notice."""
