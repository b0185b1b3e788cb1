import collections
import random

import pytest

from jaxcritique.critiques.flaws import (
    MistakePlacement,
    ModelInserter,
    ProgramInserter,
    branch_off,
    insert_mistakes,
    sample_from_scratch,
    third,
)
from jaxcritique.critiques.program_mistakes import PROGRAM_TYPES
from jaxcritique.grading import Grader
from jaxcritique.prompts.critique import split_steps
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.records import Problem, Solution
from jaxcritique.roles import Context
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.tasks.word_problems import generate

STEPS = ("<<1+1=2>>2", "<<2+2=4>>4", "<<4+3=7>>7", "<<7*2=14>>14")
PROBLEM = Problem("id", "1 and 1, 2, 3, twice?", "14", "\n".join(STEPS), "gsm8k")
PATH = Solution(PROBLEM, "\n".join([*STEPS, "The answer is 14."]), "correct", "14", "RG1")
WRONG, RIGHT = "The answer is 5.", "The answer is 14."


class Actor:
    """Continues with the scripted lines, one after the other, and keeps the requests."""

    key = "actor"

    def __init__(self, *replies: str):
        self.requests = []
        self._replies = replies

    def generate(self, requests, progress):
        completions = []
        for request in requests:
            for sample in range(request.n):
                reply = self._replies[min(len(self.requests), len(self._replies) - 1)]
                self.requests.append(request)
                completions.append(
                    Completion(request.id, sample, request.prefix + reply, "stop", 9, 5)
                )
        return completions


class AfterTheFirstStep(MistakePlacement):
    """Cuts every path there."""

    def steps(self, rng, candidates, count):
        return [1]


@pytest.fixture
def context(tmp_path):
    with Grader() as grader:
        yield Context(Store(tmp_path), grader, COMPACT, seed=0, actor_tokens=80, critic_tokens=80)


@pytest.mark.parametrize(("replies", "wanted", "drawn"), [
    ([WRONG], None, 7),
    ([WRONG, RIGHT], (1, 1), 2),
    ([WRONG, WRONG, RIGHT], (1, 1), 4),  # In rounds of two.
    ([WRONG], (1, 1), 7),  # The cap.
    ([WRONG], (0, 3), 3),
    (["", "", WRONG], (0, 1), 3),  # Nothing is no wrong answer.
])  # fmt: skip
def test_rg1_samples_until_wanted_numbers_or_the_cap(replies, wanted, drawn, context):
    actor = Actor(*replies)
    paths = sample_from_scratch(context, actor, [PROBLEM], 7, 0.7, wanted)
    assert len(paths.solutions) == len(actor.requests) == drawn
    assert {s.source for s in paths.solutions} == {"RG1"}
    assert {s.error_step for s in paths.solutions} == {None}
    assert len({r.seed for r in actor.requests}) == len(paths.stages)


def test_rg2_tries_other_steps_hotter_each_time(context):
    actor = Actor("<<2+2=4>>4\n" + RIGHT, "<<2+2=4>>4\n" + RIGHT, WRONG, WRONG)
    paths = branch_off(context, actor, [PATH], MistakePlacement(), 1.0, 0.25, 4)
    assert [r.temperature for r in actor.requests] == [1.0, 1.25, 1.5]  # Then it was flawed.
    prefixes = [r.prefix for r in actor.requests]
    assert sorted(prefix.count("\n") for prefix in prefixes) == [1, 2, 3]
    assert all(PATH.text.startswith(prefix) for prefix in prefixes)
    assert [s.correct for s in paths.solutions] == [True, True, False]
    assert [s.error_step is None for s in paths.solutions] == [True, True, False]
    assert len(paths.stages) == 3


@pytest.mark.parametrize(("continuation", "parting"), [
    (["<<2+2=5>>5", "<<5+3=8>>8"], 1),
    (["<<2+2=4>>4", "<<4+3=8>>8"], 2),  # It parts later than it was cut,
    (["<<2+2=4>>4", "<<4+3=7>>7", "<<7*2=15>>15"], 3),
    (["<<2+2=4>>4"], 1),  # or only ends earlier: the last of its steps is named.
])  # fmt: skip
def test_rg2_records_where_the_paths_really_part(continuation, parting, context):
    actor = Actor("\n".join([*continuation, WRONG]))
    paths = branch_off(context, actor, [PATH], AfterTheFirstStep(), 1.0, 0.2, 1)
    assert [solution.error_step for solution in paths.solutions] == [parting]


