"""Verdicts per second of `jaxcritique.grading`, beside math-verify on the same rows.

Every pass is a fresh process that has imported everything and started its workers before the
clock starts. "Cold" rows were never seen before; "warm" is the second pass over them.
"""

import dataclasses
import functools
import importlib.metadata
import multiprocessing
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from experiments.benchmarks import Measured, agreement
from experiments.benchmarks.math_verify import math_verify_version, verdict
from jaxcritique.config import Config, setting
from jaxcritique.errors import checking_input
from jaxcritique.grading import Grader
from jaxcritique.store import read_jsonl


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraderBenchmark(Config):
    """The settings of --suite=grader."""

    data_dir: pathlib.Path | None = setting(
        None,
        "The folder with grading/gsm8k_model_solutions.jsonl (rows: gold, response, expected) and "
        "grading/peer_cases.jsonl (gold, prediction, kind, expected).",
    )
    outputs: pathlib.Path | None = setting(
        None,
        "A file of model outputs: four graders give their verdicts side by side. JSONL with gold, "
        "prediction (or response), and perhaps kind and expected; or the records of a stage.",
    )
    rows: int = setting(0, "Maximum number of rows of each file, evenly spaced; 0: all.", low=0)
    repeats: int = setting(3, "Passes of each grader; the table shows the median.", low=1)


FILES = {
    "model solutions": "grading/gsm8k_model_solutions.jsonl",
    "peer cases": "grading/peer_cases.jsonl",
}
_FOOTNOTE = "Medians of the passes. * CPU time of the calling process, workers left out."
# Equal, and only a worker can say so: grading these starts two workers.
_START = [(r"\sqrt{3+2\sqrt2}", r"1+\sqrt{2}"), (r"\sqrt{6+4\sqrt2}", r"2+\sqrt{2}")]


class Row(NamedTuple):
    """One comparison and the verdict it is known to deserve."""

    gold: str
    prediction: str
    kind: str
    expected: bool


class Pass(NamedTuple):
    """One pass of one grader over the rows, and one more.

    Attributes:
      cold: verdicts per second on rows never seen before.
      warm: verdicts per second when they are seen again.
      caller: cold verdicts per second of CPU time of the calling process, workers left out.
      agreement: the share of verdicts that are as expected.
    """

    cold: float
    warm: float
    caller: float
    agreement: float


def measure(config: GraderBenchmark) -> list[Measured]:
    """Measures all graders on all rows of `data_dir`, and compares their verdicts on `outputs`.

    Raises:
      InvalidInput: the data is missing or unreadable.
    """
    with checking_input():
        if not config.data_dir and not config.outputs:
            raise ValueError(
                "`suite=grader` needs `data_dir`, the folder that holds grading/, for speed, or "
                "`outputs`, a file, for verdicts side by side."
            )
        outputs = agreement.read_outputs(config.outputs) if config.outputs else []
        data = (
            {name: _read(config, file) for name, file in FILES.items()} if config.data_dir else {}
        )
    return [
        *([_speed(config, data)] if data else []),
        *([agreement.compare(outputs)] if outputs else []),
    ]


def _speed(config: GraderBenchmark, data: dict[str, list[Row]]) -> Measured:
    version = math_verify_version()
    contenders: dict[str, Callable[[list[Row]], Pass]] = {
        "jaxcritique, 1 worker": functools.partial(_ours, workers=1),
        "jaxcritique, 2 workers": functools.partial(_ours, workers=2),
    }
    if version:
        contenders["math-verify " + version] = _math_verify
    else:
        print("math-verify is not installed (pip install 'jaxcritique[bench]'): left out.")
    # One contender after the other in each repeat, so that they share what load there is.
    jobs = [
        (name, data_name, contender)
        for _ in range(config.repeats)
        for data_name in data
        for name, contender in contenders.items()
    ]
    passes: dict[tuple[str, str], list[Pass]] = {}
    for name, data_name, contender in tqdm(jobs, unit="pass", desc="grader"):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            result = process.apply(contender, (data[data_name],))
        tqdm.write(f"{data_name}, {name}: {result.cold:,.0f} verdicts/s cold")
        passes.setdefault((data_name, name), []).append(result)
    return Measured(_table(passes, data), _FOOTNOTE, _figures(passes, data))


