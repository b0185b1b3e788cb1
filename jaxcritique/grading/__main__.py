"""Grades a file: `python -m jaxcritique.grading --input=rows.jsonl --output=verdicts.jsonl`.

Each row is a JSON object with "gold", "prediction" and, where it is not a whole response,
"kind": "answer". The output has the same rows in the same order with "verdict", "rule" and
"extracted" added; a null prediction is a missing answer. A corrupt row is named by its line on
stderr, left out of the output, and makes the exit code 1; 2 means that nothing could be graded.
"""

import functools
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import app, flags

from jaxcritique.grading.grader import Grader

_INPUT = flags.DEFINE_string("input", "", "The rows to grade, one JSON object a line.")
_OUTPUT = flags.DEFINE_string("output", "", "Where the graded rows go.")
_WORKERS = flags.DEFINE_integer("workers", 2, "The most worker processes.", lower_bound=1)
_TIMEOUT = flags.DEFINE_float(
    "timeout", 5.0, "Seconds that one comparison may take.", lower_bound=0.01
)
_STRICT = flags.DEFINE_bool("strict", False, "Accept only the same form of an answer.")


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Returns the rows of a file, and the numbers of the lines that hold none (blank ones aside).

    Raises:
      OSError: the file cannot be read.
    """
    rows, corrupt = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        row = parse_row(line)
        if row is not None:
            rows.append(row)
        elif line.strip():
            corrupt.append(number)
    return rows, corrupt


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Returns the row of a line, None if it is not one."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("kind", "response") not in ("response", "answer"):
        return None
    plain = all(
        isinstance(row.get(field, []), str | int | float) for field in ("gold", "prediction")
    )
    missing = row.get("prediction", []) is None and isinstance(row.get("gold"), str | int | float)
    return row if plain or missing else None


def grade_row(grader: Grader, row: dict[str, Any]) -> dict[str, Any]:
    """Returns the row with its verdict."""
    prediction = "" if row["prediction"] is None else str(row["prediction"])
    grade = grader.grade(str(row["gold"]), prediction, row.get("kind", "response"))
    return {**row, "verdict": grade.verdict, "rule": grade.rule, "extracted": grade.extracted}


def main(argv: Sequence[str]) -> int:
    """Grades the input file and returns the exit code."""
    if len(argv) > 1 or not _INPUT.value or not _OUTPUT.value:
        raise app.UsageError("give --input and --output, and nothing else")
    started = time.monotonic()
    try:
        rows, corrupt = read_rows(Path(_INPUT.value))
        with (
            open(_OUTPUT.value, "w") as output,
            Grader(_WORKERS.value, _TIMEOUT.value, _STRICT.value) as grader,
            ThreadPoolExecutor(_WORKERS.value) as threads,
        ):
            graded = list(threads.map(functools.partial(grade_row, grader), rows))
            output.writelines(json.dumps(row) + "\n" for row in graded)
    except OSError as error:
        print(error, file=sys.stderr)
        return 2
    for number in corrupt:
        print(f"{_INPUT.value}:{number}: not a row to grade", file=sys.stderr)
    counts = Counter(row["verdict"] for row in graded)
    seconds = time.monotonic() - started
    summary = ", ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items()))
    print(
        f"{len(rows)} rows ({summary}), "
        f"{len(corrupt)} corrupt, {seconds:.1f} s, {len(rows) / seconds:.0f} verdicts/s",
        file=sys.stderr,
    )
    return 1 if corrupt else 0


if __name__ == "__main__":
    app.run(main)
