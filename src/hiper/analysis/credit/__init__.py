"""Comparison of the credit that estimators give the same stored episodes, per turn and per token."""
