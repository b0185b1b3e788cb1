"""GSM8K (Cobbe et al., 2021): grade-school word problems, one step of the rationale a line."""

import pathlib
from typing import Any, Literal

from jaxcritique.records import Problem, digest
from jaxcritique.tasks.files import hub_problems, read_problems, text_field


def load(split: Literal["train", "test"], data_dir: str) -> list[Problem]:
    """Reads `data_dir/gsm8k/SPLIT.jsonl`, or downloads if `data_dir` is "hub".

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row lacks its question or its `#### answer`; file and line are named.
    """
    if data_dir == "hub":
        return hub_problems("openai/gsm8k", "main", split, problem)
    return read_problems(pathlib.Path(data_dir) / "gsm8k" / f"{split}.jsonl", problem)


def problem(row: dict[str, Any]) -> Problem:
    """Converts a row as it was published.

    Raises:
      ValueError: it lacks its question or its `#### answer`.
    """
    question = text_field(row, "question")
    steps, mark, answer = text_field(row, "answer").rpartition("####")
    answer = answer.strip().replace(",", "")
    if not mark or not answer:
        raise ValueError("its answer does not end with '#### N'")
    return Problem(
        id=f"gsm8k-{digest(question)}",
        question=question,
        answer=answer,
        rationale=f"{steps.strip()}\nThe answer is {answer}.",
        task="gsm8k",
    )
