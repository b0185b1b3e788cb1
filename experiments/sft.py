"""Supervised fine-tuning of any supported model on prompts and targets (equations 1 and 2).

    python -m experiments.sft --model=path/to/model --data=train.jsonl --run_dir=runs/sft

The trainer every experiment here uses. A row of --data is a JSON object with "messages" (a list of
{"role", "content"}) or "prompt" (one user message), with "target" (the reply to learn; "messages"
may instead end with the assistant's), and, if wanted, "weight" (beta in equation 2; 1). The result
is the Hugging Face folder RUN_DIR/model. Killed, or stopped by SIGTERM, the same command goes on.
"""

import hashlib
import json
import pathlib
import time

import jax
from absl import flags

from experiments.program import (
    claim,
    command,
    join_processes,
    refusing_bad_input,
    run,
    settings_but,
)
from jaxcritique.models.attention import IMPLEMENTATIONS
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.models.transformer import REMAT
from jaxcritique.store import write_atomically
from jaxcritique.training.examples import read_examples
from jaxcritique.training.loop import Run
from jaxcritique.training.sft import Placement, SftConfig, prepare
from jaxcritique.training.step import SCHEDULES

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder for all this run makes.", required=True)
_MODEL = flags.DEFINE_string("model", None, "Hugging Face folder to start from.", required=True)
_DATA = flags.DEFINE_string("data", None, "JSONL file of prompts and targets.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Decides the order of the data.", lower_bound=0)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 2e-5, "Peak (paper: 2e-5).", lower_bound=0.0)
_SCHEDULE = flags.DEFINE_enum("schedule", "cosine", SCHEDULES, "Of the rate, down to zero.")
_WARMUP_SHARE = flags.DEFINE_float(
    "warmup_share", 0.0, "Share of all steps in which the rate rises.", 0.0, 1.0
)
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 0.0, "AdamW's.", lower_bound=0.0)
_CLIP_NORM = flags.DEFINE_float("clip_norm", 1.0, "Largest norm of a gradient; inf: any.")
_EPOCHS = flags.DEFINE_integer("epochs", 1, "Times each example is seen.", lower_bound=1)
_ROWS = flags.DEFINE_integer("rows", 32, "Packed rows in a step.", lower_bound=1)
_MICRO_ROWS = flags.DEFINE_integer(
    "micro_rows", 0, "Rows worked on at a time, at least one a device; 0: all.", lower_bound=0
)
_SEQUENCE = flags.DEFINE_integer("sequence", 4096, "Tokens in a packed row.", lower_bound=2)
_TOO_LONG = flags.DEFINE_enum(
    "too_long", "error", ["error", "drop"],
    "Examples longer than a row: refuse them, or leave them out, counted. None is ever cut.",
)  # fmt: skip
_MESH = flags.DEFINE_string(
    "mesh", "", "Such as data=2,fsdp=4,tensor=2; empty: fsdp over all devices."
)
_REMAT = flags.DEFINE_enum(
    "remat", None, REMAT,
    "What layers work out again in the backward pass (default: full; on CPUs none).",
)  # fmt: skip
_ATTENTION = flags.DEFINE_enum(
    "attention", None, IMPLEMENTATIONS, "Default: splash on TPU, cudnn on GPU, else reference."
)
_COMPUTE_DTYPE = flags.DEFINE_enum(
    "compute_dtype", None, ["float32", "bfloat16"], "Default: bfloat16; on CPUs float32."
)
_MOMENT_DTYPE = flags.DEFINE_enum(
    "moment_dtype", "float32", ["float32", "bfloat16"], "Of Adam's first moment."
)
_CHECKPOINT_STEPS = flags.DEFINE_integer(
    "checkpoint_steps", 0, "Steps between checkpoints; 0: about ten in all.", lower_bound=0
)
_FROM_STEP = flags.DEFINE_integer(
    "from_step", None, "Go on from the checkpoint of this step, not the newest.", lower_bound=0
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes, on a TPU pod or under Slurm."
)


# Where and how it is computed, which may change from one start to the next.
_FREE = (
    "run_dir", "micro_rows", "mesh", "remat", "attention", "checkpoint_steps", "from_step",
    "distributed",
)  # fmt: skip


def main(_: list[str]) -> None:
    """Runs the program."""
    started = time.monotonic()
    join_processes(_DISTRIBUTED.value)
    run_dir = pathlib.Path(_RUN_DIR.value)
    config = SftConfig(
        learning_rate=_LEARNING_RATE.value,
        epochs=_EPOCHS.value,
        rows=_ROWS.value,
        sequence=_SEQUENCE.value,
        micro_rows=_MICRO_ROWS.value or _ROWS.value,
        weight_decay=_WEIGHT_DECAY.value,
        schedule=_SCHEDULE.value,
        warmup_share=_WARMUP_SHARE.value,
        clip_norm=_CLIP_NORM.value,
        too_long=_TOO_LONG.value,
        moment_dtype=_MOMENT_DTYPE.value,
    )
    placement = Placement(
        mesh=_MESH.value,
        remat=_REMAT.value,
        attention=_ATTENTION.value,
        compute_dtype=_COMPUTE_DTYPE.value,
    )
    with refusing_bad_input():
        if not _CLIP_NORM.value > 0:
            raise ValueError(f"--clip_norm={_CLIP_NORM.value} must be above 0; inf: no clipping.")
        folder, data = pathlib.Path(_MODEL.value), pathlib.Path(_DATA.value)
        examples = read_examples(data)
        sha256 = hashlib.sha256(data.read_bytes()).hexdigest()
        job = Run(run_dir, "sft", _CHECKPOINT_STEPS.value, _FROM_STEP.value)
        prepared = prepare(job, folder, examples, config, _SEED.value, placement)
        # Last, since it reads all the weights.
        model = ModelFolder.of(folder).key
        claim(run_dir, {**settings_but(_FREE), "model": model, "data": sha256}, _part())
    facts = prepared.train()
    results = {"command": command(), "wall_seconds": time.monotonic() - started, **facts}
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    print(run_dir / "model")


def _part() -> str:
    """What of the folder this process holds: the first one all, so that no other run starts."""
    return str(jax.process_index() or "")


if __name__ == "__main__":
    run(main)
