"""MATH (Hendrycks et al., 2021): competition problems in LaTeX, five levels; test is MATH-500."""

import re
from typing import Any

from jaxcritique.records import Problem, digest
from jaxcritique.tasks.task import FileTask, register, text_field

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?=\{)|(\w))")
_LEVEL = re.compile(r"(?:Level )?([1-5])")


def problem(row: dict[str, Any]) -> Problem | None:
    r"""Converts a row as it was published; None if its answer is an empty `\boxed{}`.

    The published training set has two such rows.

    Raises:
      ValueError: it lacks its problem, solution or answer.
    """
    question, solution = text_field(row, "problem"), text_field(row, "solution")
    if r"\boxed{}" in solution and not str(row.get("answer") or "").strip():
        return None
    answer = _answer(row, solution)
    level = _LEVEL.fullmatch(str(row.get("level", "")))
    return Problem(
        id=f"math-{digest(question)}",
        question=question,
        answer=answer,
        rationale=f"{solution}\nThe answer is $\\boxed{{{answer}}}$.",
        task="math",
        level=int(level[1]) if level else None,
    )


def _answer(row: dict[str, Any], solution: str) -> str:
    """The row's answer, or where the published data has none, what its solution boxes last."""
    if "answer" in row:
        return text_field(row, "answer")
    *_, last = [None, *_BOX.finditer(solution)]
    start = last.end() if last else len(solution)
    if last and last[1]:  # \boxed 5
        return last[1]
    depth = 0
    for end in range(start, len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[end], 0)
        if depth == 0 and solution[end] == "}":
            return solution[start + 1 : end].strip()
    raise ValueError("the row has no 'answer' and its solution boxes none")


register(
    FileTask(
        name="math",
        answer_form=r"The answer is $\boxed{N}$.",
        licence="mit",
        files={"train": "math/train.jsonl", "test": "math/math500.jsonl"},
        hub={
            "train": ("DigitalLearningGmbH/MATH-lighteval", None, "train"),
            "test": ("HuggingFaceH4/MATH-500", None, "test"),
        },
        column="problem",
        convert=problem,
    )
)
