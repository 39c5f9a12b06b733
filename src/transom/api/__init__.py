"""Doors for programs: HTTP to use cases and back; nothing is decided here."""
