"""Checkpoints of the train state: the one place that knows Orbax."""

import dataclasses
import pathlib
from types import TracebackType
from typing import Any

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
        # Orbax's own policies do not fit the protocols it declares for them.
        save: Any = training.save_decision_policies.FixedIntervalPolicy(every_steps)
        keep: Any = training.preservation_policies.LatestN(2)
        self._checkpointer = training.Checkpointer(
            str(folder.absolute()),
            save_decision_policy=save,
            preservation_policy=keep,
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

    @property
    def newest_step(self) -> int:
        """The step of the newest checkpoint; 0: there is none."""
        return self._checkpointer.latest.step if self._checkpointer.latest else 0

    def restore(self, like: TrainState) -> TrainState | None:
        """Returns the newest state with the shapes and shardings of `like`; None: there is none."""
        if self._checkpointer.latest is None:
            return None
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _tree(like)
        )
        return TrainState(**self._checkpointer.load(abstract_state=abstract))

    def due(self, step: int) -> bool:
        """Whether `save` would write the state of this step."""
        return self._checkpointer.should_save(step)

    def save(self, state: TrainState) -> None:
        """Writes the state in the background, if its step is due."""
        self._checkpointer.save_async(int(state.step), _tree(state))


def _tree(state: TrainState) -> dict:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
