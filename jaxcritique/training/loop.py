"""The training loop, the same for pretraining, actor and critic."""

import json
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import logging
from tensorboardX import SummaryWriter
from tqdm import tqdm

from jaxcritique.models.transformer import Params, Structure
from jaxcritique.training.checkpoint import Checkpoints
from jaxcritique.training.data import Batch
from jaxcritique.training.step import OptimizerConfig, init_state, make_train_step


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
) -> Params:
    """Trains for `optimizer.total_steps` and returns the parameters.

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
    """
    step = jax.jit(make_train_step(structure, optimizer, micro_rows), donate_argnums=0)
    state = init_state(params, optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Checkpoints(folder / "checkpoints", checkpoint_steps) as checkpoints,
        SummaryWriter(str(folder / "tensorboard")) as board,
        (folder / "metrics.jsonl").open("a") as log,
    ):
        if (restored := checkpoints.restore(state)) is not None:
            state = restored
            logging.info("%s: going on from step %d", name, int(state.step))
        start = int(state.step)
        bar = tqdm(total=optimizer.total_steps, initial=start, desc=name, unit="step")
        pending = None  # Metrics are read a step late, so that the device never waits for us.
        clock = time.perf_counter()
        for index in range(start, optimizer.total_steps):
            batch = batch_at(index)
            state, metrics = step(state, jax.device_put(batch))
            if pending is not None:
                clock = _report(pending, index, clock, log, board, bar)
            pending = metrics
            checkpoints.save(state)
            bar.update()
        if pending is not None:
            _report(pending, optimizer.total_steps, clock, log, board, bar)
        bar.close()
    return state.params


def _report(metrics, step: int, clock: float, log, board: SummaryWriter, bar: tqdm) -> float:
    """Writes the metrics of the step before; returns the time now."""
    values = {key: np.asarray(value).item() for key, value in metrics.items()}
    if not np.isfinite(values["loss"]):
        raise FloatingPointError(f"the loss of step {step} is {values['loss']}; lower the rate")
    now = time.perf_counter()
    values["tokens_per_second"] = values["tokens"] / (now - clock)
    log.write(json.dumps({"step": step, **values}) + "\n")
    for key, value in values.items():
        board.add_scalar(key, value, step)
    bar.set_postfix(
        loss=f"{values['loss']:.4f}", tokens_per_s=f"{values['tokens_per_second']:.0f}"
    )
    return now

