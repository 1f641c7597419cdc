"""Findings as text: the full table, a summary, patterns to paste."""
