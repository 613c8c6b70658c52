"""What is asked and what remains: values, no torch."""
