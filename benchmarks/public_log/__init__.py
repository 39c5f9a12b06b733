"""What `benchmarks/log.py` does: logs that grow, strangers who read them, bytes that are changed."""
