"""Compiled inner loops for the CPU. Each computes a row from that row's inputs alone, in a fixed order."""
