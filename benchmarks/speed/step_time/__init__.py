"""Time of one optimizer step, as a ratio to the inner optimizer alone.

State and parameters are updated by one jitted, donated call; gradients are
fixed. Cases run in turns, and ratios are formed turn by turn. Beside them run
two yardsticks of memory traffic: w + 0.01 g in place, which moves 12 bytes for
each float32 weight, and a copy of a large array. Tracing and compiling are
timed too, in alternating order; the least of each counts.
"""

from benchmarks.speed.step_time.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
