"""The measurement: rescale weights and evaluate the loss."""
