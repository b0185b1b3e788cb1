"""What each arm samples, at what budget; models are scripted."""

import collections
import pathlib

import pytest

from jaxcritique.grading import Grader
from jaxcritique.improvement.algorithm import LoopConfig, LoopInputs, explore
from jaxcritique.improvement.arms import ARMS, Arm, register, samples_beyond, spread
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.records import Problem, Solution
from jaxcritique.roles import Context
from jaxcritique.rollout.engines import Engine, EngineConfig
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store

CONFIG = LoopConfig(iterations=1, samples=4, critiques=3, temperature=0.7)
PROBLEMS = [Problem(f"p{i}", f"{i}: 2+3?", "5", "", "gsm8k") for i in range(6)]
ACTOR, CRITIC = (ModelFolder(pathlib.Path(name), name) for name in ("actor", "critic"))


class Model:
    """Solves p0, p1 half of the time, and the others after a critique; a text costs `cost`."""

    def __init__(self, key: str, cost: int):
        self.key, self._cost = key, cost
        self.asked = collections.Counter()

    def generate(self, requests, progress):
        for request in requests:
            problem = int(request.messages[0]["content"].split(":")[0])
            self.asked[problem] += request.n
            for sample in range(request.n):
                if self.key == "critic":
                    text = "Final answer: Wrong"
                elif len(request.messages) > 1 or problem == 0 or (problem == 1 and sample % 2):
                    text = f"So it is.\nThe answer is 5.{' ' * sample}"
                else:
                    text = f"The answer is {sample + 6}."
                yield Completion(request.id, sample, text, "stop", 10, self._cost)

    def close(self):
        pass


@pytest.fixture
def explored(tmp_path):
    """Returns a function: an arm's name -> (its exploration, actor, critic), with L = 3."""
    with Grader() as grader:

        def run(name: str, budget: int = 0):
            models = {ACTOR: Model("actor", 7), CRITIC: Model("critic", 11)}
            engine = Engine(EngineConfig(), models.__getitem__)
            context = Context(Store(tmp_path), grader, COMPACT, 0, 80, 80, engine)
            inputs = LoopInputs(ACTOR, ACTOR, CRITIC, [], PROBLEMS, [])
            step = explore(context, 1, ARMS[name], ACTOR, inputs, CONFIG, budget)
            return step, *models.values()

        yield run


def times(records) -> dict[str, int]:
    """How many records there are of each problem."""
    return dict(collections.Counter(record.solution.problem.id for record in records))


def test_the_critic_sees_wrong_responses_l_times_each(explored):
    found, _, critic = explored("critique")
    assert len(found.responses) == 24
    wrong = {"p1": 2, "p2": 4, "p3": 4, "p4": 4, "p5": 4}
    assert times(found.critiques) == {problem: 3 * n for problem, n in wrong.items()}
    assert times(r.critique for r in found.refinements) == times(found.critiques)
    assert critic.asked[0] == 0
    assert found.tokens == 24 * 7 + 18 * 3 * (11 + 7)


def test_vanilla_asks_no_critic_and_shares_the_responses(explored):
    vanilla, _, critic = explored("vanilla")
    assert not critic.asked
    assert not vanilla.critiques
    assert not vanilla.refinements
    assert vanilla.tokens == 24 * 7
    found, actor, _ = explored("critique")
    assert found.responses == vanilla.responses
    assert actor.asked.total() == 18 * 3  # It only refined; its responses were there.


def test_without_difficulty_awareness_the_same_budget_goes_to_all_alike(explored):
    ours, *_ = explored("critique")
    found, *_ = explored("no_difficulty_awareness")
    assert len(found.critiques) == len(ours.critiques) == 54
    assert len(found.refinements) == len(ours.refinements) == 54
    assert found.tokens == ours.tokens
    seen = collections.Counter(id(critique.solution) for critique in found.critiques)
    assert set(seen.values()) == {2, 3}  # 54 over 24 responses.
    assert set(times(found.critiques)) == {problem.id for problem in PROBLEMS}


