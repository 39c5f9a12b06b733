"""Watching a log and its server from outside: monitors, mirrors, and what came of challenges."""
