"""Text for training the tiny base: stories solved, criticised and refined, all by program.

This stands in for what a large model's pretraining holds. Checking and mending come before
solving, as they do there: stories of every length are criticised and refined, but few long ones
are solved from nothing. So the base leaves room for the paper's method, and a critic fine-tuned
from it has something to bring: it works sums out in parts, which are learnt long before the whole
sums that a solution writes down at once. Sums in parts stand in between.
"""

import random
from collections.abc import Iterator, Sequence

from jaxcritique.critiques.annotate import ArithmeticAnnotator, worked_out
from jaxcritique.critiques.arithmetic import marks
from jaxcritique.critiques.program_mistakes import flawed_solution
from jaxcritique.prompts.templates import PromptSet
from jaxcritique.records import Critique, Messages, Problem, Solution
from jaxcritique.tasks.word_problems import generate

_TASKS = ("calculate", "solve", "critique", "refine")
_TASK_WEIGHTS = (0.10, 0.28, 0.38, 0.24)
_CHUNK = 1_000  # Stories are generated so many at a time, each time from another seed.
_CALCULATIONS = 10  # In a document of nothing else.


def documents(
    prompts: PromptSet, seed: int, level_weights: Sequence[float]
) -> Iterator[tuple[Messages, str]]:
    """Yields (messages, reply) without end, the same for the same seed.

    Args:
      prompts: the wording.
      seed: other seeds give other documents.
      level_weights: how often stories of levels 1 to 5 are solved, relative to one another; all
        levels are criticised and refined alike.
    """
    rng = random.Random(f"corpus/{seed}")
    annotator = ArithmeticAnnotator(one_plan=True)
    chunk = 0
    while True:
        story_seed = seed * 1_000_003 + chunk
        stories = generate("train", _CHUNK, story_seed)
        to_solve = generate("train", _CHUNK, story_seed, level_weights)
        sums = [worked_out(mark) for story in stories for mark in marks(story.rationale)]
        for problem, solved in zip(stories, to_solve, strict=True):
            task = rng.choices(_TASKS, _TASK_WEIGHTS)[0]
            if task == "calculate":
                request = [{"role": "user", "content": "Calculate."}]
                yield request, "\n".join(rng.sample(sums, _CALCULATIONS))
            elif task == "solve":
                yield prompts.to_solve(solved), solved.rationale
            elif document := _checked(prompts, problem, task, annotator, rng):
                yield document
        chunk += 1


def _checked(
    prompts: PromptSet,
    problem: Problem,
    task: str,
    annotator: ArithmeticAnnotator,
    rng: random.Random,
) -> tuple[Messages, str] | None:
    solution: Solution | None = Solution(problem, problem.rationale, "correct", problem.answer)
    # A critique of a wrong solution holds one wrong step and all the right ones before it; nearly
    # all that is refined is wrong.
    if rng.random() < (0.7 if task == "critique" else 0.85):
        solution = flawed_solution(problem, rng)
    critique: Critique | None = annotator.annotate(solution) if solution else None
    if solution is None or critique is None:
        return None
    if task == "critique":
        return prompts.to_critique(solution), critique.text
    return prompts.to_refine(critique), problem.rationale
