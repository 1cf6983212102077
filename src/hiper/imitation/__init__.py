"""The warm start, in which a policy imitates an expert's demonstrations."""
