"""Two small environments, for tests and studies."""
