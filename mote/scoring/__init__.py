"""How a model is scored: views to cosines to top-1, and the protocol that fixes a number."""
