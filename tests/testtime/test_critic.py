import pytest

from jaxcritique.grading import Grader
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.records import Problem, Solution
from jaxcritique.roles import Context
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.testtime.critic_metrics import CriticReport, score_critic

RIGHT, WRONG = "The answer is 5.", "The answer is 6."
GOOD, BAD = "Final answer: Correct", "Correctness: Wrong\nFinal answer: Wrong"


class Script:
    """A player whose reply is looked up by the problem's number, which opens the prompt."""

    def __init__(self, key: str, replies: list[str]):
        self.key = key
        self._replies = replies

    def generate(self, requests, progress):
        numbers = [int(r.messages[0]["content"].split(":")[0]) for r in requests]
        return [
            Completion(r.id, 0, self._replies[number], "stop", 10, 5)
            for r, number in zip(requests, numbers, strict=True)
        ]


@pytest.fixture
def context(tmp_path):
    with Grader() as grader:
        yield Context(Store(tmp_path), grader, COMPACT, seed=0, actor_tokens=80, critic_tokens=80)


def evaluate(context: Context, *cases: tuple[str, str, str]):
    """Evaluates on (response, critique, refinement) cases."""
    solutions = [
        Solution(
            Problem(str(i), f"{i}: 2+3?", "5", "", "gsm8k"),
            response,
            "correct" if response == RIGHT else "wrong",
            None,
        )
        for i, (response, _, _) in enumerate(cases)
    ]
    critic = Script("critic", [critique for _, critique, _ in cases])
    actor = Script("actor", [refinement for _, _, refinement in cases])
    return score_critic(context, "test", actor, critic, solutions)


def test_counts_and_rates(context):
    cases = [
        (RIGHT, GOOD, RIGHT),
        (RIGHT, BAD, WRONG),
        (WRONG, BAD, RIGHT),
        (WRONG, GOOD, RIGHT),  # Not flagged: right only where all are refined.
        (WRONG, "I cannot tell.", WRONG),
    ]
    report, refinements, costs = evaluate(context, *cases)
    assert {name: cost["samples"] for name, cost in costs.items()} == {
        "test-criticise": len(cases),
        "test-refine": len(cases),
    }
    assert report == CriticReport(
        n=5,
        accuracy_without=2 / 5,
        accuracy_refine_all=3 / 5,
        accuracy_refine_flagged=2 / 5,
        accuracy_oracle=4 / 5,
        discriminability=2 / 5,
        discriminability_right=1 / 2,
        discriminability_wrong=1 / 3,
        helpfulness=2 / 3,
        helpfulness_flagged=1 / 2,
        unparsable=1,
        c2c=1,
        c2i=1,
        i2c=2,
        i2i=1,
    )
    assert [(r.critique.solution.text, r.critique.text, r.text) for r in refinements] == cases


def test_what_the_critic_cannot_judge_is_refined(context):
    report, *_ = evaluate(context, (WRONG, "Hm.", RIGHT), (RIGHT, "", RIGHT), (RIGHT, "Hm.", "No."))
    assert report.accuracy_refine_flagged == 2 / 3
    assert report.discriminability == 0
    assert report.unparsable == 3


def test_without_a_wrong_response_there_is_no_helpfulness(context):
    report, *_ = evaluate(context, (RIGHT, GOOD, RIGHT))
    assert report.helpfulness is None
    assert report.discriminability == 1


def test_no_solutions_are_refused(context):
    with pytest.raises(ValueError, match="no solutions"):
        evaluate(context)
