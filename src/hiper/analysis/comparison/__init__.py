"""Comparison of runs: methods over several seeds, on the same held-out tasks."""
