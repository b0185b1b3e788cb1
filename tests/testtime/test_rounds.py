"""Rounds with scripted players: what they are shown, who ends a chain, and what it costs."""

import pytest

from jaxcritique.grading import Grader
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.records import Critique, Problem, Refinement, Solution
from jaxcritique.roles import COSTS, Context, criticise
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.testtime.critics import no_critic
from jaxcritique.testtime.rounds import PROTOCOLS, Chain, run_rounds

PROBLEM = Problem("p-3", "2+3?", "5", "", "gsm8k")
RIGHT, WRONG = "The answer is 5.", "The answer is {}."
GOOD, BAD = "Final answer: Correct", "Correctness: Wrong\nFinal answer: Wrong"


class Scripted:
    """Says its replies in their order and remembers what it was shown."""

    def __init__(self, key: str, replies: list[str]):
        self.key = key
        self.shown: list[list[str]] = []
        self._replies = replies

    def generate(self, requests, progress):
        for request in requests:
            self.shown.append([message["content"] for message in request.messages])
            reply = self._replies[len(self.shown) - 1]
            yield Completion(request.id, 0, reply, "stop", 10, 7 if self.key == "critic" else 5)


@pytest.fixture
def context(tmp_path):
    with Grader() as grader:
        yield Context(Store(tmp_path), grader, COMPACT, seed=0, actor_tokens=80, critic_tokens=80)


def run_stage(context, protocols, critiques, refinements, rounds=3, response="The answer is 1."):
    critic, actor = Scripted("critic", critiques), Scripted("actor", refinements)
    verdict = "correct" if response == RIGHT else "wrong"
    start = Solution(PROBLEM, response, verdict, response[-2], tokens=3)
    [chain], costs = run_rounds(
        context,
        "test",
        actor,
        lambda context, name, solutions, temperature: criticise(
            context, name, critic, solutions, 1, temperature
        ),
        [start],
        [PROTOCOLS[name] for name in protocols],
        rounds,
        0.7,
    )
    return chain, costs, critic, actor


def test_a_round_sees_the_question_and_the_latest_answer_only(context):
    answers = [WRONG.format(n) for n in (2, 3, 4)]
    chain, costs, critic, actor = run_stage(context, ["refine_all"], [BAD, GOOD, BAD], answers)
    assert [answer.text for answer in chain.answers] == ["The answer is 1.", *answers]
    assert chain.tokens == 3 + 3 * (7 + 5)
    assert chain.cut(PROTOCOLS["refine_all"], 1).tokens == 3 + 7 + 5
    for number, (to_critic, to_actor) in enumerate(zip(critic.shown, actor.shown, strict=True), 1):
        for shown in ("\n".join(to_critic), "\n".join(to_actor)):
            assert "2+3?" in shown
            seen = [n for n in range(1, 5) if WRONG.format(n) in shown]
            assert seen == [number]
    assert costs["test-refine-2"]["generated_tokens"] == 5
    assert list(costs) == [
        f"test-{stage}-{number}" for number in (1, 2, 3) for stage in ("criticise", "refine")
    ]


def test_one_sampling_serves_every_protocol(context):
    chain, *_ = run_stage(
        context, list(PROTOCOLS), [BAD, GOOD, BAD], [WRONG.format(2), RIGHT, "None."]
    )
    cut = {name: chain.cut(protocol, 3) for name, protocol in PROTOCOLS.items()}
    assert [len(c.refinements) for c in cut.values()] == [3, 1, 2]
    assert [len(c.critiques) for c in cut.values()] == [3, 2, 2]
    assert [c.answers[-1].correct for c in cut.values()] == [False, False, True]
    # Who accepts an answer has paid for the critique that says so; an oracle is free.
    assert [c.tokens for c in cut.values()] == [3 + 3 * 12, 3 + 12 + 7, 3 + 2 * 12]


@pytest.mark.parametrize(
    ("protocols", "critiques", "asked", "refined"),
    [
        (["refine_flagged"], [GOOD], 1, 0),
        (["refine_flagged"], ["Hm.", GOOD], 2, 1),  # Without a verdict it is flagged.
        (["oracle"], [GOOD, GOOD], 2, 2),  # The second refinement is right.
        # The first ends at once, and the second goes on alone.
        (["refine_flagged", "oracle"], [GOOD, GOOD], 2, 2),
    ],
)
def test_no_more_is_sampled_than_the_protocols_need(context, protocols, critiques, asked, refined):
    answers = [WRONG.format(2), RIGHT]
    chain, costs, critic, actor = run_stage(context, protocols, critiques, answers)
    assert (len(critic.shown), len(actor.shown)) == (asked, refined)
    assert (len(chain.critiques), len(chain.refinements)) == (asked, refined)
    for name in protocols:
        chain.cut(PROTOCOLS[name], 3)
    assert sum(cost["samples"] for cost in costs.values()) == asked + refined


def test_a_right_response_costs_an_oracle_nothing(context):
    chain, _, critic, _ = run_stage(context, ["oracle"], [], [], response=RIGHT)
    assert chain == Chain(chain.response)
    assert not critic.shown


def test_a_second_start_samples_nothing(context):
    first, *_ = run_stage(context, ["refine_all"], [BAD] * 3, [WRONG.format(2)] * 3)
    again, _, critic, actor = run_stage(context, ["refine_all"], [], [])
    assert again == first
    assert critic.shown == actor.shown == []


def test_an_actor_who_corrects_itself_sees_no_critique_and_pays_for_none(context):
    actor = Scripted("actor", [WRONG.format(2), RIGHT])
    start = Solution(PROBLEM, "The answer is 1.", "wrong", "1", tokens=3)
    protocols = PROTOCOLS.values()
    [chain], costs = run_rounds(context, "test", actor, no_critic, [start], protocols, 2, 0.7)
    assert [answer.text for answer in chain.answers] == [start.text, WRONG.format(2), RIGHT]
    assert chain.tokens == 3 + 5 + 5
    assert costs["test-criticise-1"] == dict.fromkeys(COSTS, 0)
    for shown, before in zip(actor.shown, (start.text, WRONG.format(2)), strict=True):
        assert shown == [PROBLEM.question, before, COMPACT.self_correct]
    # Without a verdict every answer is flagged.
    assert len(chain.cut(PROTOCOLS["refine_flagged"], 2).refinements) == 2


def test_what_is_missing_is_named(context):
    response = Solution(PROBLEM, "The answer is 1.", "wrong", "1")
    critique = Critique(response, BAD, False, None)
    refinement = Refinement(critique, RIGHT, "correct", "5")
    every, oracle = PROTOCOLS["refine_all"], PROTOCOLS["oracle"]
    chain = Chain(response, (critique,), (refinement,))
    assert chain.cut(oracle, 5) == chain
    with pytest.raises(ValueError, match="problem p-3 has no critique in round 2"):
        chain.cut(every, 2)
    with pytest.raises(ValueError, match="problem p-3 has no refinement in round 1"):
        Chain(response, (critique,)).cut(every, 1)
