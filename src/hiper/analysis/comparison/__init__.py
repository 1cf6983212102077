"""Runs side by side: methods over seeds, on the same held-out tasks."""