def test_more_refinements_have_one_critique_of_each_wrong_response(explored):
    ours, *_ = explored("critique")
    found, *_ = explored("more_refinements")
    assert len(found.critiques) == 18
    assert len(found.refinements) == len(ours.refinements) == 54
    assert times(r.critique for r in found.refinements) == times(ours.critiques)
    assert len({id(r.critique) for r in found.refinements}) == 18


def test_equal_tokens_are_spent_on_responses(explored):
    ours, *_ = explored("critique")
    found, _, critic = explored("vanilla_equal_tokens", ours.tokens)
    assert not critic.asked
    assert abs(found.tokens - ours.tokens) <= 7 / 2
    of_each = collections.Counter(response.problem.id for response in found.responses)
    assert max(of_each.values()) - min(of_each.values()) <= 1
    # Each problem's further responses are asked for with seeds of their own.
    vanilla, *_ = explored("vanilla")
    assert list(found.responses[:24]) == list(vanilla.responses)


def test_where_nothing_is_wrong_nothing_is_criticised(explored, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PROBLEMS", PROBLEMS[:1])
    for name in ("critique", "no_difficulty_awareness", "more_refinements"):
        found, *_ = explored(name)
        assert len(found.responses) == 4
        assert not found.critiques
        assert not found.refinements


def test_an_arm_comes_after_the_one_whose_tokens_it_matches(monkeypatch):
    monkeypatch.setattr("jaxcritique.improvement.arms.ARMS", dict(ARMS))
    style = ARMS["vanilla"].style
    with pytest.raises(ValueError, match=r"matches the tokens of 'later': no such arm"):
        register(Arm("mine", "Mine", "more responses", style, tokens_of="later"))
    with pytest.raises(ValueError, match=r"There is an arm named 'vanilla' already"):
        register(Arm("vanilla", "Mine", "nothing", style))


@pytest.mark.parametrize(
    ("many", "total"), [(4, 0), (4, 3), (4, 4), (4, 11), (1, 5), (0, 0)]
)  # fmt: skip
def test_what_is_spread_is_spread_evenly(many, total):
    items = list(range(many))
    drawn = spread(items, total, seed=3)
    assert len(drawn) == total
    counts = collections.Counter(drawn)
    assert {counts[item] for item in items} <= {total // max(many, 1), -(-total // max(many, 1))}
    assert drawn == spread(items, total, seed=3)


def test_who_comes_once_more_is_drawn():
    firsts = collections.Counter(spread("abcd", 1, seed)[0] for seed in range(400))
    assert set(firsts) == set("abcd")
    assert all(60 < count < 140 for count in firsts.values())


def test_nothing_to_spread_over_is_an_error():
    with pytest.raises(ValueError, match="3 cannot be spread over no items"):
        spread([], 3, seed=0)


def test_right_responses_are_shown_where_difficulty_does_not_count():
    right = [Solution(p, "The answer is 5.", "correct", "5") for p in PROBLEMS[:3]]
    wrong = [Solution(PROBLEMS[3], "The answer is 4.", "wrong", "4")]
    wanted = ARMS["no_difficulty_awareness"].feedback([*right, *wrong], 4, 0)
    assert wanted.responses == [*right, *wrong]


@pytest.mark.parametrize(
    ("samples", "tokens", "budget", "more"),
    [
        (10, 100, 250, 15),
        (10, 100, 254, 15),  # To the nearest whole sample.
        (10, 100, 256, 16),
        (10, 100, 100, 0),
        (10, 100, 60, 0),  # It has more already.
        (3, 100, 200, 3),
        (10, 0, 100, 0),  # All failed.
    ],
)
def test_how_many_samples_a_budget_pays_for(samples, tokens, budget, more):
    assert samples_beyond(samples, tokens, budget) == more
