"""Measurements of the package: experiments, times, and a training program."""
