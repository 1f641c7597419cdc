"""The harness of all measurements."""
