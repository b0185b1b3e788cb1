import random

import pytest

from jaxcritique.critiques.arithmetic import Calculation, marks
from jaxcritique.critiques.program_mistakes import (
    PROGRAM_TYPES,
    carry_on,
    flawed_solution,
    insert_error,
)
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
@pytest.mark.parametrize("error_type", ["calculation", "question_value", "step_value", "operator"])
def test_one_mistake_is_put_into_the_step(error_type, at, seed):
    made = insert_error(PROBLEM, STEPS, at, error_type, random.Random(seed))
    results = {mark.stated for step in STEPS[:at] for mark in marks(step)}
    if error_type == "step_value" and not results:
        assert made is None  # There is no earlier value to be taken.
        return
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
    if error_type == "operator":
        [other] = set("+-*/") & set(mine.expression)
        assert other != sign
        assert operands(mine, other) == operands(theirs, sign)
    else:
        pairs = zip(operands(mine, sign), operands(theirs, sign), strict=True)
        [(wrong, _)] = [pair for pair in pairs if pair[0] != pair[1]]
        assert wrong in ({"48", "3", "4", "5"} if error_type == "question_value" else results)


def test_numbers_with_separators_are_whole():
    problem = Problem(
        id="id",
        question="6 people pay $1,500 each, and 5 pay nothing. How much is it?",
        answer="9000",
        rationale="They pay <<6*1500=9000>>9,000 dollars.\nThe answer is 9000.",
        task="gsm8k",
    )
    steps = split_steps(problem.rationale)
    made = [insert_error(problem, steps, 0, "question_value", random.Random(s)) for s in range(20)]
    texts = {made[0][-1] for made in made if made is not None}
    assert texts == {"They pay <<6*5=30>>30 dollars.", "They pay <<6*6=36>>36 dollars."}


def test_missing_step():
    rng = random.Random(0)
    assert insert_error(PROBLEM, STEPS, 2, "missing_step", rng) == (
        [*STEPS[:2], "That leaves <<24-5=19>>19 eggs."],
        "the step 24+12=36 is left out",
    )
    assert (
        insert_error(PROBLEM, STEPS, 0, "missing_step", rng) is None
    )  # The next has no use of it.
    assert insert_error(PROBLEM, STEPS, 3, "missing_step", rng) is None  # It would just be shorter.


def test_a_calculation_that_is_due_elsewhere_is_no_mistake():
    steps = ["<<3*4=12>>12", "<<3*5=15>>15", "<<12+15=27>>27"]
    problem = Problem("id", "3 boxes of 4, 3 of 5.", "27", "\n".join(steps), "gsm8k")
    made = [insert_error(problem, steps, 0, "question_value", random.Random(i)) for i in range(30)]
    assert None in made  # 3*5 was drawn, and refused.
    assert not any("<<3*5=15>>" in spoilt[0][0] for spoilt in made if spoilt)


@pytest.mark.parametrize("error_type", PROGRAM_TYPES)
def test_a_step_without_calculation_cannot_be_spoilt(error_type):
    assert insert_error(PROBLEM, ["He counts.", *STEPS], 0, error_type, random.Random(0)) is None


def test_unknown_error_type_is_refused():
    with pytest.raises(ValueError, match="unknown error type 'typo'; there are calculation, que"):
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
    assert len(made) > len(problems) / 3
    assert {solution.error_type for solution in made} == set(PROGRAM_TYPES)
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
