import dataclasses

import pytest

from jaxcritique.critiques.annotate import ModelAnnotator
from jaxcritique.critiques.build_critiques import BuildCritiquesConfig
from jaxcritique.critiques.estimate import estimate
from jaxcritique.critiques.pipeline import annotate_paths
from jaxcritique.grading import Grader
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.roles import Context
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.tasks.word_problems import generate

CONFIG = BuildCritiquesConfig(
    prompts="compact",
    actor_tokens=99,
    critic_tokens=99,
    annotator="useless",
    rg1_samples=2,
    rg2_rounds=0,
    rg3_attempts=0,
    filter_refinements=2,
)


class Characters:
    """A tokenizer whose tokens are characters."""

    def prompt(self, messages):
        return "".join(message["content"] for message in messages)

    def encode(self, text):
        return list(map(ord, text))


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
        context = Context(Store(tmp_path), grader, COMPACT, 0, actor_tokens=99, critic_tokens=99)
        made = annotate_paths(context, model, problems, annotator, CONFIG)
    asked = made.facts["costs"]["annotate"]["samples"]
    assert asked == 5 * 2 * attempts  # All paths are wrong, and no reply can be used.
    config = dataclasses.replace(CONFIG, annotation_attempts=attempts)
    costs = estimate(config, problems, Characters())
    [row] = [cost for cost in costs if cost.stage == "annotate"]
    assert asked <= row.most_requests == 2 * 5 * 2 * attempts
    assert row.requests == 2 * 5  # Half of the paths are wrong, and as many right ones go along.
    assert row.most_tokens > row.most_requests * 99
