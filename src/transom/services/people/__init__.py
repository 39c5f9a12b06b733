"""People and what is theirs: accounts, sessions, projects, keys, rights, terms."""
