"""Policies and critics through transformers, and the nano model with its tokenizer."""
