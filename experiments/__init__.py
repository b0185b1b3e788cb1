"""One absl program per experiment: python -m experiments.NAME --flagfile=..."""
