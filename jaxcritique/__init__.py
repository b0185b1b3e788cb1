"""Training reasoning models with critics in JAX (arXiv 2411.16579)."""
