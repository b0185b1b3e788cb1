"""The training loop, the same for pretraining, actor and critic."""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

import contextlib
import dataclasses
import json
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from tqdm import tqdm

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.sharding import ROWS
from jaxcritique.models.transformer import Transformer
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
    compile_step,
    init_state,
)

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """All that a training needs.

    Attributes:
      name: what the progress bar shows.
      config: the model's.
      initial: makes the parameters to start from, sharded as `models.sharding` says; not called if
        there is a checkpoint. They are donated.
      batches: the data.
      optimizer: its settings.
      execution: how a step is computed.
      mesh: the devices.
      folder: for checkpoints, metrics.jsonl and TensorBoard events; None: nothing is written.
      checkpoint_steps: steps between checkpoints; 0: about ten in all.
      from_step: resume from this checkpoint; None: from the newest.
      stop_at: end after so many steps, before the schedule does.
    """

    name: str
    config: ModelConfig
    initial: Callable[[], Transformer]
    batches: Batches
    optimizer: OptimizerConfig
    execution: Execution
    mesh: Mesh
    folder: pathlib.Path | None = None
    checkpoint_steps: int = 0
    from_step: int | None = None
    stop_at: int | None = None

    @property
    def prints(self) -> bool:
        """Whether this process prints messages: the first one does, unless nothing is written."""
        return self.folder is not None and jax.process_index() == 0

    @property
    def last_step(self) -> int:
        """The number of steps after which it ends."""
        return self.stop_at or self.optimizer.total_steps

    def __post_init__(self) -> None:
        """Refuses a missing checkpoint to resume from; the message names those that exist."""
        if self.from_step and self.folder is not None:
            check_step(self.folder / CHECKPOINTS, self.from_step)

    def open_checkpoints(self) -> "Checkpoints | contextlib.nullcontext[None]":
        """Returns the run's checkpoints, to be entered; None where it has no folder."""
        if self.folder is None:
            return contextlib.nullcontext()
        every = self.checkpoint_steps or max(20, self.optimizer.total_steps // 10)
        return Checkpoints(self.folder / CHECKPOINTS, every)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training came to."""

    model: Transformer
    # The metrics of the steps that this call ran, as in metrics.jsonl; steps before a resume are
    # not in it.
    history: list[dict[str, float]]
    seconds: float  # Of this call.


def train(run: TrainingRun) -> Trained:
    """Trains.

    Called again after a kill, it resumes from the newest checkpoint and ends with the same
    parameters, bit for bit on the same mesh. On SIGTERM and Ctrl-C it finishes the step, writes a
    checkpoint, and exits with code 143 or raises KeyboardInterrupt.

    Raises:
      ValueError: mesh and shapes do not fit each other.
      FloatingPointError: the loss or the gradient is not finite.
    """
    started = time.monotonic()
    with (
        jax.set_mesh(run.mesh),
        run.open_checkpoints() as checkpoints,
        _Terminations(enabled=checkpoints is not None) as terminations,
    ):
        start, end = checkpoints.choose(run.from_step) if checkpoints else 0, run.last_step
        if run.prints:  # It takes from seconds to minutes, in which no bar moves.
            print(f"{run.name}: compiling the step (instant if compiled before)", file=sys.stderr)
        optimizer, batches = run.optimizer, run.batches
        step = compile_step(
            run.config,
            run.mesh,
            run.execution,
            optimizer.schedule,
            optimizer.moment_dtype,
            batches.rows,
            batches.sequence,
        )
        if start and checkpoints:
            state = checkpoints.restore(start, abstract_state(run.config, optimizer, run.mesh))
            if run.prints:
                print(f"{run.name}: resuming from step {start}", file=sys.stderr)
        else:
            state = init_state(run.initial(), optimizer)
        rates, sharding = optimizer.rates(), NamedSharding(run.mesh, ROWS)
        with _Report(run, step, start) as report:
            for index in range(start, end):
                state, metrics = step.run(state, batches.place(index, sharding), rates)
                report.step(index + 1, metrics)
                stop = terminations.requested(index + 1) and index + 1 < end
                if checkpoints and (stop or checkpoints.due(index + 1)):
                    report.flush()  # A state that diverged must not become a checkpoint.
                    checkpoints.save(state)
                if stop:
                    break
    if int(state.step) < end:
        print(
            f"{run.name}: stopped after step {int(state.step)}, which is saved; "
            "the same command resumes.",
            file=sys.stderr,
        )
        if terminations.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)
    return Trained(state.params, report.history, time.monotonic() - started)


class _Terminations:
    """Records SIGTERM and Ctrl-C, for the loop to ask after each step.

    With several processes only SIGTERM, and the answer is the same on all of them. A second Ctrl-C
    interrupts at once.
    """

    def __init__(self, enabled: bool):
        self._enabled = enabled
        self.received: int | None = None
        # With several processes JAX's own handler listens, and agrees with the others on a step.
        self._alone = jax.process_count() == 1
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Terminations":
        in_main_thread = threading.current_thread() is threading.main_thread()
        if self._enabled and self._alone and in_main_thread:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: object) -> None:
        self.received = number
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])
            print("stopping after this step; again to stop at once", file=sys.stderr)

    def requested(self, step: int) -> bool:
        """Whether to stop after this step."""
        if self._alone or not self._enabled:
            return self.received is not None
        return multihost_utils.reached_preemption_sync_point(step)


class _Report:
    """Metrics to `history`, metrics.jsonl, TensorBoard and the progress bar.

    Only the first process writes files and shows a bar. Metrics are read one step late, so that the
    device never waits for the host.
    """

    def __init__(self, run: TrainingRun, step: CompiledStep, start: int):
        self.history: list[dict[str, float]] = []
        self._run, self._step, self._start = run, step, start
        dtype = run.execution.compute_dtype
        self._peak = peak_flops(jax.local_devices()[0], dtype) * run.mesh.size
        self._pending: tuple[int, Metrics] | None = None
        self._log: TextIO | None = None
        self._board: SummaryWriter | None = None

    def __enter__(self) -> "_Report":
        first, folder = jax.process_index() == 0, self._run.folder
        if first and folder is not None:
            from tensorboardX import SummaryWriter  # It imports torch if that is there: seconds.

            self._log = _open_log(folder / "metrics.jsonl", self._start)
            # TensorBoard hides an earlier run's later steps. The suffix keeps two runs that began
            # in the same second apart.
            self._board = SummaryWriter(
                str(folder / "tensorboard"),
                purge_step=self._start + 1,
                filename_suffix=f".{self._start}",
            )
        self._bar = tqdm(
            total=self._run.last_step,
            initial=self._start,
            desc=self._run.name,
            unit="step",
            delay=0 if folder else 2,
            disable=not first,
        )
        self._clock = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.flush()
        self._bar.close()
        for file in (self._log, self._board):
            if file is not None:
                file.close()

    def step(self, step: int, metrics: Metrics) -> None:
        """Takes a step's metrics, and reports those of the one before."""
        self.flush()
        self._pending = step, metrics
        self._bar.update()

    def flush(self) -> None:
        """Reports the metrics that have not been reported yet.

        Raises:
          FloatingPointError: the loss or the gradient is not finite.
        """
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values: dict[str, float] = {key: np.asarray(x).item() for key, x in metrics.items()}
        for what in ("loss", "gradient_norm"):
            if not np.isfinite(values[what]):
                name = what.replace("_", " ")
                raise FloatingPointError(
                    f"the {name} of step {step} is {values[what]}; lower the `learning_rate`"
                )
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        values["step_seconds"] = seconds
        values["tokens_per_second"] = values["tokens"] / seconds
        flops = training_flops(self._run.config, values["tokens"], self._run.batches.sequence)
        values["mfu"] = flops / (seconds * self._peak)
        if step == self._start + 1:
            values |= self._first_step(seconds)
        row = {"step": step, **values}
        self.history.append(row)
        if self._log is not None:
            self._log.write(json.dumps(row) + "\n")
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(key, value, step)
        self._bar.set_postfix(
            loss=f"{values['loss']:.4f}",
            tokens_per_s=f"{values['tokens_per_second']:.0f}",
            refresh=self._run.folder is not None,  # Else the bar would not wait for its delay.
        )

    def _first_step(self, seconds: float) -> dict[str, float]:
        """Prints what the first step took; returns it for the log."""
        used, compiling = bytes_needed(self._step.run), self._step.seconds
        if self._run.prints:
            tqdm.write(
                f"{self._run.name}: the first step took {seconds:.2f} s, {used / 2**20:,.0f} MiB a "
                f"device; compiled in {compiling:.1f} s; later trainings of these shapes reuse it"
            )
        return {
            "compile_seconds": compiling,
            "bytes_per_device": used,
            "argument_bytes_per_device": self._step.run.memory_analysis().argument_size_in_bytes,
        }


def _open_log(path: pathlib.Path, step: int) -> TextIO:
    """Opens the metrics to append to after `step`, without rows of later steps or half a row."""
    *rows, _ = path.read_text().split("\n") if path.exists() else [""]
    write_atomically(path, "".join(f"{row}\n" for row in rows if json.loads(row)["step"] <= step))
    return path.open("a", buffering=1)
