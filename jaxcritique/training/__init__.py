"""Packing, loss, the train step, checkpoints and the loop."""
