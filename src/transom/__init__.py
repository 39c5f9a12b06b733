"""Open access to AI models whose weights stay where they are."""

__version__ = "0.1.0"
