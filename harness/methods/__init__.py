"""Features to energies."""
