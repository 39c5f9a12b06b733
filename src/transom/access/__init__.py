"""Who may do what: keys and callers."""
