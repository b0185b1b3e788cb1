"""Packing, loss, the train step, checkpoints and the loop."""


class CannotTrain(ValueError):
    """A fine-tuning cannot begin; the message says why, to whoever started the program."""
