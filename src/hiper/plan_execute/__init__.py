"""The plan-execute interface: prompts, responses, and which tokens of a response made which decision."""
