"""The command line, split by who types it: operators and researchers."""
