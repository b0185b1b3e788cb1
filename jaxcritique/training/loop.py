"""The training loop, the same for pretraining, actor and critic."""

import dataclasses
import json
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.transformer import Params
from jaxcritique.store import write_atomically
from jaxcritique.training.checkpoint import Checkpoints, check_step
from jaxcritique.training.data import Batches
from jaxcritique.training.hardware import bytes_needed, peak_flops, training_flops
from jaxcritique.training.step import (
    CompiledStep,
    Execution,
    Metrics,
    OptimizerConfig,
    abstract_state,
    batch_sharding,
    compile_step,
    init_state,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """Where a training run keeps its things."""

    folder: pathlib.Path  # For checkpoints, metrics.jsonl and TensorBoard events.
    name: str  # What the progress bar shows.
    checkpoint_steps: int = 0  # How many steps apart checkpoints are.
    from_step: int | None = None  # Go on from this checkpoint; None: the newest.

    def check(self) -> None:
        """Checks that there is the checkpoint asked for.

        Raises:
          FileNotFoundError: there is none; those that there are, are named.
        """
        if self.from_step:
            check_step(self.folder / "checkpoints", self.from_step)


def train(
    run: Run,
    config: ModelConfig,
    initial: Callable[[], Params],
    batches: Batches,
    optimizer: OptimizerConfig,
    execution: Execution,
    mesh: Mesh,
    stop_at: int | None = None,
) -> Params:
    """Trains for `optimizer.total_steps`, or `stop_at` of them, and returns the parameters.

    Run again with the same arguments after a kill, it goes on from the newest checkpoint and ends
    with the same parameters, bit for bit on the same mesh. On SIGTERM it writes a checkpoint and
    ends the program with code 143.

    Args:
      run: its folder, which must hold no run with other settings.
      config: the model's.
      initial: makes the parameters to start from, living as `sharding.shardings` says; called
        only if there is no checkpoint.
      batches: the data.
      optimizer: its settings.
      execution: how a step is carried out.
      mesh: the devices.
      stop_at: end after so many steps, before the schedule does.

    Raises:
      ValueError: mesh and shapes do not fit each other.
      FileNotFoundError: the checkpoint asked for is missing.
      FloatingPointError: the loss or the gradient is not finite.
    """
    run.check()
    with (
        jax.set_mesh(mesh),
        Checkpoints(run.folder / "checkpoints", run.checkpoint_steps) as checkpoints,
        _Terminations() as terminations,
    ):
        start, end = checkpoints.choose(run.from_step), stop_at or optimizer.total_steps
        if jax.process_index() == 0:  # It takes from seconds to minutes, in which no bar moves.
            print(f"{run.name}: compiling the step, unless one like it is there", file=sys.stderr)
        step = compile_step(
            config,
            mesh,
            execution,
            optimizer.schedule,
            optimizer.moment_dtype,
            batches.rows,
            batches.sequence,
        )
        if start:
            state = checkpoints.restore(start, abstract_state(config, optimizer, mesh))
            logging.info("%s: going on from step %d", run.name, start)
        else:
            state = init_state(initial(), optimizer)
        rates, sharding = optimizer.rates(), batch_sharding(mesh)
        with _Report(run, config, mesh, execution, step, batches, start, end) as report:
            for index in range(start, end):
                state, metrics = step.run(state, batches.place(index, sharding), rates)
                report.step(index + 1, metrics)
                stop = terminations.requested(index + 1) and index + 1 < end
                if stop or checkpoints.due(index + 1):
                    report.flush()  # A state that diverged must not become a checkpoint.
                    checkpoints.save(state, even_if_not_due=stop)
                if stop:
                    break
    if int(state.step) < end:
        print(
            f"{run.name}: stopped by SIGTERM after step {int(state.step)}, which is saved; "
            "the same command goes on.",
            file=sys.stderr,
        )
        raise SystemExit(128 + signal.SIGTERM)
    return state.params


class _Terminations:
    """Turns SIGTERM into a question the loop asks after each step, answered alike on all hosts."""

    def __enter__(self) -> "_Terminations":
        self._received = False
        # With several processes JAX's own handler listens, and agrees with the others on a step.
        self._alone = jax.process_count() == 1
        if self._alone and threading.current_thread() is threading.main_thread():
            self._before: Any = signal.signal(signal.SIGTERM, self._receive)
        else:
            self._before = None
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, *_: Any) -> None:
        self._received = True

    def requested(self, step: int) -> bool:
        """Whether to stop after this step."""
        return (
            self._received if self._alone else multihost_utils.reached_preemption_sync_point(step)
        )


