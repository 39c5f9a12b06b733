"""Plans carried out inside a model, explained beforehand, and their results."""
