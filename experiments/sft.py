"""Supervised fine-tuning of any supported model on prompts and targets (equations 1 and 2).

    python -m experiments.sft --model=path/to/model --data=train.jsonl --run_dir=runs/sft

The trainer of all experiments. A row of --data is a JSON object with "messages" (a list of
{"role", "content"}) or "prompt" (one user message), with "target" (the reply to learn; "messages"
may instead end with the assistant's), and optionally "weight" (beta in equation 2; 1). The result
is the Hugging Face folder RUN_DIR/model. After a kill or a SIGTERM the same command resumes.
"""

import dataclasses
import hashlib
import json
import pathlib
import time

import jax

from experiments.program import RunDir, join_processes, run
from jaxcritique.config import REQUIRED, Config, setting
from jaxcritique.errors import checking_input
from jaxcritique.run_folder import claim, command
from jaxcritique.store import write_atomically
from jaxcritique.training.examples import read_examples
from jaxcritique.training.loop import train
from jaxcritique.training.sft import ExecutionConfig, SftConfig, prepare


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftProgramConfig(SftConfig):
    """A fine-tuning from files."""

    model: pathlib.Path = setting(REQUIRED, "Hugging Face folder to start from.")
    data: pathlib.Path = setting(REQUIRED, "JSONL file of prompts and targets.")
    seed: int = setting(0, "Decides the order of the data.", low=0)
    # Other than in the experiments, whose models are sampled from on the same machine.
    micro_rows: int = setting(
        0, "Rows computed at a time, at least one a device; must divide --rows. 0: all.", low=0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartConfig(Config):
    """How one start of the program goes on."""

    checkpoint_steps: int = setting(0, "Steps between checkpoints; 0: about ten in all.", low=0)
    from_step: int | None = setting(
        None, "Resume from the checkpoint of this step, not the newest.", low=0
    )
    distributed: bool = setting(False, "One of several processes, on a TPU pod or under Slurm.")


CONFIGS = SftProgramConfig, ExecutionConfig, StartConfig, RunDir


def main(
    config: SftProgramConfig, execution: ExecutionConfig, start: StartConfig, folder: RunDir
) -> None:
    """Runs the program."""
    started = time.monotonic()
    join_processes(start.distributed)
    run_dir = folder.run_dir
    with checking_input():
        examples = read_examples(config.data)
        job = prepare(
            config.model,
            examples,
            config.part(SftConfig),
            config.seed,
            folder=run_dir,
            checkpoint_steps=start.checkpoint_steps,
            from_step=start.from_step,
            execution=execution,
        )
        settings = {
            **config.to_json(),
            "model": job.settings["base"],
            "data": hashlib.sha256(config.data.read_bytes()).hexdigest(),
            "compute_dtype": execution.compute_dtype,
        }
        del settings["micro_rows"]  # Like the rest of the execution it may change in between.
        # The first of several processes has the whole folder, so that no other run starts in it.
        claim(run_dir, "sft", settings, part=str(jax.process_index() or ""))
    summary = job.save_result(train(job)).summary()
    results = {"command": command(), "wall_seconds": time.monotonic() - started, **summary}
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    print(run_dir / "model")


if __name__ == "__main__":
    run(main, *CONFIGS)
