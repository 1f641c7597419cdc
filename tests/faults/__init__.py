"""What goes wrong, done to every public transform."""
