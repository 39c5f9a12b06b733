"""Shelves: the database and its one writer."""
