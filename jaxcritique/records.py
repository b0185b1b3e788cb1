"""The records that flow through every stage: problem, solution, critique, refinement.

Each is frozen and contains the record it is about, so that every row of a dataset is complete.
Records convert to JSON and back without loss: `to_json(record)`, `from_json(Solution, row)`.
"""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, cast

# The grader's, and "ungraded" where the problem's answer is not known.
Verdict = Literal["correct", "wrong", "unparsable", "timeout", "ungraded"]
Messages = list[dict[str, str]]  # [{"role": "user" | "assistant", "content": text}, ...]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with its ground truth."""

    id: str  # Unique within its task; confidence intervals resample problems by it.
    question: str
    answer: str  # The final answer alone, as the grader compares it; "": not known.
    rationale: str  # The annotated solution, one step a line, then the answer line; "": none.
    task: str  # Its name in `jaxcritique.tasks`; "": a question of no task.
    level: int | None = None  # 1 (easy) to 5 (hard); None where the data has no levels.

    @classmethod
    def asked(cls, question: str, answer: str = "") -> "Problem":
        """Returns the problem of a question that belongs to no task.

        Args:
          question: the text.
          answer: the final answer; without it solutions stay "ungraded".

        Raises:
          ValueError: the question has no text.
        """
        if not question.strip():
            raise ValueError("the question is empty: there is nothing to solve.")
        return cls(f"asked-{digest(question)}", question, answer.strip(), rationale="", task="")


@dataclasses.dataclass(frozen=True)
class Solution:
    """A response of the actor (y in the paper), graded."""

    problem: Problem
    text: str
    verdict: Verdict
    answer: str | None  # The answer extracted from the text; None where there is none.
    source: str = "actor"  # "actor", or the strategy that sampled it: "RG1", "RG2", "RG3".
    # The first wrong step, counted from 0, where the strategy knows it.
    error_step: int | None = None
    error: str | None = None  # The mistake in words, where the strategy knows it (RG3).
    error_type: str | None = None  # The kind of mistake, one of ERROR_TYPES in prompts/mistakes.py.
    tokens: int = 0  # Generated tokens.

    @property
    def correct(self) -> bool:
        """Whether the final answer equals the ground truth."""
        return self.verdict == "correct"


@dataclasses.dataclass(frozen=True)
class Critique:
    """Step-level feedback (c in the paper) on a solution, parsed."""

    solution: Solution
    text: str
    says_correct: bool | None  # The verdict on the final answer; None where there is none to parse.
    first_error: int | None  # The first step called wrong, counted from 0; None: no step is.
    tokens: int = 0  # Generated tokens.


@dataclasses.dataclass(frozen=True)
class Refinement:
    """A new, complete solution (y' in the paper) written after a critique, graded."""

    critique: Critique
    text: str
    verdict: Verdict
    answer: str | None  # The answer extracted from the text; None where there is none.
    tokens: int = 0  # Generated tokens.

    @property
    def correct(self) -> bool:
        """Whether the refined final answer equals the ground truth."""
        return self.verdict == "correct"


def to_json(record: Any) -> dict[str, Any]:
    """Returns a record as nested dictionaries of JSON values."""
    return dataclasses.asdict(record)


def from_json(cls: type[T], row: Mapping[str, Any]) -> T:
    """Rebuilds a record of class `cls` from the output of `to_json`.

    Raises:
      ValueError: a field is missing or unknown; the message names it.
    """
    hints = typing.get_type_hints(cls)
    if unknown := set(row) - set(hints):
        raise ValueError(f"{cls.__name__} has no field {sorted(unknown)}")
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cast(Any, cls)):
        if field.name not in row:
            if field.default is dataclasses.MISSING:
                raise ValueError(f"{cls.__name__} lacks the field {field.name!r}")
            continue
        value, hint = row[field.name], hints[field.name]
        options = (hint, *typing.get_args(hint))  # The members of a union, where it is one.
        record = next((option for option in options if dataclasses.is_dataclass(option)), None)
        values[field.name] = (
            value if value is None or record is None else from_json(cast(type[Any], record), value)
        )
    return cls(**values)


def digest(*parts: Any) -> str:
    """Returns 16 hexadecimal digits that identify the content of `parts`.

    Requests, stages and seeds are identified by their content, never by a row number.

    Args:
      *parts: records, or JSON values.

    Raises:
      TypeError: a part is neither.
    """

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        raise TypeError(f"cannot hash a {type(value).__name__}")

    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
