"""Does a critic find the first wrong step? Scored as ProcessBench does (arXiv 2412.06559)."""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcritique.records import Critique, Problem, Solution, digest
from jaxcritique.store import read_jsonl
from jaxcritique.tasks.task import text_field

SOUND = -1  # No step is wrong.


@dataclasses.dataclass(frozen=True)
class Sample:
    """A solution in given steps, and the first of them that is wrong, from 0; or SOUND."""

    solution: Solution
    first_error: int


@dataclasses.dataclass(frozen=True)
class LocalisationReport:
    """ProcessBench's figures."""

    n: int
    erroneous: int  # Samples with a wrong step.
    accuracy_erroneous: float | None  # Of these, the share whose first wrong step is named exactly.
    accuracy_correct: float | None  # Of the others, the share in which no step is called wrong.
    f1: float | None  # The harmonic mean of the two; None where one of them is.
    unparsable: int  # Critiques without a verdict; they count as misses.


def localisation_report(
    samples: Sequence[Sample], critiques: Sequence[Critique]
) -> LocalisationReport:
    """Scores one critique of each sample."""
    scores = localisation_scores(samples, critiques)
    found, sound = _mean(scores["accuracy_erroneous"]), _mean(scores["accuracy_correct"])
    return LocalisationReport(
        n=len(samples),
        erroneous=sum(sample.first_error != SOUND for sample in samples),
        accuracy_erroneous=found,
        accuracy_correct=sound,
        f1=None if found is None or sound is None else float(harmonic_mean(found, sound)),
        unparsable=sum(critique.says_correct is None for critique in critiques),
    )


def localisation_scores(
    samples: Sequence[Sample], critiques: Sequence[Critique]
) -> dict[str, dict[str, list[float]]]:
    """Returns, for erroneous and for correct samples, whether the critiques of each question hit.

    A question may have several samples, which are not independent of each other.
    """
    scores: dict[str, dict[str, list[float]]] = {
        "accuracy_erroneous": collections.defaultdict(list),
        "accuracy_correct": collections.defaultdict(list),
    }
    for sample, critique in zip(samples, critiques, strict=True):
        column = "accuracy_correct" if sample.first_error == SOUND else "accuracy_erroneous"
        hit = predicted(critique) == sample.first_error
        scores[column][sample.solution.problem.question].append(float(hit))
    return scores


def harmonic_mean(first: Any, second: Any) -> Any:
    """Returns F1 of two accuracies, or of arrays of them; 0 where both are."""
    total = np.add(first, second)
    return 2 * np.multiply(first, second) / np.where(total, total, 1.0)


def predicted(critique: Critique) -> int | None:
    """The first step a critique calls wrong; SOUND if it calls all correct, None if neither.

    A critique that calls the answer wrong, but no step, has named no step.
    """
    if critique.first_error is not None:
        return critique.first_error
    return SOUND if critique.says_correct else None


def has_steps(row: dict[str, Any]) -> bool:
    """Whether a row of a file is a sample for localisation, be it a whole one or not."""
    return "steps" in row or "first_error" in row


def read_samples(path: pathlib.Path) -> list[Sample]:
    """Reads a JSONL file of {problem, steps, first_error}; with `gold`, the answer, if it is known.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row is not of that form; file and line are named.
    """
    return [sample for _, sample in read_jsonl(path, _sample)]


def _mean(scores: Mapping[str, Sequence[float]]) -> float | None:
    hits = [hit for of_question in scores.values() for hit in of_question]
    return sum(hits) / len(hits) if hits else None


def _shown(row: dict[str, Any], name: str) -> str:
    return repr(row[name])[:60] if name in row else "missing"


def _sample(row: dict[str, Any]) -> Sample:
    question = text_field(row, "problem")
    steps, first_error = row.get("steps"), row.get("first_error")
    if not isinstance(steps, list) or not steps or not all(isinstance(s, str) for s in steps):
        raise ValueError(f"its 'steps', {_shown(row, 'steps')}, is not a list of texts")
    if type(first_error) is not int or not SOUND <= first_error < len(steps):
        raise ValueError(
            f"its 'first_error', {_shown(row, 'first_error')}, is none of its {len(steps)} steps' "
            f"numbers from 0, nor {SOUND} for no error"
        )
    gold = row.get("gold")
    if not isinstance(gold, str | int | float | None):
        raise ValueError("its 'gold' is neither text nor a number")
    # One step is one line, as the critic knows it.
    text = "\n".join(" ".join(step.split()) for step in steps)
    problem = Problem(
        id=f"sample-{digest(question, steps)}",
        question=question,
        answer="" if gold is None else str(gold).strip(),  # "": it is not known.
        rationale="",
        task="gsm8k",
    )
    verdict = "correct" if first_error == SOUND else "wrong"
    return Sample(Solution(problem, text, verdict, None), first_error)
