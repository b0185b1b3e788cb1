"""The training loop, the same for pretraining, actor and critic."""

import json
import pathlib
import time
from collections.abc import Callable
from typing import TextIO

import jax
import numpy as np
from absl import logging
from tensorboardX import SummaryWriter
from tqdm import tqdm

from jaxcritique.models.transformer import Params, Structure
from jaxcritique.store import write_atomically
from jaxcritique.training.checkpoint import Checkpoints
from jaxcritique.training.data import Batch
from jaxcritique.training.step import Metrics, OptimizerConfig, init_state, make_train_step


def train(
    structure: Structure,
    params: Params,
    batch_at: Callable[[int], Batch],
    optimizer: OptimizerConfig,
    *,
    micro_rows: int,
    folder: pathlib.Path,
    checkpoint_steps: int,
    name: str,
    stop_at: int | None = None,
) -> Params:
    """Trains for `optimizer.total_steps`, or `stop_at` of them, and returns the parameters.

    Run again with the same arguments after a kill, it goes on from the newest checkpoint in
    `folder` and ends with the same parameters, bit for bit.

    Args:
      structure: of the model.
      params: where to start; not used after this call.
      batch_at: the batch of each step, a pure function.
      optimizer: its settings.
      micro_rows: rows worked on at a time; see `make_train_step`.
      folder: for checkpoints, metrics.jsonl and TensorBoard events.
      checkpoint_steps: how many steps apart checkpoints are.
      name: what the progress bar shows.
      stop_at: end after so many steps, before the schedule does.
    """
    step = jax.jit(make_train_step(structure, optimizer, micro_rows), donate_argnums=0)
    state = init_state(params, optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Checkpoints(folder / "checkpoints", checkpoint_steps) as checkpoints,
        SummaryWriter(str(folder / "tensorboard")) as board,
        _open_log(folder / "metrics.jsonl", checkpoints.newest_step) as log,
    ):
        if (restored := checkpoints.restore(state)) is not None:
            state = restored
            logging.info("%s: going on from step %d", name, int(state.step))
        start, end = int(state.step), stop_at or optimizer.total_steps
        bar = tqdm(total=end, initial=start, desc=name, unit="step")
        pending = None  # Metrics are read a step late, so that the device never waits for us.
        clock = time.perf_counter()
        for index in range(start, end):
            batch = batch_at(index)
            state, metrics = step(state, jax.device_put(batch))
            if pending is not None:
                clock = _report(pending, index, clock, log, board, bar)
            pending = metrics
            if checkpoints.due(index + 1):
                # Before, not after: a state that diverged must not become a checkpoint.
                clock, pending = _report(metrics, index + 1, clock, log, board, bar), None
                checkpoints.save(state)
            bar.update()
        if pending is not None:
            _report(pending, end, clock, log, board, bar)
        bar.close()
    return state.params


def _open_log(path: pathlib.Path, step: int) -> TextIO:
    """Opens the metrics to go on after `step`, without rows of later steps or half a row."""
    *rows, _ = path.read_text().split("\n") if path.exists() else [""]
    write_atomically(path, "".join(f"{row}\n" for row in rows if json.loads(row)["step"] <= step))
    return path.open("a", buffering=1)


def _report(
    metrics: Metrics, step: int, clock: float, log: TextIO, board: SummaryWriter, bar: tqdm
) -> float:
    """Writes the metrics of the step before; returns the time now."""
    values = {key: np.asarray(value).item() for key, value in metrics.items()}
    if not np.isfinite(values["loss"]):
        raise FloatingPointError(f"the loss of step {step} is {values['loss']}; lower the rate")
    now = time.perf_counter()
    values["tokens_per_second"] = values["tokens"] / (now - clock)
    log.write(json.dumps({"step": step, **values}) + "\n")
    for key, value in values.items():
        board.add_scalar(key, value, step)
    bar.set_postfix(loss=f"{values['loss']:.4f}", tokens_per_s=f"{values['tokens_per_second']:.0f}")
    return now
