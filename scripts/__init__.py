"""What people and continuous integration run from a checkout."""
