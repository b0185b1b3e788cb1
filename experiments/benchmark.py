"""Measures speed.

    python -m experiments.benchmark --suite=grader --data_dir=DIR
    python -m experiments.benchmark --suite=grader --outputs=FILE
    python -m experiments.benchmark --suite=rollout --model=DIR --prompts=FILE

Prints a table; `--output` keeps every figure, with the facts of the machine, as JSON.
"""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
from typing import Literal

from experiments.benchmarks import grader, rollout
from experiments.program import run
from jaxcritique.analysis.table import aligned
from jaxcritique.config import REQUIRED, Config, setting
from jaxcritique.errors import InvalidInput, checking_input
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.store import write_atomically


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(Config):
    """What is measured."""

    suite: Literal["grader", "rollout"] = setting(REQUIRED, "What to measure.")
    output: pathlib.Path | None = setting(None, "JSON file for the figures.")


CONFIGS = BenchmarkConfig, grader.GraderBenchmark, rollout.RolloutBenchmark, EngineConfig


def main(
    config: BenchmarkConfig,
    grader_config: grader.GraderBenchmark,
    rollout_config: rollout.RolloutBenchmark,
    engine: EngineConfig,
) -> None:
    """Runs the program."""
    if config.output:
        with checking_input():
            if config.output.is_dir():
                raise InvalidInput(f"`output={config.output}` is a folder; name a file.")
            config.output.parent.mkdir(parents=True, exist_ok=True)
    machine = machine_facts()
    if config.suite == "rollout":
        parts = [rollout.measure(rollout_config, engine)]
    else:
        parts = grader.measure(grader_config)
    figures: dict[str, object] = {"suite": config.suite, "machine": machine}
    for measured in parts:
        print(aligned(measured.table))
        print(measured.footnote)
        figures |= measured.figures
    if config.output:
        write_atomically(config.output, json.dumps(figures, indent=1) + "\n")


def machine_facts() -> dict[str, object]:
    """Returns what a figure depends on besides the code, before anything is measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    run(main, *CONFIGS)
