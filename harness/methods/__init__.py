"""Features to energies, a method a file; ``experiment/choices.py`` lists them and their fields."""
