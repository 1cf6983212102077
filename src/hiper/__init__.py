"""HiPER: hierarchical plan-execute reinforcement learning for LLM agents (arXiv 2602.16165)."""

from importlib.metadata import version

__version__ = version("hiper")
