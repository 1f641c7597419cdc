"""Colours and markers of figures, until all import them from the harness."""

from benchmarks.harness.colours import COLOURS, MARKERS
from benchmarks.harness.machine import versions

__all__ = ["COLOURS", "MARKERS", "versions"]
