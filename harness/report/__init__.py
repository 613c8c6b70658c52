"""Records to tables, plots, sentences, pages."""
