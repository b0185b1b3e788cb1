import dataclasses

import pytest

from jaxcritique.critiques.duplicates import (
    decontaminated,
    distinct,
    grams,
    without_near_duplicates,
)
from jaxcritique.records import Problem, Solution
from jaxcritique.tasks.word_problems import generate

PROBLEM = Problem(
    "a", "Tom has 12 apples, buys 3 and eats 5. How many are left?", "10", "", "gsm8k"
)


def solution(text: str, right: bool = False, problem: Problem = PROBLEM) -> Solution:
    return Solution(problem, text, "correct" if right else "wrong", None)


@pytest.mark.parametrize(("text", "n", "count"), [
    ("", 3, 0), ("...", 3, 0), ("one two", 3, 1), ("one two three", 3, 1), ("a b c d", 3, 2),
    ("Ünï 1,000.5 = x", 2, 3),
])  # fmt: skip
def test_grams(text, n, count):
    assert len(grams(text, n)) == count


def test_numbers_and_signs_are_words():
    assert grams("3+4=7", 5) == grams("3 + 4 = 7", 5) != grams("3-4=7", 5)


def test_exact_duplicates_are_of_the_same_problem():
    other = dataclasses.replace(PROBLEM, id="b")
    solutions = [solution("x"), solution("x\n"), solution("x", problem=other), solution("y")]
    assert distinct(solutions) == [solutions[0], *solutions[2:]]
    assert distinct([]) == []


def test_near_duplicates():
    text = "Tom has 12+3=15 apples after buying. Then he has 15-5=10 apples left."
    solutions = [
        solution(text),
        solution(text.upper().replace(".", "!")),  # The same words.
        solution(text.replace("=10", "=11")),
        solution(text, right=True),  # Another verdict is another case.
    ]
    assert without_near_duplicates(solutions, 8, 1.0) == [solutions[0], *solutions[2:]]
    assert without_near_duplicates(solutions, 8, 0.1) == [solutions[0], solutions[3]]


def test_decontamination():
    renamed = dataclasses.replace(PROBLEM, id="b", question=PROBLEM.question.lower() + " Tell me.")
    other = dataclasses.replace(PROBLEM, id="c", question="Tom has 19 apples, eats 4 and buys 6.")
    clean, contaminated = decontaminated([renamed, other], [PROBLEM], 8, 0.5)
    assert [p.id for p in contaminated] == ["b"]
    assert [p.id for p in clean] == ["c"]
    assert decontaminated([PROBLEM], [], 8, 0.5) == ([PROBLEM], [])


LONG = (
    "Read this to the end before you begin. It is about a boy in a village by the sea, whose "
    "garden has trees of many kinds. "
)


@pytest.mark.parametrize(("train", "test"), [
    (f"{LONG}{PROBLEM.question}", PROBLEM.question),  # The test question, whole.
    (PROBLEM.question, f"{LONG}{PROBLEM.question}"),
    (f"{LONG}What is 3 + 4?", "What is 3+4?"),  # It has fewer words than a gram.
    ("What is 3 + 4?", "What is 3+4?"),
])  # fmt: skip
def test_a_question_that_holds_the_other_is_contaminated(train, test):
    mine = dataclasses.replace(PROBLEM, id="b", question=train)
    theirs = dataclasses.replace(PROBLEM, id="t", question=test)
    assert decontaminated([mine], [theirs], 8, 0.5) == ([], [mine])


@pytest.mark.parametrize(("train", "test"), [
    (f"{LONG}What is 3 + 4?", "What is 3+5?"),
    (f"{LONG}What is 3 + 4?", f"What is 3 + 4? {PROBLEM.question}"),
    (f"{LONG}What is 3 + 4?", "..."),
    ("...", "..."),
])  # fmt: skip
def test_less_than_a_gram_in_common_is_clean(train, test):
    mine = dataclasses.replace(PROBLEM, id="b", question=train)
    theirs = dataclasses.replace(PROBLEM, id="t", question=test)
    assert decontaminated([mine], [theirs], 8, 0.5) == ([mine], [])


def test_stories_that_share_their_phrases_are_not_contaminated():
    train, tests = generate("train", 300, 0), generate("test", 300, 0)
    clean, _ = decontaminated(train, tests, 8, 0.5)
    assert len(clean) > 290
    assert decontaminated(tests, tests, 8, 0.5)[0] == []
