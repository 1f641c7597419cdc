"""A small language model, by AdamW and at a matched rotation.

The page docs/experiments/language.md describes the method.
"""

from benchmarks.experiments.language.experiment import MEASUREMENT

__all__ = ["MEASUREMENT"]
