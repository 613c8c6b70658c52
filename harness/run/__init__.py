"""A study's missing cells to records."""
