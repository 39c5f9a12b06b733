"""The same work inside a model, by different libraries."""
