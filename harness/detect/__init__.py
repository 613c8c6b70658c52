"""A run's weights to a detector that leaves the house."""
