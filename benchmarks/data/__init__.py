"""Data sets of images: digits, MNIST, Fashion-MNIST, CIFAR and arrays on disk.

Files are searched in the folder named by `PSI_OPTAX_DATA`, and checked.
"""

from benchmarks.data.dataset import NAMES, Dataset, hold_out, load

__all__ = ["NAMES", "Dataset", "hold_out", "load"]
