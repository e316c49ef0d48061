"""Training and evaluation of a model: one loop for every method, every trial and every seed."""
