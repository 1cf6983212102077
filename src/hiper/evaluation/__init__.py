"""Playing a panel with the training rollout code, and saying honestly what came of it."""
