"""Mistakes put into a correct solution by a program: what an instructed model does in RG3.

Works on solutions whose steps carry GSM8K's calculator marks.
"""

import random
import re
from fractions import Fraction

from jaxcritique.critiques.arithmetic import Calculation, evaluate, marks
from jaxcritique.prompts.critique import split_steps
from jaxcritique.records import Problem, Solution

# Those of the nine kinds (prompts/mistakes.py) that take no understanding of the story.
PROGRAM_TYPES = ("calculation", "question_value", "step_value", "operator", "missing_step")

_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
_BINARY = re.compile(r"(\d+(?:\.\d+)?)([-+*/])(\d+(?:\.\d+)?)")


def insert_error(
    problem: Problem, steps: list[str], at: int, error_type: str, rng: random.Random
) -> tuple[list[str], str] | None:
    """Puts one mistake into step `at` of a correct solution.

    Args:
      problem: the question, whose numbers a "question_value" is taken from.
      steps: the correct solution's steps.
      at: which step to spoil, counted from 0; a "missing_step" is this one, and the step after it
        is written as if there were no need for it.
      error_type: one of PROGRAM_TYPES.
      rng: decides between the possible mistakes.

    Returns:
      The steps up to and including the spoilt one, and the mistake in words; None where this type
      of mistake cannot be made at this step.
    """
    if error_type not in PROGRAM_TYPES:
        raise ValueError(f"unknown error type {error_type!r}; there are {', '.join(PROGRAM_TYPES)}")
    missing = error_type == "missing_step"
    spoilt = at + missing
    found = marks(steps[at])
    if not found or spoilt >= len(steps) or not marks(steps[spoilt]):
        return None
    mark = marks(steps[spoilt])[-1]
    before = steps[:at]
    result: str | None
    if error_type == "calculation":
        expression, result = mark.expression, _slip(mark.stated, rng)
        said = f"{mark.expression} is {mark.stated}, not {result}"
    else:
        if missing:
            expression = _without_step(mark, found[-1])
            said = f"the step {found[-1].expression}={found[-1].stated} is left out"
        elif error_type == "operator":
            expression = _replace_operator(mark, rng)
            said = f"the step should be {mark.expression}, not {expression}"
        else:
            from_question = error_type == "question_value"
            asked = [number.replace(",", "") for number in _NUMBER.findall(problem.question)]
            known = asked if from_question else _results(before)
            expression = _replace_value(mark, known, rng)
            said = f"the step should be {mark.expression}, not {expression}"
        result = _shown(evaluate(expression)) if expression else None
        if expression and _is_due(expression, steps):
            return None  # Some other step's calculation is no mistake, only out of order.
    if expression is None or result is None or result == mark.stated:
        return None
    return [*before, _with_mark(steps[spoilt], expression, result)], said


def carry_on(steps: list[str], reference: list[str]) -> list[str]:
    """Continues a flawed solution as the reference goes, with the wrong values carried along.

    Args:
      steps: the flawed steps so far.
      reference: the correct solution's steps.

    Returns:
      All steps; an operand that was an earlier result in the reference is the flawed one's here.
    """
    changed: dict[str, str] = {}
    for flawed, right in zip(steps, reference, strict=False):
        for mine, theirs in zip(marks(flawed), marks(right), strict=False):
            changed[theirs.stated] = mine.stated
    steps = list(steps)
    for line in reference[len(steps) :]:
        found = marks(line)
        if not found:
            steps.append(line)
            continue
        theirs = found[-1].stated
        expression = _NUMBER.sub(lambda m: changed.get(m[0], m[0]), found[-1].expression)
        result = _shown(evaluate(expression)) or theirs
        steps.append(_with_mark(line, expression, result))
        changed[theirs] = result
    return steps


