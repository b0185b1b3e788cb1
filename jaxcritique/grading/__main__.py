"""Grades a file: `python -m jaxcritique.grading --input=rows.jsonl --output=verdicts.jsonl`.

Each row is a JSON object with "gold", "prediction" and, where it is not a whole response,
"kind": "answer". The output has the same rows in the same order with "verdict", "rule" and
"extracted" added; a null prediction is a missing answer. The output appears when it is complete.

The exit code is 0 if every row was graded (an empty file has none); 1 if any, or all, were corrupt:
each is named by its line on stderr and left out of the output; 2 if a flag is wrong or a file
cannot be read or written, and then there is no output.
"""

import functools
import itertools
import json
import math
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

from absl import app, flags
from tqdm import tqdm

from jaxcritique.grading.grader import Grader
from jaxcritique.store import replace_file

_INPUT = flags.DEFINE_string(
    "input", None, "The rows to grade, one JSON object a line.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Where the graded rows go.", required=True)
_WORKERS = flags.DEFINE_integer("workers", 2, "The most worker processes.", lower_bound=1)
_TIMEOUT = flags.DEFINE_float(
    "timeout", 5.0, "Seconds that one comparison may take.", lower_bound=0.01, upper_bound=86400
)
_STRICT = flags.DEFINE_bool("strict", False, "Accept only the same form of an answer.")

_CHUNK = 1000  # Rows held in memory at a time.


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Parses a line; None if it is not a row to grade."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("kind", "response") not in ("response", "answer"):
        return None
    has_prediction = "prediction" in row and (
        row["prediction"] is None or _is_answer(row["prediction"])
    )
    return row if has_prediction and _is_answer(row.get("gold")) else None


def _is_answer(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int)


def grade_row(grader: Grader, row: dict[str, Any]) -> dict[str, Any]:
    """Returns the row with its verdict."""
    prediction = "" if row["prediction"] is None else str(row["prediction"])
    grade = grader.grade(str(row["gold"]), prediction, row.get("kind", "response"))
    return {**row, "verdict": grade.verdict, "rule": grade.rule, "extracted": grade.extracted}


def grade_lines(lines: Iterable[bytes], output: TextIO, grader: Grader, name: str) -> Counter[str]:
    """Writes the graded rows and returns how often each verdict, and "corrupt", occurred."""
    counts: Counter[str] = Counter()
    numbered = enumerate(tqdm(lines, unit="row", desc="grading", disable=None), start=1)
    with ThreadPoolExecutor() as threads:
        while chunk := list(itertools.islice(numbered, _CHUNK)):
            rows = []
            for number, line in chunk:
                row = parse_row(line)
                if row is not None:
                    rows.append(row)
                elif line.strip():
                    counts["corrupt"] += 1
                    tqdm.write(f"{name}:{number}: not a row to grade", file=sys.stderr)
            for graded in threads.map(functools.partial(grade_row, grader), rows):
                counts[graded["verdict"]] += 1
                output.write(json.dumps(graded) + "\n")
    return counts


def main(argv: Sequence[str]) -> int:
    """Grades the input file and returns the exit code."""
    if len(argv) > 1:
        print(f"error: {argv[1]!r} is not a flag; see --help", file=sys.stderr)
        return 2
    started = time.monotonic()
    try:
        if pathlib.Path(_OUTPUT.value).resolve() == pathlib.Path(_INPUT.value).resolve():
            raise ValueError("--output is --input, whose corrupt rows would be lost; name another.")
        with (
            open(_INPUT.value, "rb") as lines,
            replace_file(pathlib.Path(_OUTPUT.value)) as output,
            Grader(_WORKERS.value, _TIMEOUT.value, _STRICT.value) as grader,
        ):
            counts = grade_lines(lines, output, grader, _INPUT.value)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    corrupt = counts.pop("corrupt", 0)
    seconds = time.monotonic() - started
    summary = ", ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items()))
    print(
        f"{counts.total()} rows ({summary or 'none'}), {corrupt} corrupt, {seconds:.1f} s, "
        f"{counts.total() / seconds:.0f} verdicts/s",
        file=sys.stderr,
    )
    return 1 if corrupt else 0


def parse_flags(argv: list[str]) -> list[str]:
    """Reads the flags; a wrong one ends the program with its own exit code, 2."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {error}; see --help", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
