"""Runs measurements: options, resumption, progress, JSON, pages and figures.

A measurement is a description, see `measurement.Measurement`.
"""
