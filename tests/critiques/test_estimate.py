import pytest

from jaxcritique.critiques.annotate import ModelAnnotator
from jaxcritique.critiques.build import CritiqueDataConfig, annotate_paths
from jaxcritique.critiques.estimate import Limits, estimate
from jaxcritique.critiques.flaws import ProgramInserter
from jaxcritique.grading import Grader
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.roles import Context
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.tasks.word_problems import generate

CONFIG = CritiqueDataConfig(
    samples=2,
    temperature=0.7,
    rg2_temperature=1.0,
    rg2_increase=0.2,
    rg2_rounds=0,
    rg3_attempts=0,
    refinements=2,
)


class Useless:
    """Solves everything wrongly, and writes no critique that can be read."""

    key = "useless"

    def generate(self, requests, progress):
        return [
            Completion(r.id, i, f"Once {i}.\nThe answer is -{i + 1}.", "stop", 9, 4)
            for r in requests
            for i in range(r.n)
        ]


@pytest.mark.parametrize("attempts", [1, 3])
def test_no_annotator_is_asked_more_than_the_most(attempts, tmp_path):
    problems = generate("train", 5, 0)
    model = Useless()
    annotator = ModelAnnotator(model, "useless", "step_by_step", 99, 0.7, attempts)
    with Grader() as grader:
        context = Context(
            Store(tmp_path), grader, COMPACT, seed=0, actor_tokens=99, critic_tokens=99
        )
        made = annotate_paths(context, model, problems, annotator, CONFIG, ProgramInserter())
    asked = made.facts["costs"]["annotate"]["samples"]
    assert asked == 5 * 2 * attempts  # All paths are wrong, and no reply can be used.
    costs = estimate(
        problems,
        COMPACT,
        CONFIG,
        Limits(actor=99, annotator=99, mistake=99),
        count=lambda messages: sum(len(message["content"]) for message in messages),
        count_text=len,
        mode="step_by_step",
        instructed=False,
        attempts=attempts,
    )
    [row] = [cost for cost in costs if cost.stage == "annotate"]
    assert asked <= row.most_requests == 2 * 5 * 2 * attempts
    assert row.requests == 2 * 5  # Half of the paths are wrong, and as many right ones go along.
    assert row.most_tokens > row.most_requests * 99
