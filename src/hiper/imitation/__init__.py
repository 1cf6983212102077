"""The warm start: an expert's demonstrations, and a policy that imitates them."""
