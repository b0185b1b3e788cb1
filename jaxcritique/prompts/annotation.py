"""What an annotator model is asked (section 3.2), and reading its reply.

The hints are the paper's: none for a right response; the reference for one sampled from scratch;
the reference and the step where it likely goes wrong for one that branched off a right path; the
exact step and the mistake for one that a mistake was put into.
"""

import re
from typing import Literal

from jaxcritique.prompts.critique import (
    StepVerdict,
    parse_critique,
    render_critique,
    split_steps,
    without_calculations,
)
from jaxcritique.prompts.templates import PromptSet
from jaxcritique.records import Messages, Solution

# "critic": the critic's own prompt and no hint, for a model that knows the format by training.
Mode = Literal["holistic", "step_by_step", "critic"]

_STEP_BY_STEP = (
    "Check the solution step by step. For each step write three lines:\n"
    "Step N: the step, repeated\n"
    "Explanation: what the step should come to, and why it is right or wrong\n"
    "Correctness: Correct or Wrong\n"
    "Stop after the first wrong step. End with one line: 'Final answer: Correct' or "
    "'Final answer: Wrong'."
)
_HOLISTIC = (
    "Read the whole solution and find the first step that is wrong. Write three lines:\n"
    "First wrong step: its number, or none\n"
    "Explanation: what is wrong with it, and how it should be done\n"
    "Final answer: Correct or Wrong"
)
_SECRET = (
    "This is for you alone: the student has not seen it. Do not mention it, and do not give the "
    "final answer away."
)
_FIRST_WRONG = re.compile(
    r"first\W++(?:wrong|incorrect|erroneous|flawed|mistaken)\W++step\W*+(?:is\W*+)?(?:in\W*+)?"
    r"(?:at\W*+)?(?:step\W*+)?(?:number\W*+)?(\d{1,4}\b|none|no\b)"
    r"|first\W++(?:error|mistake)\W*+(?:is|occurs|appears|happens)?\W*+(?:in|at|is)?\W*+step\W*+"
    r"(\d{1,4})\b",
    re.I,
)
_EXPLANATION = re.compile(
    r"(?:explanation|feedback|reason)[*_]*\s*[:：][*_\s]*(.*?)"
    r"(?=^[^\w\n]*+(?:final answer|first\W++wrong)|\Z)",
    re.I | re.M | re.S,
)


def annotation_messages(prompts: PromptSet, solution: Solution, mode: Mode) -> Messages:
    """Asks for a critique, with the hint that the solution's origin calls for.

    A right response is always checked step by step: only so can every step be labelled correct.
    """
    if mode == "critic":
        return prompts.to_critique(solution)
    steps = split_steps(solution.text)
    numbered = "\n".join(
        f"Step {number}: {without_calculations(step)}" for number, step in enumerate(steps, start=1)
    )
    answer = [line for line in solution.text.splitlines() if line.strip()][-1:]
    if answer and answer[0].strip() not in steps:
        numbered += f"\n{answer[0].strip()}"
    parts = [
        f"Problem: {solution.problem.question}",
        f"A student's solution:\n{numbered}",
        hint(solution),
        _HOLISTIC if mode == "holistic" and not solution.correct else _STEP_BY_STEP,
    ]
    return [{"role": "user", "content": "\n\n".join(part for part in parts if part)}]


def hint(solution: Solution) -> str:
    """What the annotator is told of the mistake; "" for a right response."""
    if solution.correct:
        return ""
    step = None if solution.error_step is None else solution.error_step + 1
    if solution.error and step is not None:
        kind = f" ({solution.error_type})" if solution.error_type else ""
        return f"The first mistake is in step {step}: {solution.error}{kind}\n{_SECRET}"
    reference = without_calculations(solution.problem.rationale)
    likely = "" if step is None else f"The solution most likely goes wrong first at step {step}.\n"
    return f"A correct solution:\n{reference}\n{likely}{_SECRET}"


def read_annotation(solution: Solution, text: str, mode: Mode) -> tuple[str, bool] | None:
    """Reads a reply and writes it anew in the critic's format.

    Returns:
      The critique and what it says of the final answer; None where the reply cannot be read: it
      has no verdict, names no step that the solution has, or leaves a step it calls right
      unlabelled.
    """
    steps = split_steps(solution.text)
    if mode == "holistic" and not solution.correct:
        return _read_holistic(steps, text)
    parsed = parse_critique(text)
    first = parsed.first_error
    if first is None:
        right = {step.number for step in parsed.steps if step.correct}
        readable = parsed.says_correct and right.issuperset(range(len(steps)))
    else:
        readable = first < len(steps)
    explanations = {step.number: step.explanation for step in parsed.steps}
    return _labelled(steps, first, explanations) if readable else None


def _read_holistic(steps: list[str], text: str) -> tuple[str, bool] | None:
    found = _FIRST_WRONG.search(text)
    if found is None:
        return None
    named = (found[1] or found[2]).lower()
    explanation = _EXPLANATION.search(text)
    words = " ".join(explanation[1].replace("**", "").split()) if explanation else ""
    if not named.isdigit():
        return _labelled(steps, None, {})
    first = int(named) - 1
    if not 0 <= first < len(steps) or not words:
        return None
    return _labelled(steps, first, {first: words})


def _labelled(
    steps: list[str], first: int | None, explanations: dict[int, str]
) -> tuple[str, bool]:
    """Writes a critique up to the first wrong step (from 0; None: all are right)."""
    judged = steps if first is None else steps[: first + 1]
    verdicts = [
        StepVerdict(step, explanations.get(i, ""), correct=i != first)
        for i, step in enumerate(judged)
    ]
    return render_critique(verdicts, first is None), first is None
