"""What researchers bring: vectors, directions and weights, content-addressed and private to a project."""
