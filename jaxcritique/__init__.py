"""Training reasoning models with critics in JAX (arXiv 2411.16579)."""

__version__ = "0.1.0"
