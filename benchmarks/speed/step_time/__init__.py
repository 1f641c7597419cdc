"""CPU time, memory traffic and compilation of one optimizer step.

State and parameters are updated by one jitted, donated call; gradients are
fixed. Optimizers run in turns with the plain one of the same kind, and ratios
are formed turn by turn, of CPU time and of elapsed time. Bytes are those of
XLA's cost analysis. Tracing and compiling are timed in alternating order; the
least CPU time of each counts.

    python -m benchmarks step_time --docs

measures everything that docs/step-time.md shows of JAX, and fills the page. It
takes less than 12 minutes on two cores.
"""

from benchmarks.speed.step_time.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
