"""How secrets are spelled, and what their hashes are keyed with."""
