"""Training scripts in the shape of public ones, before and after a switch."""
