"""MATH (Hendrycks et al., 2021): competition problems in LaTeX, five levels; test is MATH-500."""

import pathlib
import re
from typing import Any, Literal

from absl import logging

from jaxcritique.records import Problem, digest
from jaxcritique.tasks.files import hub_problems, read_problems, text_field

FILES = {"train": "train.jsonl", "test": "math500.jsonl"}
_LEVEL = re.compile(r"(?:Level )?([1-5])")


def load(split: Literal["train", "test"], data_dir: str) -> list[Problem]:
    r"""Reads `data_dir/math/train.jsonl` or `math500.jsonl`, or downloads if `data_dir` is "hub".

    The published training set has two rows whose answer is an empty `\boxed{}`; such rows are left
    out and counted.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row lacks its problem, solution or answer; file and line are named.
    """
    if data_dir == "hub" and split == "test":
        problems = hub_problems("HuggingFaceH4/MATH-500", None, "test", problem)
    elif data_dir == "hub":
        problems = hub_problems("DigitalLearningGmbH/MATH-lighteval", None, "train", problem)
    else:
        problems = read_problems(pathlib.Path(data_dir) / "math" / FILES[split], problem)
    usable = [problem for problem in problems if problem.answer]
    if len(usable) < len(problems):
        logging.warning("MATH %s: %d rows have an empty \\boxed{} and are left out",
                        split, len(problems) - len(usable))  # fmt: skip
    return usable


def problem(row: dict[str, Any]) -> Problem:
    """Converts a row as it was published.

    Raises:
      ValueError: it lacks its problem, solution or answer.
    """
    question, solution = text_field(row, "problem"), text_field(row, "solution")
    empty = r"\boxed{}" in solution and not str(row.get("answer") or "").strip()
    answer = "" if empty else _answer(row, solution)
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
    start = solution.rfind(r"\boxed{")
    depth = 0
    for end in range(start, len(solution) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(solution[end], 0)
        if depth == 0 and solution[end] == "}":
            return solution[start + len(r"\boxed{") : end].strip()
    raise ValueError("the row has no 'answer' and its solution boxes none")
