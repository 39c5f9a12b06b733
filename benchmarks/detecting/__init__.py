"""Records that say other than what was done, and how they are found out."""
