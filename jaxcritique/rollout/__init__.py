"""Sampling from models: one interface, and what stands behind it."""
