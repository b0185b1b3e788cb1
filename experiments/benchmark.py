"""Measures speed.

    python -m experiments.benchmark --suite=grader --data_dir=DIR
    python -m experiments.benchmark --suite=rollout --model=DIR --prompts=FILE

Prints a table; `--output` keeps every figure, with the facts of the machine, as JSON.
"""

import datetime
import json
import os
import pathlib
import platform

from absl import flags

from experiments.benchmarks import grader, rollout
from experiments.program import refusing_bad_input, run
from jaxcritique.analysis.table import aligned
from jaxcritique.store import write_atomically

# A suite returns its table (the header first), a footnote, and its figures for the JSON file.
SUITES = {"grader": grader.measure, "rollout": rollout.measure}

_SUITE = flags.DEFINE_enum("suite", None, sorted(SUITES), "What to measure.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Where the figures go as JSON; none: nowhere.")


def main(_: list[str]) -> None:
    """Runs the program."""
    if _OUTPUT.value:
        with refusing_bad_input():
            if pathlib.Path(_OUTPUT.value).is_dir():
                raise ValueError(f"--output={_OUTPUT.value}: a file is wanted; this is a folder.")
            pathlib.Path(_OUTPUT.value).parent.mkdir(parents=True, exist_ok=True)
    machine = machine_facts()
    table, footnote, figures = SUITES[_SUITE.value]()
    print(aligned(table))
    print(footnote)
    if _OUTPUT.value:
        report = {"suite": _SUITE.value, "machine": machine, **figures}
        write_atomically(pathlib.Path(_OUTPUT.value), json.dumps(report, indent=1) + "\n")


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
    run(main)
