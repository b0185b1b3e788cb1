"""What four graders say of the same outputs: why an accuracy differs from somebody else's.

"strict" and "flexible" match as `gsm8k` of lm-evaluation-harness does: the number after the last
`####`, or the last number, is compared as text.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tqdm import tqdm

from experiments.benchmarks import Measured
from experiments.benchmarks.math_verify import math_verify_version, verdict
from jaxcritique.grading import Grader
from jaxcritique.grading.grader import Kind
from jaxcritique.store import read_jsonl

EXAMPLES = 3  # Rows printed for each grader that differs from ours; the JSON file has all.

_HASHES = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_IGNORED = re.compile(r"[,$]|\.$")
_OURS = "jaxcritique"


class Output(NamedTuple):
    """A model's output with its reference; `expected`: the verdict it is known to deserve."""

    gold: str
    text: str
    kind: Kind
    expected: bool | None


def read_outputs(path: pathlib.Path) -> list[tuple[int, Output]]:
    """Returns the line number and the output of each row.

    Rows have `gold` and `prediction` (or `response`), and may have `kind` ("response", the default,
    or "answer") and `expected`; or they are the solutions of a run, as in `records.jsonl` of a
    stage.

    Raises:
      FileNotFoundError: there is no such file.
      InvalidInput: a row is none of these; the message names its line.
    """
    rows = list(read_jsonl(path, _output))
    if not rows:
        raise ValueError(f"`outputs={path}` has no rows.")
    return rows


def _output(fields: Mapping[str, Any]) -> Output:
    problem = fields.get("problem")
    if isinstance(problem, dict) and "text" in fields:
        fields = {"gold": problem.get("answer"), "prediction": fields["text"]}
    gold = fields.get("gold")
    text = fields.get("prediction", fields.get("response"))
    kind, expected = fields.get("kind", "response"), fields.get("expected")
    if not isinstance(gold, str | int | float) or fields.keys().isdisjoint(
        {"prediction", "response"}
    ):
        raise ValueError("a row needs `gold` and `prediction` (or `response`)")
    if expected is not None and not isinstance(expected, bool):
        raise ValueError(f"`expected` is {expected!r}, neither true nor false")
    text = "" if text is None else str(text)
    return Output(str(gold), text, "answer" if kind == "answer" else "response", expected)


def compare(rows: Sequence[tuple[int, Output]]) -> Measured:
    """Asks all graders about all rows, and counts where they differ."""
    outputs = [output for _, output in rows]
    verdicts = {
        "strict (last ####)": [_matches(_HASHES, output) for output in outputs],
        "flexible (last number)": [_matches(_NUMBER, output) for output in outputs],
    }
    version = math_verify_version()
    if version:
        asked = tqdm(outputs, "math-verify")
        verdicts[f"math-verify {version}"] = [verdict(o.gold, o.text, o.kind) for o in asked]
    else:
        print("math-verify is not installed (pip install 'jaxcritique[bench]'): left out.")
    verdicts[_OURS] = _ours(outputs)
    return Measured(
        _table(verdicts, outputs),
        _footnote(verdicts, rows),
        {"agreement": {"rows": len(rows), "verdicts": _rows(verdicts, rows)}},
    )


def _matches(pattern: re.Pattern[str], output: Output) -> bool:
    numbers = pattern.findall(output.text)
    return bool(numbers) and _as_text(numbers[-1]) == _as_text(output.gold.rpartition("#### ")[2])


def _as_text(number: str) -> str:
    return _IGNORED.sub("", number.strip()).lower()


def _ours(outputs: Sequence[Output]) -> list[bool]:
    with Grader() as grader:
        asked = tqdm(outputs, _OURS)
        return [grader.grade(o.gold, o.text, o.kind).verdict == "correct" for o in asked]


def _table(verdicts: Mapping[str, list[bool]], outputs: Sequence[Output]):
    known = [index for index, output in enumerate(outputs) if output.expected is not None]
    header = ["Grader", "right", "as ours"]
    if known:
        header += [f"right of {len(known):,}", "false positives", "false negatives"]
    table: list[Sequence[str]] = [header]
    for name, said in verdicts.items():
        same = sum(a == b for a, b in zip(said, verdicts[_OURS], strict=True))
        row = [name, _percent(sum(said), len(said)), _percent(same, len(said))]
        if known:
            positives = sum(said[i] and not outputs[i].expected for i in known)
            negatives = sum(not said[i] and bool(outputs[i].expected) for i in known)
            right = _percent(len(known) - positives - negatives, len(known))
            row += [right, f"{positives:,}", f"{negatives:,}"]
        table.append(row)
    return table


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f}%"


def _footnote(verdicts: Mapping[str, list[bool]], rows: Sequence[tuple[int, Output]]) -> str:
    lines: list[str] = []
    for name, said in verdicts.items():
        differ = [i for i, (a, b) in enumerate(zip(said, verdicts[_OURS], strict=True)) if a != b]
        for index in differ[:EXAMPLES]:
            number, output = rows[index]
            says, ours = ("right", "wrong") if said[index] else ("wrong", "right")
            end = " ".join(output.text.split())[-60:]
            lines.append(
                f"  line {number}: {name} {says}, {_OURS} {ours}: {output.gold} | ...{end}"
            )
    return "\n".join(["Where others differ from ours, first rows:", *(lines or ["  nowhere"])])


def _rows(verdicts: Mapping[str, list[bool]], rows: Sequence[tuple[int, Output]]):
    return [
        {
            "line": number,
            "expected": output.expected,
            **{name: said[index] for name, said in verdicts.items()},
        }
        for index, (number, output) in enumerate(rows)
    ]
