"""The format of a critique: writing one from its parts, and reading what a model wrote.

    Step 1: Tom now has 28 apples.
    Explanation: 12+15=27, not 28.
    Correctness: Wrong
    Final answer: Wrong

The explanation stands before the verdict: a model that must first work the step out judges far
better than one that must judge first (docs/log.md).
"""

import dataclasses
import re
from collections.abc import Sequence

_CALCULATION = re.compile(r"<<[^<>\n]*>>")
_ANSWER_LINE = re.compile(r"^\W*(?:####|(?:so |therefore,? )?the (?:final )?answer is\b)", re.I)
# Labels as models write them: any mixture of bold marks, bullets and numbering around the word.
_CORRECTNESS = re.compile(
    r"^[\W\d_]*correctness(?: of the step)?\W*\b(correct|wrong|incorrect)\b", re.I
)
_FINAL = re.compile(
    r"^[\W\d_]*(?:correctness of the final answer|final answer)\W*(?:is\W*)?"
    r"\b(correct|wrong|incorrect)\b",
    re.I,
)


@dataclasses.dataclass(frozen=True)
class StepVerdict:
    """What is said of one step."""

    step: str
    explanation: str
    correct: bool


@dataclasses.dataclass(frozen=True)
class ParsedCritique:
    """What a critique's text says."""

    step_verdicts: tuple[bool, ...]  # In order; shorter than the solution where it stopped early.
    says_correct: bool | None  # The verdict on the final answer; None: it cannot be parsed.

    @property
    def first_error(self) -> int | None:
        """The first step called wrong, counted from 0."""
        return self.step_verdicts.index(False) if False in self.step_verdicts else None


def split_steps(solution: str) -> list[str]:
    """Returns the solution's steps: its non-empty lines but the one that states the answer."""
    lines = [line.strip() for line in solution.splitlines()]
    return [line for line in lines if line and not _ANSWER_LINE.match(line)]


def without_calculations(text: str) -> str:
    """Drops GSM8K's calculator marks, as the paper's critiques do when they repeat a step."""
    return _CALCULATION.sub("", text)


def render_critique(steps: Sequence[StepVerdict], says_correct: bool, remark: str = "") -> str:
    """Writes a critique; `remark` explains a final verdict that no single step explains."""
    lines = []
    for number, verdict in enumerate(steps, start=1):
        lines += [
            f"Step {number}: {without_calculations(verdict.step)}",
            f"Explanation: {verdict.explanation}",
            f"Correctness: {'Correct' if verdict.correct else 'Wrong'}",
        ]
    if remark:
        lines.append(f"Explanation: {remark}")
    lines.append(f"Final answer: {'Correct' if says_correct else 'Wrong'}")
    return "\n".join(lines)


def parse_critique(text: str) -> ParsedCritique:
    """Reads a critique, in this project's format or the released data's.

    A text without a final verdict still has one if a step is called wrong; otherwise
    `says_correct` is None, and the caller counts it as unparsable.
    """
    verdicts: list[bool] = []
    final = None
    for line in text.splitlines():
        if match := _FINAL.match(line):
            final = match[1].lower() == "correct"
        elif match := _CORRECTNESS.match(line):
            verdicts.append(match[1].lower() == "correct")
    if final is None and False in verdicts:
        final = False
    return ParsedCritique(tuple(verdicts), final)
