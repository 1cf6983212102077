"""Samplers: prompts as token ids in, responses as token ids and log-probabilities out."""
