"""What every estimator makes of the same stored episodes: per turn and per token, side by side."""
