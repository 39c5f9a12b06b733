"""Projects: who is in them, what each may do, and when their records open."""
