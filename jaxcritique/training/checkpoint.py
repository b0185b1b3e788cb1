"""Checkpoints of the train state: the one place that knows Orbax."""

import dataclasses
import pathlib
from types import TracebackType

import jax
from orbax.checkpoint import v1 as ocp

from jaxcritique.training.step import TrainState


class Checkpoints:
    """The newest checkpoints of one training run, written in the background.

    A checkpoint that was being written when the process died is ignored: Orbax renames a finished
    one into place.
    """

    def __init__(self, folder: pathlib.Path, every_steps: int):
        """Keeps the two newest of the checkpoints in `folder`, one each `every_steps`."""
        training = ocp.training
        self._checkpointer = training.Checkpointer(
            folder.absolute(),
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(every_steps),
            preservation_policy=training.preservation_policies.LatestN(2),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._checkpointer.close()

    def restore(self, like: TrainState) -> TrainState | None:
        """Returns the newest state with the shapes and shardings of `like`; None: there is none."""
        if self._checkpointer.latest is None:
            return None
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _tree(like)
        )
        return TrainState(**self._checkpointer.load(abstract_state=abstract))

    def save(self, state: TrainState, force: bool = False) -> None:
        """Writes the state if its step is due, or in any case if `force`."""
        step = int(state.step)
        if force or self._checkpointer.should_save(step):
            self._checkpointer.save_async(step, _tree(state), force=force)


def _tree(state: TrainState) -> dict:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
