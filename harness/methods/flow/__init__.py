"""One 2-D normalizing flow."""