class _Report:
    """Metrics to metrics.jsonl, TensorBoard and the progress bar, from the first process only.

    They are read a step late, so that the device never waits for the host.
    """

    def __init__(
        self,
        run: Run,
        config: ModelConfig,
        mesh: Mesh,
        execution: Execution,
        step: CompiledStep,
        batches: Batches,
        start: int,
        end: int,
    ):
        self._run, self._config, self._sequence = run, config, batches.sequence
        self._peak = peak_flops(jax.local_devices()[0], execution.compute_dtype) * mesh.size
        self._step, self._start, self._end = step, start, end
        self._pending: tuple[int, Metrics] | None = None

    def __enter__(self) -> "_Report":
        from tensorboardX import SummaryWriter  # It imports torch where that is: seconds.

        first = jax.process_index() == 0
        self._log = _open_log(self._run.folder / "metrics.jsonl", self._start) if first else None
        # What an earlier start wrote of later steps is not shown any more. Its file stays: names
        # hold the time in seconds, in which there may be two starts.
        self._board = (
            SummaryWriter(
                str(self._run.folder / "tensorboard"),
                purge_step=self._start + 1,
                filename_suffix=f".{self._start}",
            )
            if first
            else None
        )
        self._bar = tqdm(
            total=self._end,
            initial=self._start,
            desc=self._run.name,
            unit="step",
            disable=not first,
        )
        self._clock = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self.flush()
        self._bar.close()
        if self._log is not None and self._board is not None:
            self._log.close()
            self._board.close()

    def step(self, step: int, metrics: Metrics) -> None:
        """Takes a step's metrics, and writes those of the one before."""
        self.flush()
        self._pending = step, metrics
        self._bar.update()

    def flush(self) -> None:
        """Writes what has not been written yet.

        Raises:
          FloatingPointError: the loss or the gradient is not finite.
        """
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values = {key: np.asarray(value).item() for key, value in metrics.items()}
        for what in ("loss", "gradient_norm"):
            if not np.isfinite(values[what]):
                name = what.replace("_", " ")
                raise FloatingPointError(
                    f"the {name} of step {step} is {values[what]}; lower the rate"
                )
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        values["step_seconds"] = seconds
        values["tokens_per_second"] = values["tokens"] / seconds
        values["mfu"] = training_flops(self._config, values["tokens"], self._sequence) / (
            seconds * self._peak
        )
        if step == self._start + 1:
            values |= self._first_step(seconds)
        if self._log is not None and self._board is not None:
            self._log.write(json.dumps({"step": step, **values}) + "\n")
            for key, value in values.items():
                self._board.add_scalar(key, value, step)
        self._bar.set_postfix(
            loss=f"{values['loss']:.4f}", tokens_per_s=f"{values['tokens_per_second']:.0f}"
        )

    def _first_step(self, seconds: float) -> dict[str, float]:
        """Says what the first step showed; returns it for the log."""
        used, compiling = bytes_needed(self._step.run), self._step.seconds
        if self._log is not None:
            tqdm.write(
                f"{self._run.name}: the first step took {seconds:.2f} s, {used / 2**20:,.0f} MiB a "
                f"device; compiled in {compiling:.1f} s, once for all trainings alike in this start"
            )
        return {
            "compile_seconds": compiling,
            "bytes_per_device": used,
            "argument_bytes_per_device": self._step.run.memory_analysis().argument_size_in_bytes,
        }


def _open_log(path: pathlib.Path, step: int) -> TextIO:
    """Opens the metrics to go on after `step`, without rows of later steps or half a row."""
    *rows, _ = path.read_text().split("\n") if path.exists() else [""]
    write_atomically(path, "".join(f"{row}\n" for row in rows if json.loads(row)["step"] <= step))
    return path.open("a", buffering=1)
