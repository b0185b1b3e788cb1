"""GSM8K (Cobbe et al., 2021): grade-school word problems, one step of the rationale a line."""

from typing import Any

from jaxcritique.records import Problem, digest
from jaxcritique.tasks.task import FileTask, register, text_field


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


register(
    FileTask(
        name="gsm8k",
        licence="mit",
        checkable=True,
        files={"train": "gsm8k/train.jsonl", "test": "gsm8k/test.jsonl"},
        hub={"train": ("openai/gsm8k", "main", "train"), "test": ("openai/gsm8k", "main", "test")},
        column="question",
        convert=problem,
    )
)
