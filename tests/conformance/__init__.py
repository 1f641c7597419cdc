"""What optax demands of a transform, asked of every one of ours."""
