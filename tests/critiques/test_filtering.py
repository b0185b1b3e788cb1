import pytest

from jaxcritique.critiques.filtering import (
    FilterRule,
    Tally,
    hardly_reasons,
    leaks_answer,
    tally_alone,
    tally_refinements,
)
from jaxcritique.grading import Grader
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.records import Problem, Solution
from jaxcritique.roles import Context, read_critique
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store

PROBLEM = Problem("id", "Tom has 12 eggs and buys 15.", "27", "<<12+15=27>>27", "gsm8k")
RESPONSE = "12+15=28, he has 28.\nThe answer is 28."
RIGHT, BARE = "12+15=27, he has 27.\nThe answer is 27.", "The answer is 27."


@pytest.mark.parametrize(("kind", "tau", "right", "answered", "kept"), [
    ("soft", 0.3, 3, 10, False), ("soft", 0.3, 4, 10, True), ("soft", 0.0, 1, 10, True),
    ("soft", 0.3, 2, 5, True), ("soft", 1.0, 10, 10, False),
    ("hard", 0.3, 0, 10, False), ("hard", 0.9, 1, 10, True), ("none", 0.9, 0, 10, True),
    ("soft", 0.0, 0, 0, False), ("hard", 0.0, 0, 0, False), ("none", 0.0, 0, 0, True),
])  # fmt: skip
def test_rules(kind, tau, right, answered, kept):
    assert FilterRule(kind, tau).keeps(Tally(answered, right)) == kept


class Script:
    """Answers each request with the same texts; None fails."""

    key = "script"

    def __init__(self, *texts):
        self._texts = texts

    def generate(self, requests, progress):
        return [
            Completion(r.id, i, text or "", "stop" if text else "error", 10, 5 if text else 0)
            for r in requests
            for i, text in enumerate(self._texts)
        ]


@pytest.fixture
def context(tmp_path):
    with Grader() as grader:
        yield Context(Store(tmp_path), grader, COMPACT, seed=0, actor_tokens=80, critic_tokens=80)


def critique(text: str, response: str = RESPONSE):
    return read_critique(Solution(PROBLEM, response, "wrong", "28"), text)


def test_tallies_count_what_came_back_and_bare_answers_apart(context):
    actor = Script(RIGHT, BARE, RESPONSE, None, RIGHT)
    critiques = [critique("Correctness: Wrong"), critique("Final answer: Wrong")]
    tallies = tally_refinements(context, actor, critiques, 5, 0.7)
    assert list(tallies) == [Tally(answered=4, right=2, leaked=1)] * 2
    assert tallies.facts["failed"] == 2
    assert tallies.facts["samples"] == 10
    assert tally_refinements(context, actor, [], 5, 0.7).records == []


def test_alone_the_actor_may_answer_barely(context):
    assert list(tally_alone(context, Script(RIGHT, BARE, None), [PROBLEM], 3, 0.7)) == [Tally(2, 2)]


@pytest.mark.parametrize(("text", "leaks"), [
    ("Step 1: a\nExplanation: 12+15=27, not 28.\nCorrectness: Wrong", False),  # Worked out.
    ("Explanation: the addition is wrong.\nCorrectness: Wrong", False),
    ("Explanation: it should be 27.\nCorrectness: Wrong", True),
    ("Explanation: the answer is 27.0, not 28.", True),
    ("Explanation: 127 is too much, 2.7 too little.", False),
    ("Explanation: as the reference solution shows, it is more.", True),
    ("Explanation: the hint says that step 1 is wrong.", True),
    ("Explanation: according to the correct solution, the eggs are added.", True),
    ("Explanation: this does not match the correct answer.", True),
    ("Explanation: the correct solution uses a sum.", True),
    ("Explanation: unlike in the provided correct solution, it is too much.", True),
    ("Explanation: I was told that the first mistake is here.", True),
    ("Explanation: the solution most likely goes wrong first at step 1.", True),
    ("Explanation: so this cannot be the correct answer.", False),
    ("Explanation: it does not lead to the correct solution.", False),
    ("Explanation: a correct solution would add the eggs.", False),
    ("Explanation: the given solution adds, and we are told that he buys them.", False),
    ("Explanation: the first mistake is in step 1: the sum.", False),
])  # fmt: skip
def test_leaks(text, leaks):
    assert leaks_answer(critique(text)) == leaks


@pytest.mark.parametrize(("text", "leaks"), [
    ("Step 2: a\nExplanation: it follows from steps 1 and 2.\nCorrectness: Wrong", False),
    ("Step 1: a\nExplanation: step 2 is wrong.\nCorrectness: Wrong", False),
    ("Step 2: a\nExplanation: it should be 2.\nCorrectness: Wrong", True),
])  # fmt: skip
def test_the_number_of_a_step_is_no_answer(text, leaks):
    problem = Problem("id", "Tom has 12 eggs and sells 10.", "2", "<<12-10=2>>2", "gsm8k")
    wrong = Solution(problem, "12-10=3\nThe answer is 3.", "wrong", "3")
    assert leaks_answer(read_critique(wrong, text)) == leaks


def test_what_the_response_holds_is_no_leak():
    assert not leaks_answer(critique("Explanation: 27 is not copied.", "So 27.\nThe answer is 72."))


def test_right_responses_give_nothing_away():
    right = Solution(PROBLEM, RIGHT, "correct", "27")
    assert not leaks_answer(read_critique(right, "Explanation: 27."))


def test_leaked_expressions():
    problem = Problem("id", "Solve.", r"\frac{1}{2}", "", "math")
    wrong = Solution(problem, "x = 3", "wrong", "3")
    assert leaks_answer(read_critique(wrong, r"Explanation: it is $\frac{1} {2}$."))
    assert not leaks_answer(read_critique(wrong, "Explanation: halve it."))


@pytest.mark.parametrize(("gold", "said", "leaks"), [
    ("-11", "the answer should be -11.", True),
    ("-11", "9 less 20 is $-11$, not 11.", True),
    ("-11", "9-20 is not 11; 20-11=9 and 20 - 11 = 9.", False),
    ("-11", "<<9-20=-11>>-11, not 11.", False),
    ("-11", "-11.5 and x - 11 = 0 are other numbers.", False),
    ("$18", "it is 18 dollars.", True),
    ("(3,4)", "it is P(3, 4).", True),
    ("1/7", "it is 1/7 of them.", True),
    ("1/7", "it is 11/7.", False),
    ("35%", "so 35 % are left.", True),
    ("35%", "so 3.5% or 36% are left.", False),
])  # fmt: skip
def test_leaked_numbers_that_are_no_plain_ones(gold, said, leaks):
    wrong = Solution(Problem("id", "Solve.", gold, "", "math"), "x = 3", "wrong", "3")
    assert leaks_answer(read_critique(wrong, f"Explanation: {said}")) == leaks


@pytest.mark.parametrize(("refinement", "bare"), [
    (RIGHT, False), (BARE, True), ("", True), ("12+15=27", False),
])  # fmt: skip
def test_hardly_reasoned(refinement, bare):
    assert hardly_reasons(refinement, RESPONSE) == bare
