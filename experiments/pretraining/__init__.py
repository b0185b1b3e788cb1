"""Pretraining of the tiny bases that ship with the package."""
