"""The data set that comes along."""
