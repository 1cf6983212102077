"""Proofs that run: on processes small enough to enumerate, what estimators expect and how they vary is exact."""
