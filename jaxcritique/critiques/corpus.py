"""Text for training the tiny base: stories solved, criticised and refined, all by program.

This stands in for what a large model's pretraining holds. Between the stories stand plain
calculations, so that the base is sure of each single step; long stories are left to the paper's
method, so that it has something to bring.
"""

import random
from collections.abc import Iterator, Sequence

from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.critiques.arithmetic import marks
from jaxcritique.critiques.errors import flawed_solution
from jaxcritique.prompts.templates import (
    PromptSet,
    critique_messages,
    refine_messages,
    solve_messages,
)
from jaxcritique.records import Critique, Messages, Problem, Solution
from jaxcritique.tasks.word_problems import generate

_TASKS = ("calculate", "solve", "critique", "refine")
_TASK_WEIGHTS = (0.20, 0.36, 0.28, 0.16)
_CHUNK = 1_000  # Stories are generated so many at a time, each time from another seed.
_CALCULATIONS = 10  # In a document of nothing else.


def documents(
    prompts: PromptSet, seed: int, level_weights: Sequence[float]
) -> Iterator[tuple[Messages, str]]:
    """Yields (messages, reply) without end, the same for the same seed."""
    rng = random.Random(f"corpus/{seed}")
    annotator = ArithmeticAnnotator(one_plan=True)
    chunk = 0
    while True:
        stories = generate("train", _CHUNK, seed * 1_000_003 + chunk, level_weights)
        sums = [f"<<{m.expression}={m.stated}>>" for s in stories for m in marks(s.rationale)]
        for problem in stories:
            task = rng.choices(_TASKS, _TASK_WEIGHTS)[0]
            if task == "calculate":
                request = [{"role": "user", "content": "Calculate."}]
                yield request, "\n".join(rng.sample(sums, _CALCULATIONS))
            elif document := _document(prompts, problem, task, annotator, rng):
                yield document
        chunk += 1


def _document(
    prompts: PromptSet,
    problem: Problem,
    task: str,
    annotator: ArithmeticAnnotator,
    rng: random.Random,
) -> tuple[Messages, str] | None:
    if task == "solve":
        return solve_messages(prompts, problem), problem.rationale
    solution: Solution | None = Solution(problem, problem.rationale, "correct", problem.answer)
    # Right and wrong in equal parts for the critic; nearly all that is refined is wrong.
    if rng.random() < (0.5 if task == "critique" else 0.85):
        solution = flawed_solution(problem, rng)
    critique: Critique | None = annotator.annotate(solution) if solution else None
    if solution is None or critique is None:
        return None
    if task == "critique":
        return critique_messages(prompts, solution), critique.text
    return refine_messages(prompts, critique), problem.rationale
