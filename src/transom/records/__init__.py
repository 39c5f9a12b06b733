"""What happened: each answer as a statement that binds its server, kept durably."""
