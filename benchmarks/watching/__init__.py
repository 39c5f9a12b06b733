"""Detecting change from outside, measured: servers that lie, and trials of `transom watch` on them."""
