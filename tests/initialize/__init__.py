"""Tests of initializations."""
