"""Evaluation on held-out panels with the rollout code of training."""
