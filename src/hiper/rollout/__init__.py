"""Playing many episodes at once with one language model."""
