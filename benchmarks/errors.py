from benchmarks.harness.files import *  # noqa: D100, F403
