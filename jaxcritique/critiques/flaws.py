"""Flawed reasoning paths, built three ways (section 3.1)."""

import random
from collections.abc import Sequence

from jaxcritique.critiques.arithmetic import marks
from jaxcritique.critiques.errors import insert_error
from jaxcritique.prompts.critique import split_steps
from jaxcritique.prompts.players import Game, Start, respond
from jaxcritique.records import Problem, Solution, digest
from jaxcritique.rollout.sampler import Sampler

# Of the program's error types, those an actor can be made to go on from: a step left out it
# simply puts in.
_RG3_TYPES = ("calculation", "wrong value", "wrong operator")


def sample_from_scratch(
    game: Game, actor: Sampler, problems: Sequence[Problem], samples: int, temperature: float
) -> tuple[list[Solution], int]:
    """RG1: repeated sampling; nothing is known of the errors.

    Returns:
      All solutions, right and wrong, and the tokens they took.
    """
    starts = [Start(problem, source="RG1") for problem in problems]
    solutions = respond(game, "rg1", actor, starts, samples, temperature)
    return list(solutions), solutions.facts["generated_tokens"]


def branch_off(
    game: Game,
    actor: Sampler,
    correct: Sequence[Solution],
    temperature: float,
    increase: float,
    rounds: int,
) -> tuple[list[Solution], int]:
    """RG2: cut a correct path at a step and go on at a raised temperature.

    Where the continuation is still right, another step is chosen and the temperature raised
    further, `rounds` times in all.

    Args:
      game: what is played with.
      actor: who continues.
      correct: right solutions, one start each.
      temperature: of the first round.
      increase: what each further round adds to it.
      rounds: how many.

    Returns:
      The continuations, right and wrong, with the step at which they part, and their tokens.
    """
    found: list[Solution] = []
    tokens = 0
    open_paths = list(correct)
    for number in range(rounds):
        starts = []
        for path in open_paths:
            steps = split_steps(path.text)
            rng = random.Random(digest("rg2", game.seed, number, path.problem.id, path.text))
            cut = rng.randrange(len(steps)) if steps else 0  # 0: nothing of the path is kept.
            prefix = "".join(f"{step}\n" for step in steps[:cut])
            starts.append(Start(path.problem, prefix, source="RG2", error_step=cut))
        heat = temperature + number * increase
        continued = respond(game, f"rg2-{number + 1}", actor, starts, 1, heat)
        tokens += continued.facts["generated_tokens"]
        found += continued
        open_paths = [
            path for path, solution in zip(open_paths, continued, strict=True) if solution.correct
        ]
    return found, tokens


def insert_mistakes(
    game: Game, actor: Sampler, correct: Sequence[Solution], temperature: float, attempts: int
) -> tuple[list[Solution], int]:
    """RG3: put a chosen mistake at a chosen step, and let the actor reason on from there.

    `correct` has one path a problem. Where the answer comes out right all the same, or no mistake
    can be made, another is tried, up to `attempts`.

    Returns:
      The flawed and the accidentally right solutions, with step and mistake, and their tokens.
    """
    found: list[Solution] = []
    tokens = 0
    open_paths = list(correct)
    for number in range(attempts):
        spoilt = {path.problem.id: _spoil(game, path, number) for path in open_paths}
        starts = [start for start in spoilt.values() if start is not None]
        if not starts:
            break
        continued = respond(game, f"rg3-{number + 1}", actor, starts, 1, temperature)
        tokens += continued.facts["generated_tokens"]
        found += continued
        flawed = {solution.problem.id for solution in continued if not solution.correct}
        open_paths = [path for path in open_paths if path.problem.id not in flawed]
    return found, tokens


def _spoil(game: Game, path: Solution, attempt: int) -> Start | None:
    rng = random.Random(digest("rg3", game.seed, attempt, path.problem.id, path.text))
    steps = split_steps(path.text)
    with_marks = [i for i, step in enumerate(steps) if marks(step)]
    if not with_marks:
        return None
    at = rng.choice(with_marks)
    for error_type in rng.sample(_RG3_TYPES, len(_RG3_TYPES)):
        spoilt = insert_error(path.problem, steps, at, error_type, rng)
        if spoilt is not None:
            lines, error = spoilt
            prefix = "".join(f"{line}\n" for line in lines)
            return Start(path.problem, prefix, source="RG3", error_step=at, error=error)
    return None


def one_correct_each(solutions: Sequence[Solution]) -> list[Solution]:
    """Returns the first right solution of each problem that has one."""
    first: dict[str, Solution] = {}
    for solution in solutions:
        if solution.correct:
            first.setdefault(solution.problem.id, solution)
    return list(first.values())


def distinct(solutions: Sequence[Solution]) -> list[Solution]:
    """Drops solutions of a problem whose text another has; where they came from does not count."""
    first: dict[tuple[str, str], Solution] = {}
    for solution in solutions:
        first.setdefault((solution.problem.id, solution.text.strip()), solution)
    return list(first.values())
