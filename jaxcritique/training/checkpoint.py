"""Checkpoints: the one place that knows Orbax."""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

import pathlib
from typing import Any, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from jaxcritique.training.step import TrainState

T = TypeVar("T")


class Checkpoints:
    """The newest checkpoints of one training run, written in the background.

    A checkpoint that was being written when the process died is ignored: Orbax renames it into
    place once it is complete.
    """

    def __init__(self, folder: pathlib.Path, every_steps: int):
        """Writes a checkpoint every `every_steps` to `folder`, and keeps the two newest."""
        training = ocp.training
        # The types of Orbax's policies do not match its own protocols.
        save: Any = training.save_decision_policies.FixedIntervalPolicy(every_steps)
        preserve: Any = training.preservation_policies.LatestN(2)
        self._checkpointer = training.Checkpointer(
            str(folder.absolute()),
            save_decision_policy=save,
            preservation_policy=preserve,
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def choose(self, step: int | None) -> int:
        """Returns the step to resume from: `step` if given, otherwise the newest; 0: there is none.

        Checkpoints after `step` are deleted: the run writes them again.
        """
        if step is None:
            return self.steps[-1] if self.steps else 0
        for later in (s for s in self.steps if s > step):
            self._checkpointer.delete(later)
        return step

    def restore(self, step: int, like: TrainState) -> TrainState:
        """Returns the state of a step with the shapes and shardings of `like`."""
        flat = self._checkpointer.load(step, abstract_state=_flat(like))
        return _unflat(like, flat)

    def due(self, step: int) -> bool:
        """Whether the state of this step is to be saved."""
        return self._checkpointer.should_save(step)

    def save(self, state: TrainState) -> None:
        """Writes the state in the background, due or not."""
        step = int(state.step)
        if step not in self.steps:
            self._checkpointer.save_async(step, _flat(state), force=True)


def check_step(folder: pathlib.Path, step: int) -> None:
    """Checks that a step has a checkpoint.

    Raises:
      FileNotFoundError: it has none; the message names the steps that do.
    """
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())
    if step not in steps:
        raise FileNotFoundError(
            f"{folder}: there is no checkpoint of step {step}; there are "
            f"{', '.join(map(str, steps)) or 'none'}. Choose one of them, or leave `from_step` out "
            "to resume from the newest."
        )


def save_arrays(folder: pathlib.Path, tree: Any) -> None:
    """Writes a tree of arrays as one Orbax checkpoint."""
    ocp.save(str(folder.absolute()), _flat(tree))


def load_arrays(folder: pathlib.Path, shapes: T) -> T:
    """Reads what `save_arrays` wrote, in the dtypes it was written in, onto the default device.

    Raises:
      ValueError: the arrays are not those `shapes` describes.
    """
    stored = ocp.metadata(str(folder.absolute())).metadata
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like: dict[str, jax.ShapeDtypeStruct] = {}
    for name, wanted in _flat(shapes).items():
        if name not in stored or stored[name].shape != wanted.shape:
            there = stored[name].shape if name in stored else "missing"
            raise ValueError(f"{folder}: {name} is {there}, expected {wanted.shape}")
        like[name] = jax.ShapeDtypeStruct(wanted.shape, stored[name].dtype, sharding=one)
    return _unflat(shapes, ocp.load(str(folder.absolute()), abstract_state=like))


def _flat(tree: Any) -> dict[str, Any]:
    """The leaves by path: Orbax need not know the classes of the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="."): leaf for keys, leaf in leaves}


def _unflat(like: T, flat: dict[str, Any]) -> T:
    return jax.tree.unflatten(jax.tree.structure(like), [flat[name] for name in _flat(like)])