def flawed_solution(problem: Problem, rng: random.Random) -> Solution | None:
    """Spoils one step of the annotated solution and carries the mistake on to the answer.

    Returns None where that cannot be done, or where the answer comes out right all the same.
    """
    reference = split_steps(problem.rationale)
    if not reference:
        return None
    at = rng.randrange(len(reference))
    made, error_type = None, ""
    weights = dict(zip(PROGRAM_TYPES, (9, 2, 2, 3, 2), strict=True))
    while weights and made is None:  # A type that cannot be made here leaves its place to others.
        error_type = rng.choices(list(weights), list(weights.values()))[0]
        del weights[error_type]
        made = insert_error(problem, reference, at, error_type, rng)
    if made is None:
        return None
    steps, error = made
    if error_type == "missing_step":
        reference = [*reference[:at], *reference[at + 1 :]]
    steps = carry_on(steps, reference)
    *_, answer = [None, *_results(steps)]  # What the last calculation is said to come to.
    if answer is None or evaluate(answer) == evaluate(problem.answer):
        return None
    text = "\n".join([*steps, f"The answer is {answer}."])
    return Solution(problem, text, "wrong", answer, "RG3", at, error, error_type)


def _with_mark(line: str, expression: str, result: str) -> str:
    """Rewrites the step's last calculator mark, and the text around it that says the same."""
    start = line.rindex("<<")
    end = line.index(">>", start)
    old = line[start + 2 : end].partition("=")[0]
    # GSM8K writes `48/2 = <<48/2=24>>24`: the plain expression before the mark goes with it.
    spaced = r"\s*".join(re.escape(char) for char in old.replace(" ", ""))
    head = re.sub(spaced + r"(?=\s*=\s*\$?$)", lambda _: expression, line[:start])
    tail = _NUMBER.sub(lambda m: result if m.start() <= 1 else m[0], line[end + 2 :], count=1)
    return f"{head}<<{expression}={result}>>{tail}"


def _slip(stated: str, rng: random.Random) -> str | None:
    """A number as a person miscalculates: a carry, a neighbouring digit, a small difference."""
    value = evaluate(stated)
    if value is None:
        return None
    slips = (1, -1, 2, -2, 10, -10, 10, -10, 20, -20, 9, -9, 5, -5)
    choices = [value + slip for slip in slips if value + slip > 0]
    return _shown(rng.choice(choices)) if choices else None


def _results(steps: list[str]) -> list[str]:
    return [mark.stated for step in steps for mark in marks(step)]


def _replace_value(mark: Calculation, known: list[str], rng: random.Random) -> str | None:
    """The expression with one of its numbers replaced by a known one."""
    operands = list(_NUMBER.finditer(mark.expression))
    rng.shuffle(operands)
    for operand in operands:
        others = sorted({value for value in known if value != operand[0]})
        rng.shuffle(others)
        for other in others:
            expression = (
                mark.expression[: operand.start()] + other + mark.expression[operand.end() :]
            )
            if _shown(evaluate(expression)) is not None:
                return expression
    return None


def _replace_operator(mark: Calculation, rng: random.Random) -> str | None:
    match = _BINARY.fullmatch(mark.expression)
    if match is None:
        return None
    left, operator, right = match.groups()
    choices = [f"{left}{sign}{right}" for sign in "+-*/" if sign != operator]
    choices = [choice for choice in choices if _shown(evaluate(choice)) is not None]
    return rng.choice(choices) if choices else None


def _without_step(mark: Calculation, missing: Calculation) -> str | None:
    """The expression with what the missing step started from in the place of its result."""
    start = _NUMBER.match(missing.expression)
    if start is None or missing.stated not in _NUMBER.findall(mark.expression):
        return None
    return _NUMBER.sub(lambda m: start[0] if m[0] == missing.stated else m[0], mark.expression)


def _is_due(expression: str, steps: list[str]) -> bool:
    """Whether a step of the correct solution does this very calculation."""
    mine = Calculation(expression, "", None)
    return any(mine.same_operation(mark) for step in steps for mark in marks(step))


def _shown(value: Fraction | None) -> str | None:
    """A value as a solution would write it; None for what nobody would (negative, long)."""
    if value is None or value < 0 or value >= 1000:
        return None
    if value.denominator == 1:
        return str(value.numerator)
    text = f"{float(value):.2f}".rstrip("0")
    return text if Fraction(text) == value else None
