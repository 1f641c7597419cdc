"""Measurements of time, memory and communication.

Times are ratios to a baseline that runs in turns with what is measured.
"""
