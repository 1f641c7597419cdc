"""What must hold for every tree, drawn at random."""
