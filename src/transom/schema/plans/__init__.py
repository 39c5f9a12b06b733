"""Plans: what is to be read and written inside a model, as data."""
