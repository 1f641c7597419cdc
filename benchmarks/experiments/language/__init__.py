"""A small language model, by AdamW and at a matched rotation.

AdamW is tuned first. Then methods that preserve norms train the same model at
multiples of the rotation at which AdamW settles. The page
docs/experiments/language.md describes the method.
"""

from benchmarks.experiments.language.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