def _read(config: GraderBenchmark, file: str) -> list[Row]:
    assert config.data_dir
    path = config.data_dir / file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `data_dir` must name the folder above it.")
    rows = [row for _, row in read_jsonl(path, _row)]
    step = max(1, -(-len(rows) // config.rows)) if config.rows else 1
    return rows[::step]


def _row(fields: Mapping[str, Any]) -> Row:
    try:
        prediction = fields["prediction"] if "prediction" in fields else fields["response"]
        kind = "answer" if fields.get("kind") == "answer" else "response"
        text = "" if prediction is None else str(prediction)
        return Row(str(fields["gold"]), text, kind, bool(fields["expected"]))
    except KeyError as error:
        raise ValueError(f"the row has no {error}") from None


def _ours(rows: list[Row], workers: int) -> Pass:
    pairs = {
        kind: [(row.gold, row.prediction) for row in rows if row.kind == kind]
        for kind in ("answer", "response")
    }
    expected = [row.expected for kind in pairs for row in rows if row.kind == kind]
    with Grader(workers) as grader:
        grader.grade_all(_START, "answer")

        def verdicts() -> list[bool]:
            grades = [
                *grader.grade_all(pairs["answer"], "answer"),
                *grader.grade_all(pairs["response"], "response"),
            ]
            return [grade.verdict == "correct" for grade in grades]

        return _timed(verdicts, expected)


def _math_verify(rows: list[Row]) -> Pass:
    verdict("1/2", "0.5", "answer")  # Imports it.
    expected = [row.expected for row in rows]
    return _timed(
        lambda: [verdict(row.gold, row.prediction, row.kind) for row in rows],
        expected,
        remembers=False,
    )


def _timed(
    verdicts: Callable[[], list[bool]], expected: list[bool], remembers: bool = True
) -> Pass:
    """Times a first pass and, of a grader that remembers what it decided, a second."""
    started, cpu_started = time.perf_counter(), time.process_time()
    found = verdicts()
    cold, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    warm = cold
    if remembers:
        started = time.perf_counter()
        verdicts()
        warm = time.perf_counter() - started
    right = sum(a == b for a, b in zip(found, expected, strict=True))
    count = len(expected)
    return Pass(count / cold, count / warm, count / cpu, right / count)


def _table(passes: Mapping[tuple[str, str], list[Pass]], data: Mapping[str, list[Row]]):
    header = ("Rows", "Grader", "cold/s", "warm/s", "cold/CPU s*", "Times math-verify", "Agreement")
    table: list[Sequence[str]] = [header]
    for (data_name, name), found in passes.items():
        median = _median(found)
        peers = [
            _median(other)
            for (peer_data, peer), other in passes.items()
            if peer_data == data_name and peer.startswith("math-verify")
        ]
        times = f"{median.cold / peers[0].cold:.0f}" if peers else "-"
        table.append(
            (
                f"{len(data[data_name]):,} {data_name}",
                name,
                *(f"{rate:,.0f}" for rate in median[:3]),
                times,
                f"{100 * median.agreement:.1f}%",
            )
        )
    return table


def _figures(passes: Mapping[tuple[str, str], list[Pass]], data: Mapping[str, list[Row]]):
    return {
        "load_after": os.getloadavg(),
        "rows": {name: len(rows) for name, rows in data.items()},
        "math_verify": math_verify_version(),
        "sympy": importlib.metadata.version("sympy"),
        "results": [
            {
                "rows": data_name,
                "grader": name,
                "median": _median(found)._asdict(),
                "passes": [one._asdict() for one in found],
            }
            for (data_name, name), found in passes.items()
        ],
    }


def _median(passes: list[Pass]) -> Pass:
    return Pass(*map(statistics.median, zip(*passes, strict=True)))
