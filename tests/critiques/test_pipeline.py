import collections
import dataclasses

import pytest

from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.critiques.duplicates import distinct
from jaxcritique.critiques.flaws import one_correct_each
from jaxcritique.critiques.pipeline import (
    CritiqueDataConfig,
    critique_dataset,
    refinement_data,
)
from jaxcritique.grading import Grader
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.records import Solution
from jaxcritique.roles import Context
from jaxcritique.rollout.engines import load_jax
from jaxcritique.rollout.jax_engine import JaxConfig
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.tasks import TINY_BASE
from jaxcritique.tasks.word_problems import generate

ANNOTATOR = ArithmeticAnnotator(one_plan=True)
CONFIG = CritiqueDataConfig(
    rg1_samples=2,
    temperature=1.5,
    rg2_temperature=1.5,
    rg2_increase=0.3,
    rg2_rounds=2,
    rg3_attempts=2,
    filter_refinements=3,
)


class Script:
    """An actor whose sample i of a problem is the i-th scripted text, and its refinements too."""

    def __init__(self, key: str, solutions: list[str], refinements: list[str]):
        self.key = key
        self._texts = {1: solutions, 3: refinements}  # By the number of messages.

    def generate(self, requests, progress):
        return [
            Completion(r.id, i, self._texts[len(r.messages)][i], "stop", 10, 5)
            for r in requests
            for i in range(r.n)
        ]


class Broken:
    """A sampler that must not be asked."""

    def __init__(self, key: str):
        self.key = key

    def generate(self, requests, progress):
        raise AssertionError("a finished stage is sampled again")


@pytest.fixture
def context(tmp_path):
    with Grader() as grader:
        yield Context(Store(tmp_path), grader, COMPACT, seed=0, actor_tokens=48, critic_tokens=80)


@pytest.mark.parametrize(("right", "kept"), [(0, 0), (3, 0), (4, 1), (10, 1)])
def test_critiques_are_kept_above_tau_strictly(right, kept, context):
    [problem] = generate("train", 1, 0, (0, 1, 0, 0, 0))
    flawed = problem.rationale.replace(f"={problem.answer}>>", "=7>>") + "\nThe answer is 7."
    actor = Script(
        "script",
        solutions=[flawed, problem.rationale],
        refinements=[problem.rationale] * right + [flawed] * (10 - right),
    )
    config = dataclasses.replace(CONFIG, rg2_rounds=0, rg3_attempts=0, filter_refinements=10)
    data = critique_dataset(context, actor, [problem], ANNOTATOR, config)
    both = [(flawed, False), (problem.rationale, True)]  # As many of right paths as of flawed ones.
    assert [(c.solution.text, c.says_correct) for c in data] == both * kept
    assert data.facts["counts"] == {
        "RG1: flawed paths": 1,
        "RG1: right paths": 1,
        "RG3: right in spite of its mistake": 0,
        "paths without text": 0,
        "duplicates": 0,
        "near duplicates": 0,
        "right paths put aside": 0,
        "discarded by the annotator": 0,
        "leaking critiques": 0,
        "critiques cut by maximum or mixture": 0,
        "critiques of flawed paths": 1,
        "critiques without a refinement": 0,
        "refinements with a bare answer": 0,
        "kept by the filter": kept,
        "critiques of right paths": kept,
    }
    assert generated(data) == 5 * (2 + 10)


def generated(data) -> int:
    return sum(cost["generated_tokens"] for cost in data.facts["costs"].values())


@pytest.mark.slow
def test_auto_math_critique_end_to_end(context):
    problems = generate("train", 6, 1, (1, 1, 0, 0, 0))
    actor = load_jax(ModelFolder.of(TINY_BASE), JaxConfig(slots=4))
    data = critique_dataset(context, actor, problems, ANNOTATOR, CONFIG)
    counts = collections.Counter(data.facts["counts"])
    flawed = [critique for critique in data if not critique.solution.correct]
    right = [critique for critique in data if critique.solution.correct]
    paths = sum(count for name, count in counts.items() if name.endswith(" paths") and ":" in name)
    assert 6 < paths <= 6 * (2 + 2 + 2)
    assert len({(c.solution.problem.id, c.solution.text) for c in data}) == len(data)
    assert counts["kept by the filter"] == len(flawed) <= counts["critiques of flawed paths"]
    assert counts["critiques of right paths"] == len(right) <= len(flawed)
    discarded = counts["discarded by the annotator"] + counts["right paths put aside"]
    assert len(flawed) + len(right) <= paths - discarded
    for critique in data:
        assert critique == ANNOTATOR.annotate(critique.solution)
        assert critique.says_correct == critique.solution.correct
    assert generated(data) > 0
    again = critique_dataset(context, Broken(actor.key), problems, ANNOTATOR, CONFIG)
    assert list(again) == list(data)
    # Without the last manifest all is put together again, but nothing is sampled.
    next(context.store.run_dir.glob("stages/candidates-*/manifest.json")).unlink()
    again = critique_dataset(context, Broken(actor.key), problems, ANNOTATOR, CONFIG)
    assert list(again) == list(data)


def test_d_refine_ends_in_the_reference(problems):
    problem = problems[0]
    flawed = Solution(problem, "So <<1+1=3>>3.\nThe answer is 3.", "wrong", "3")
    unclear = Solution(problem, "The answer is 3.", "wrong", "3")
    [refinement] = refinement_data([flawed, unclear], ANNOTATOR)
    assert refinement.critique == ANNOTATOR.annotate(flawed)
    assert (refinement.text, refinement.correct) == (problem.rationale, True)


def test_one_correct_solution_each_and_no_text_twice(problems):
    a, b = problems[:2]
    solutions = [
        Solution(a, "x", "wrong", None, source="RG1"),
        Solution(a, "y", "correct", "1", source="RG1"),
        Solution(a, "y\n", "correct", "1", source="RG2", error_step=1),
        Solution(b, "y", "correct", "1", source="RG2", error_step=1),
        Solution(a, "z", "correct", "1", source="RG3", error_step=1),
    ]
    assert one_correct_each(solutions) == [solutions[1], solutions[3]]
    assert distinct(solutions) == [solutions[0], solutions[1], solutions[3], solutions[4]]
