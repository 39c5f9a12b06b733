"""A load generator for any OpenAI-compatible server, and what becomes of its figures."""
