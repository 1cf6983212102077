"""Warm start, PPO updates, the training loop, and the run directory."""
