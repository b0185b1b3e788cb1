"""The records that flow through every stage: problem, solution, critique, refinement.

Each is frozen and holds the record it speaks about, so a row of a dataset can be read alone. A
record goes to JSON and back without loss: `to_json(record)`, `from_json(Solution, row)`.
"""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

Verdict = Literal["correct", "wrong", "unparsable", "timeout"]
Messages = list[dict[str, str]]  # [{"role": "user" | "assistant", "content": text}, ...]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with its ground truth."""

    id: str  # Unique within its task, and the unit every confidence interval is taken over.
    question: str
    answer: str  # The final answer alone, as the grader compares it.
    rationale: str  # The annotated solution: one step a line, then the answer line.
    task: str  # Its name in `jaxcritique.tasks`.
    level: int | None = None  # 1 (easy) to 5 (hard); None where the data has no levels.


@dataclasses.dataclass(frozen=True)
class Solution:
    """A response of the actor (y in the paper) and what the grader said of its answer."""

    problem: Problem
    text: str
    verdict: Verdict
    answer: str | None  # What the grader extracted; None where it found nothing.
    source: str = "actor"  # "actor", or the strategy that made it flawed: "RG1", "RG2", "RG3".
    # The first step at which it left a correct path, counted from 0, where the strategy knows.
    error_step: int | None = None
    error: str | None = None  # The mistake in words, where the strategy knows (RG3).
    error_type: str | None = None  # And its kind, one of ERROR_TYPES in prompts/mistakes.py.
    tokens: int = 0  # That a model generated to write it.

    @property
    def correct(self) -> bool:
        """Whether the final answer equals the ground truth."""
        return self.verdict == "correct"


@dataclasses.dataclass(frozen=True)
class Critique:
    """Step-level feedback (c in the paper) on a solution, with what was parsed out of it."""

    solution: Solution
    text: str
    says_correct: bool | None  # The verdict on the final answer; None where it cannot be parsed.
    first_error: int | None  # The first step called wrong, from 0; None where there is none.
    tokens: int = 0  # That a model generated to write it.


@dataclasses.dataclass(frozen=True)
class Refinement:
    """A new, whole solution (y' in the paper) written after reading a critique."""

    critique: Critique
    text: str
    verdict: Verdict
    answer: str | None
    tokens: int = 0  # That a model generated to write it.

    @property
    def correct(self) -> bool:
        """Whether the refined final answer equals the ground truth."""
        return self.verdict == "correct"


def to_json(record: Any) -> dict[str, Any]:
    """Returns the record as nested dictionaries of JSON values."""
    return dataclasses.asdict(record)


def from_json(cls: type[T], row: Mapping[str, Any]) -> T:
    """Rebuilds a record of class `cls` from `to_json`'s output.

    Raises:
      ValueError: a field is missing or unknown; the message names it.
    """
    hints = typing.get_type_hints(cls)
    unknown = set(row) - set(hints)
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {sorted(unknown)}")
    values = {}
    for field in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]
        if field.name not in row:
            if field.default is dataclasses.MISSING:
                raise ValueError(f"{cls.__name__} lacks the field {field.name!r}")
            continue
        value: Any = row[field.name]
        hint: Any = hints[field.name]
        options = (hint, *typing.get_args(hint))  # A union's members, or none.
        record: Any = next((option for option in options if dataclasses.is_dataclass(option)), None)
        values[field.name] = value if value is None or record is None else from_json(record, value)
    return cls(**values)


def digest(*parts: Any) -> str:
    """Returns 16 hexadecimal digits naming the content of `parts` (records or JSON values).

    Requests, stages and seeds are all known by such a name, never by a row number.
    """

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        raise TypeError(f"cannot hash a {type(value).__name__}")

    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
