"""The plan-execute interface: what the model reads, what it answers, and which tokens made which decision."""
