"""A model that answers every prompt of AutoMathCritique, and fails on some; no engine is needed.

Run as a program it builds a dataset into the folder that it is given, slowly enough to be killed:

    python tests/critiques/scripted.py FOLDER
"""

import json
import pathlib
import random
import re
import sys
import time
import zlib

from jaxcritique.critiques.annotate import ModelAnnotator
from jaxcritique.critiques.pipeline import (
    CritiqueDataConfig,
    annotate_paths,
    build_candidates,
    keep,
)
from jaxcritique.critiques.program_mistakes import PROGRAM_TYPES
from jaxcritique.grading import Grader
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.records import to_json
from jaxcritique.roles import Context
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.tasks.word_problems import generate

CONFIG = CritiqueDataConfig(
    rg1_samples=4,
    rg1_right=1,
    rg1_wrong=1,
    temperature=0.7,
    rg2_temperature=1.0,
    rg2_increase=0.2,
    rg2_rounds=2,
    rg3_attempts=3,
    filter_refinements=4,
    alone_samples=2,
    mistakes="model",
    error_types=tuple(f"{kind}=1" for kind in PROGRAM_TYPES),
)


class ScriptedModel:
    """Solves stories, half of the time wrongly; annotates; fails on `failing` of all samples.

    What it says is a function of request and sample alone, as an engine's text is.
    """

    key = "scripted"

    def __init__(self, failing: float = 0.0, pause: float = 0.0, count: int = 40):
        self.asked = 0
        self._failing, self._pause = failing, pause
        self._rationales = {p.question: p.rationale for p in problems(count)}

    def generate(self, requests, progress):
        completions = []
        for request in requests:
            time.sleep(self._pause)
            for sample in range(request.n):
                self.asked += 1
                rng = random.Random(zlib.crc32(f"{request.id}/{sample}".encode()))
                if rng.random() < self._failing:
                    error = "the server said 500"
                    completions.append(Completion(request.id, sample, "", "error", 9, 0, error))
                else:
                    text = request.prefix + self._reply(request, rng)
                    completions.append(Completion(request.id, sample, text, "stop", 9, 4))
                progress(4, 1)
        return completions

    def _reply(self, request, rng: random.Random) -> str:
        prompt = request.messages[-1]["content"]
        if "Kind of mistake" in prompt:
            steps = re.findall(r"^Step \d+: (.*)$", prompt.rpartition("Correct solution:")[2], re.M)
            at = int(re.findall(r"into: step (\d+)$", prompt, re.M)[-1]) - 1
            return f"Flawed step: {steps[at]} Or 7 more.\nMistake: seven too many"
        if "Check the solution step by step" in prompt:
            return self._labels(prompt, rng)
        rationale = self._rationales[request.messages[0]["content"]]
        rest = rationale.split("\n")[request.prefix.count("\n") :]
        if rng.random() < 0.5:
            rest = [
                *rest[:-2],
                f"That makes {rng.randrange(900)}.",
                f"The answer is {rng.random()}.",
            ]
        return "\n".join(rest)

    def _labels(self, prompt: str, rng: random.Random) -> str:
        if rng.random() < 0.1:
            return "I would rather not say."
        steps = re.findall(r"^Step (\d+): (.*)$", prompt, re.M)
        wrong = "for you alone" in prompt
        lines = []
        for number, _ in steps[:-1] if wrong else steps:
            lines.append(f"**Step {number}:** ...\n**Correctness:** Correct")
        if wrong:
            lines.append(f"Step {steps[-1][0]}:\nExplanation: no.\nCorrectness: Wrong")
        return "\n".join([*lines, f"Final answer: {'Wrong' if wrong else 'Correct'}"])


def problems(count: int):
    return generate("train", count, 0, (0, 1, 1, 1, 0))


def build(folder: pathlib.Path, model: ScriptedModel, count: int = 40):
    """Builds with the model in every part; returns annotations, candidates and the kept ones."""
    with Grader() as grader:
        context = Context(Store(folder), grader, COMPACT, seed=0, actor_tokens=99, critic_tokens=99)
        annotator = ModelAnnotator(model, "scripted", "step_by_step", 99, 0.7, attempts=4)
        annotations = annotate_paths(context, model, problems(count), annotator, CONFIG)
        candidates = build_candidates(context, model, annotations, annotator.name, CONFIG)
    return annotations, candidates, keep(candidates, CONFIG.rule, 0)[0]


if __name__ == "__main__":
    run_dir = pathlib.Path(sys.argv[1])
    annotated, found, _ = build(run_dir, ScriptedModel(failing=0.3, pause=0.01))
    rows = {"annotations": list(map(to_json, annotated)), "candidates": list(map(to_json, found))}
    (run_dir / "done.json").write_text(json.dumps({**rows, "facts": found.facts}))
