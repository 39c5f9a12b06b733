"""Looking inside from Python: a builder that reads like the papers and makes plans, and their experiments."""
