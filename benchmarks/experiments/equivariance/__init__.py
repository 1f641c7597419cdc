"""Direction errors of runs whose first weights are rescaled."""
