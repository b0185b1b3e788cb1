"""Says, before any hardware is rented, whether training or decoding fits it.

    python -m launchers.plan --model=llama3-8b --topology=v5e:8x8 --sequence=2048

Compiles the very step `experiments.sft` runs (with --step=decode, the one the JAX engine runs), for
TPUs or GPUs that are not there, and reports the memory XLA says it takes. `pip install -e
'.[plan-tpu]'` brings the compiler for TPUs, `'.[plan-gpu]'` the one for GPUs. Exit code 1: it does
not fit.
"""

import dataclasses
import json
import os
import pathlib
import sys

# Before JAX is imported: it must not look for a TPU or a GPU here. There is none to tune on.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()

from tqdm import tqdm

from experiments.program import run
from jaxcritique.config import Config, setting
from jaxcritique.errors import checking_input
from jaxcritique.store import write_atomically
from launchers.fits import Fit, FitConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputConfig(Config):
    """What is written."""

    json: pathlib.Path | None = setting(None, "Where the results go as a list of JSON objects.")


CONFIGS = FitConfig, OutputConfig


def main(config: FitConfig, output: OutputConfig) -> None:
    """Runs the program."""
    with checking_input():
        if output.json is not None:
            if output.json.is_dir():
                raise IsADirectoryError(f"`json={output.json}` is a folder, not a file.")
            output.json.parent.mkdir(parents=True, exist_ok=True)
        jobs = config.jobs()
    fits: list[Fit] = []
    for job in tqdm(jobs, desc="compiling", unit="job", disable=len(jobs) == 1):
        fit, users = job.run()
        fits.append(fit)
        print(fit)
        if not fit.fits:
            print("  the largest users of memory:")
            for size, what in users[:3]:
                print(f"    {size / 2**30:6.2f} GiB  {what}")
        if output.json is not None:  # After each: compiling takes minutes, and the next may fail.
            rows = [dataclasses.asdict(fit) for fit in fits]
            write_atomically(output.json, json.dumps(rows, indent=2) + "\n")
    if not all(fit.fits for fit in fits):
        sys.exit(1)


if __name__ == "__main__":
    run(main, *CONFIGS)
