"""Images to features, once."""
