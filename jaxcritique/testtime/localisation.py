"""Whether critics find the first wrong step, scored as in ProcessBench (arXiv 2412.06559)."""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcritique.prompts.critique import split_steps
from jaxcritique.records import Critique, Problem, Solution, digest
from jaxcritique.store import read_jsonl
from jaxcritique.tasks.task import text_field

SOUND = -1  # No step is wrong.


@dataclasses.dataclass(frozen=True)
class LabelledSolution:
    """A solution in given steps whose first wrong step is known."""

    solution: Solution
    first_error: int  # From 0, among the steps that critiques number; or SOUND.


@dataclasses.dataclass(frozen=True)
class LocalisationReport:
    """ProcessBench's figures."""

    n: int
    erroneous: int  # Solutions with a wrong step.
    accuracy_erroneous: float | None  # Of these, the share whose first wrong step is named exactly.
    accuracy_correct: float | None  # Of the others, the share in which no step is called wrong.
    f1: float | None  # The harmonic mean of the two; None where one of them is.
    unparsable: int  # Critiques without a verdict; they count as misses.


def localisation_report(
    labelled: Sequence[LabelledSolution], critiques: Sequence[Critique]
) -> LocalisationReport:
    """Scores one critique of each solution."""
    scores = localisation_scores(labelled, critiques)
    erroneous, correct = _mean(scores["accuracy_erroneous"]), _mean(scores["accuracy_correct"])
    known = erroneous is not None and correct is not None
    return LocalisationReport(
        n=len(labelled),
        erroneous=sum(row.first_error != SOUND for row in labelled),
        accuracy_erroneous=erroneous,
        accuracy_correct=correct,
        f1=float(harmonic_mean(erroneous, correct)) if known else None,
        unparsable=sum(critique.says_correct is None for critique in critiques),
    )


def localisation_scores(
    labelled: Sequence[LabelledSolution], critiques: Sequence[Critique]
) -> dict[str, dict[str, list[float]]]:
    """Returns whether each critique is a hit, by accuracy of the report and by question.

    A question may have several solutions, which are not independent of each other.
    """
    scores: dict[str, dict[str, list[float]]] = {
        "accuracy_erroneous": collections.defaultdict(list),
        "accuracy_correct": collections.defaultdict(list),
    }
    for row, critique in zip(labelled, critiques, strict=True):
        column = "accuracy_correct" if row.first_error == SOUND else "accuracy_erroneous"
        hit = predicted(critique) == row.first_error
        scores[column][row.solution.problem.question].append(float(hit))
    return scores


def harmonic_mean(first: Any, second: Any) -> Any:
    """Returns F1 of two accuracies, or of arrays of them; 0 where both are."""
    total = np.add(first, second)
    return 2 * np.multiply(first, second) / np.where(total, total, 1.0)


def predicted(critique: Critique) -> int | None:
    """Returns the first step that a critique calls wrong, or SOUND if it calls all correct.

    None: it has no verdict, or calls the answer wrong but no step.
    """
    if critique.first_error is not None:
        return critique.first_error
    return SOUND if critique.says_correct else None


def has_steps(row: dict[str, Any]) -> bool:
    """Whether a row of a file is meant to be a labelled solution, complete or not."""
    return "steps" in row or "first_error" in row


def read_labelled(path: pathlib.Path) -> list[LabelledSolution]:
    """Reads a JSONL file of {problem, steps, first_error}, with the answer in `gold` where known.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row is not of that form; file and line are named.
    """
    return [row for _, row in read_jsonl(path, _labelled)]


def _mean(scores: Mapping[str, Sequence[float]]) -> float | None:
    hits = [hit for of_question in scores.values() for hit in of_question]
    return sum(hits) / len(hits) if hits else None


def _shown(row: dict[str, Any], name: str) -> str:
    return repr(row[name])[:60] if name in row else "missing"


def _labelled(row: dict[str, Any]) -> LabelledSolution:
    question = text_field(row, "problem")
    steps, first_error = row.get("steps"), row.get("first_error")
    if not isinstance(steps, list) or not steps or not all(isinstance(s, str) for s in steps):
        raise ValueError(f"its 'steps', {_shown(row, 'steps')}, is not a list of texts")
    lines = [" ".join(step.split()) for step in steps]  # Critics are shown one step a line.
    if "" in lines:
        raise ValueError(f"its step {lines.index('')}, counted from 0, is blank")
    if type(first_error) is not int or not SOUND <= first_error < len(steps):
        raise ValueError(
            f"its 'first_error', {_shown(row, 'first_error')}, is none of its {len(steps)} steps' "
            f"numbers from 0, nor {SOUND} for no error"
        )
    counted = [bool(split_steps(line)) for line in lines]  # Not the line that states the answer.
    if first_error != SOUND and not counted[first_error]:
        raise ValueError(
            f"its 'first_error', {first_error}, is the step {lines[first_error]!r}, which only "
            "states the answer: critiques have no verdict on it. Leave the row out"
        )
    gold = row.get("gold")
    if isinstance(gold, bool) or not isinstance(gold, str | int | float | None):
        raise ValueError("its 'gold' is neither text nor a number")
    problem = Problem(
        id=f"sample-{digest(question, steps)}",
        question=question,
        answer="" if gold is None else str(gold).strip(),  # "": not known.
        rationale="",
        task="gsm8k",
    )
    verdict = "correct" if first_error == SOUND else "wrong"
    number = first_error if first_error == SOUND else sum(counted[:first_error])
    return LabelledSolution(Solution(problem, "\n".join(lines), verdict, None), number)
