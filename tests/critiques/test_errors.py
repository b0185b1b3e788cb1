import random

import pytest

from jaxcritique.critiques.arithmetic import Calculation, marks
from jaxcritique.critiques.errors import ERROR_TYPES, carry_on, flawed_solution, insert_error
from jaxcritique.prompts.critique import split_steps
from jaxcritique.records import Problem

PROBLEM = Problem(
    id="id",
    question="Tom has 48 eggs, sells half, buys 3 boxes of 4 and eats 5. How many are left?",
    answer="31",
    rationale="He keeps <<48/2=24>>24 eggs.\nThese are <<3*4=12>>12 more.\n"
    "That makes <<24+12=36>>36 eggs.\nThat leaves <<36-5=31>>31 eggs.\nThe answer is 31.",
    task="gsm8k",
)
STEPS = split_steps(PROBLEM.rationale)


def operands(mark: Calculation, sign: str) -> list[str]:
    return mark.expression.split(sign)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("at", range(len(STEPS)))
@pytest.mark.parametrize("error_type", ["calculation", "wrong value", "wrong operator"])
def test_one_mistake_is_put_into_the_step(error_type, at, seed):
    made = insert_error(PROBLEM, STEPS, at, error_type, random.Random(seed))
    assert made is not None
    steps, said = made
    assert steps[:-1] == STEPS[:at]
    [mine], [theirs] = marks(steps[at]), marks(STEPS[at])
    assert mine.stated != theirs.stated
    assert steps[at].count(mine.stated) >= 2  # After the mark, too.
    assert mine.right == (error_type != "calculation")
    sign = next(sign for sign in "+-*/" if sign in theirs.expression)
    if error_type == "calculation":
        assert mine.expression == theirs.expression
        assert said == f"{theirs.expression} is {theirs.stated}, not {mine.stated}"
        return
    assert said == f"the step should be {theirs.expression}, not {mine.expression}"
    if error_type == "wrong operator":
        [other] = set("+-*/") & set(mine.expression)
        assert other != sign
        assert operands(mine, other) == operands(theirs, sign)
    else:
        pairs = zip(operands(mine, sign), operands(theirs, sign), strict=True)
        [(wrong, _)] = [pair for pair in pairs if pair[0] != pair[1]]
        results = {mark.stated for step in STEPS[:at] for mark in marks(step)}
        assert wrong in {"48", "3", "4", "5"} | results


def test_missing_step():
    rng = random.Random(0)
    assert insert_error(PROBLEM, STEPS, 1, "missing step", rng) == (
        STEPS[:1],
        "the step 3*4=12 is left out",
    )
    assert insert_error(PROBLEM, STEPS, 3, "missing step", rng) is None  # It would just be shorter.


@pytest.mark.parametrize("error_type", ERROR_TYPES)
def test_a_step_without_calculation_cannot_be_spoilt(error_type):
    assert insert_error(PROBLEM, ["He counts.", *STEPS], 0, error_type, random.Random(0)) is None


def test_unknown_error_type_is_refused():
    with pytest.raises(ValueError, match="unknown error type 'typo'; there are calculation, wrong"):
        insert_error(PROBLEM, STEPS, 0, "typo", random.Random(0))


def test_wrong_values_are_carried_on():
    flawed = ["He keeps <<48/2=26>>26 eggs."]
    assert carry_on(flawed, STEPS) == [
        "He keeps <<48/2=26>>26 eggs.",
        "These are <<3*4=12>>12 more.",
        "That makes <<26+12=38>>38 eggs.",
        "That leaves <<38-5=33>>33 eggs.",
    ]
    assert carry_on([], STEPS) == STEPS
    assert carry_on(flawed, ["He keeps <<48/2=24>>24.", "So he is glad."])[1] == "So he is glad."


def test_flawed_solutions_of_stories(problems):
    flawed = [flawed_solution(problem, random.Random(i)) for i, problem in enumerate(problems)]
    made = [solution for solution in flawed if solution is not None]
    assert len(made) > len(problems) / 2
    for solution in made:
        *steps, last = solution.text.split("\n")
        reference = split_steps(solution.problem.rationale)
        assert solution.verdict == "wrong"
        assert last == f"The answer is {solution.answer}."
        assert marks(steps[-1])[-1].stated == solution.answer != solution.problem.answer
        assert solution.error
        assert steps[: solution.error_step] == reference[: solution.error_step]
        assert steps[solution.error_step] != reference[solution.error_step]
    again = [flawed_solution(problem, random.Random(i)) for i, problem in enumerate(problems)]
    assert again == flawed


def test_nothing_to_spoil():
    blank = Problem("id", "Why?", "5", "The answer is 5.", "gsm8k")
    assert flawed_solution(blank, random.Random(0)) is None
