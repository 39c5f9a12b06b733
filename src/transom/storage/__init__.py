"""The shelves: one relational database, written by one thread, read by several."""