def test_positions_are_drawn_by_thirds():
    placement = MistakePlacement(positions=(0, 1, 0))
    drawn = {placement.steps(random.Random(seed), range(1, 4), 4)[0] for seed in range(20)}
    assert drawn == {1, 2}
    # The first step is always kept, so there is no cut in the first third of four steps.
    assert MistakePlacement(positions=(1, 0, 0)).steps(random.Random(0), range(1, 4), 4) == []


def test_a_path_of_one_step_cannot_branch_off(context):
    short = Solution(PROBLEM, f"{STEPS[0]}\n{RIGHT}", "correct", "14")
    paths = branch_off(context, Actor(WRONG), [short], MistakePlacement(), 1.0, 0.2, 3)
    assert paths.solutions == []


def test_rg3_keeps_to_its_kind_and_stops_when_it_errs(context):
    actor = Actor(RIGHT, RIGHT, WRONG)
    paths = insert_mistakes(context, actor, [PATH], ProgramInserter(), MistakePlacement(), 0.7, 16)
    assert [s.correct for s in paths.solutions] == [True, True, False]
    assert len({s.error_type for s in paths.solutions}) == 1
    for solution in paths.solutions:
        steps = split_steps(solution.text)
        assert steps[: solution.error_step] == list(STEPS[: solution.error_step])
        assert steps[solution.error_step] != STEPS[solution.error_step]
        assert solution.error


def test_rg3_gives_up_after_its_attempts(context):
    actor = Actor(RIGHT)
    insert_mistakes(context, actor, [PATH], ProgramInserter(), MistakePlacement(), 0.7, 16)
    assert len(actor.requests) == 16


def test_a_path_without_a_step_where_mistakes_go_is_left_as_it_is(context):
    problem = Problem("short", "1 and 1?", "2", STEPS[0], "gsm8k")
    short = Solution(problem, f"{STEPS[0]}\nThe answer is 2.", "correct", "2")
    model = Actor("Flawed step: <<1+1=3>>3\nMistake: one too many")
    inserter, first = ModelInserter(model, 1.0), MistakePlacement(positions=(1, 0, 0))
    found = insert_mistakes(context, Actor(WRONG), [short, PATH], inserter, first, 0.7, 2)
    assert [(s.problem.id, s.error_step) for s in found.solutions] == [(PROBLEM.id, 0)]
    assert len(model.requests) == 1


def test_a_model_that_put_in_no_mistake_is_asked_anew(context):
    model = Actor("I would rather not.")
    inserter, first = ModelInserter(model, 1.0), MistakePlacement(positions=(1, 0, 0))
    found = insert_mistakes(context, Actor(WRONG), [PATH], inserter, first, 0.7, 4)
    assert not found.solutions
    # The same step each time, and yet not the same request, which would get the same reply.
    assert len({request.id for request in model.requests}) == len(model.requests) == 4


def test_the_configured_distribution_is_obtained(context):
    """Kinds and positions of some hundred program mistakes follow their weights."""
    weights = (("calculation", 3.0), ("operator", 1.0), ("missing_step", 0.0))
    placement = MistakePlacement(positions=(0.0, 1.0, 3.0), error_types=weights)
    paths = [
        Solution(p, p.rationale, "correct", p.answer)
        for p in generate("train", 400, 5, (0, 0, 0, 0, 1))
    ]
    found = insert_mistakes(context, Actor(WRONG), paths, ProgramInserter(), placement, 0.7, 1)
    kinds = collections.Counter(s.error_type for s in found.solutions)
    places = collections.Counter(third(s.error_step, 5) for s in found.solutions)
    assert set(kinds) == {"calculation", "operator"}
    assert 0.68 < kinds["calculation"] / kinds.total() < 0.82
    assert 0.68 < places[2] / places.total() < 0.82
    assert places[0] == 0


@pytest.mark.parametrize(("count", "thirds"), [
    (1, [1]), (2, [0, 2]), (3, [0, 1, 2]), (4, [0, 1, 1, 2]), (6, [0, 0, 1, 1, 2, 2]),
])  # fmt: skip
def test_thirds(count, thirds):
    assert [third(step, count) for step in range(count)] == thirds


def test_every_program_kind_can_be_wished_for_alone(context):
    paths = [
        Solution(p, p.rationale, "correct", p.answer)
        for p in generate("train", 30, 5, (0, 0, 0, 0, 1))
    ]
    for kind in PROGRAM_TYPES:
        placement = MistakePlacement(error_types=((kind, 1.0),))
        found = insert_mistakes(context, Actor(WRONG), paths, ProgramInserter(), placement, 0.7, 1)
        assert {s.error_type for s in found.solutions} == {kind}
        assert len(found.solutions) > 15
