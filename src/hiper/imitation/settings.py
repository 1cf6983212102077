"""The settings a warm start depends on, apart from its code so that they can be read without torch."""

from __future__ import annotations

WARM_START_PREFIXES = ("seed", "env.", "prompt.", "model.", "warm_start.", "learner.max_grad_norm")
"""Prefixes of the settings a warm start depends on. Other settings may change without invalidating it."""
