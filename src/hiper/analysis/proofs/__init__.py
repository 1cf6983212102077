"""Proofs that run: exact expectation and variance of estimators on processes small enough to enumerate."""
