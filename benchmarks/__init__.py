"""Measuring Transom and its peers, the same way and at the same time."""
