"""Policies and critics on transformers models, and the nano model."""
