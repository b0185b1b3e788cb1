"""Trains 20 steps on a mesh and writes the losses: a program, since devices are simulated."""

import json
import pathlib
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding

from experiments.program import join_processes
from jaxcritique.models import sharding
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.sharding import make_mesh
from jaxcritique.models.transformer import initialize
from jaxcritique.training.data import Batches, TokenizedExample, build_rows, plan_rows
from jaxcritique.training.step import (
    Execution,
    OptimizerConfig,
    compile_step,
    init_state,
)

STEPS, ROWS, SEQUENCE = 20, 8, 32
CONFIG = ModelConfig(
    vocab_size=48,
    dim=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=32,
    max_positions=64,
    qkv_bias=True,
)


def build(step: int, rows: slice):
    rng = np.random.default_rng(step)
    lengths = rng.integers(4, 20, 40)
    examples = [
        # Counting up from anywhere: something that 20 steps begin to learn.
        TokenizedExample(
            ((rng.integers(48) + np.arange(n)) % 48).tolist(), n // 2, (1.0, 0.25)[i % 2]
        )
        for i, n in enumerate(lengths)
    ]
    plan = plan_rows(lengths.tolist(), SEQUENCE)[:ROWS]
    return build_rows([[examples[i] for i in row] for row in plan[rows]], SEQUENCE)


def losses(mesh_text: str, devices: int, **execution) -> list[float]:
    mesh = make_mesh(mesh_text, jax.devices()[:devices])
    optimizer = OptimizerConfig(0.01, STEPS, warmup_steps=2, weight_decay=0.1)
    found = []
    with jax.set_mesh(mesh):
        state = init_state(initialize(CONFIG, 0, mesh), optimizer)
        step = compile_step(
            CONFIG, mesh, Execution(**execution), "cosine", "float32", ROWS, SEQUENCE
        )
        batches = Batches(ROWS, SEQUENCE, build)
        for index in range(STEPS):
            batch = batches.place(index, NamedSharding(mesh, sharding.ROWS))
            state, metrics = step.run(state, batch, optimizer.rates())
            found.append(np.asarray(metrics["loss"]).item())
    return found


if __name__ == "__main__":
    output, *runs = sys.argv[1:]
    join_processes()
    results = {
        text: losses(**{"mesh_text": "", "devices": len(jax.devices()), **json.loads(text)})
        for text in runs
    }
    if jax.process_index() == 0:
        pathlib.Path(output).write_text(json.dumps(results))
