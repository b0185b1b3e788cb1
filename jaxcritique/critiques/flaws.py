"""Flawed reasoning paths, built three ways (section 3.1)."""

import collections
import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from jaxcritique.critiques.program_mistakes import PROGRAM_TYPES, insert_error
from jaxcritique.prompts.critique import split_steps
from jaxcritique.prompts.mistakes import ERROR_TYPES, mistake_messages, read_mistake
from jaxcritique.records import Problem, Solution, digest
from jaxcritique.roles import Context, Prompt, Start, respond, run_stage
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import Dataset

T = TypeVar("T")
THIRDS = ("first", "middle", "last")  # Of a solution's steps: how positions are configured.
MISTAKE_TOKENS = 200  # Most tokens of a model's mistake: a step and a sentence.


@dataclasses.dataclass(frozen=True)
class MistakePlacement:
    """Where mistakes go and of what kinds they are: relative weights.

    Attributes:
      positions: of the first, middle and last third of the steps (RG2's cut, RG3's mistake).
      error_types: of RG3's kinds of mistakes.
    """

    positions: tuple[float, ...] = (1.0, 1.0, 1.0)
    error_types: tuple[tuple[str, float], ...] = tuple((kind, 1.0) for kind in PROGRAM_TYPES)

    def steps(self, rng: random.Random, candidates: Sequence[int], count: int) -> list[int]:
        """Orders steps of a solution of `count` by a weighted draw; what weighs nothing is out."""
        in_third = collections.Counter(third(step, count) for step in candidates)
        weights = [
            self.positions[third(step, count)] / in_third[third(step, count)] for step in candidates
        ]
        return _drawn(rng, candidates, weights)

    def kinds(self, rng: random.Random) -> list[str]:
        """Orders the kinds of mistakes by a weighted draw."""
        names, weights = zip(*self.error_types, strict=True)
        return _drawn(rng, names, weights)


@dataclasses.dataclass(frozen=True)
class Wish:
    """A right path to be spoilt, and the (kind, step) pairs to be tried, the best first.

    There is at least one.
    """

    path: Solution
    choices: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Paths:
    """Solutions, and the stages they cost."""

    solutions: list[Solution]
    stages: list[Dataset[Any]]


class Inserter(Protocol):
    """Whoever puts a mistake into a right path (RG3)."""

    @property
    def key(self) -> str:
        """Names it, for the stages that depend on it."""
        ...

    def insert(
        self, context: Context, name: str, wishes: Sequence[Wish]
    ) -> tuple[list[Start | None], list[Dataset[Any]]]:
        """Returns where to go on from, None where no mistake came of it, and the stages asked."""
        ...


class ProgramInserter:
    """Changes the calculation in a step; for steps with GSM8K's marks."""

    key = "program"

    def insert(
        self, context: Context, name: str, wishes: Sequence[Wish]
    ) -> tuple[list[Start | None], list[Dataset[Any]]]:
        """See `Inserter`; takes the first choice that can be made."""
        return [self._start(context, name, wish) for wish in wishes], []

    def _start(self, context: Context, name: str, wish: Wish) -> Start | None:
        path = wish.path
        rng = random.Random(digest(name, context.seed, path.problem.id, path.text))
        steps = split_steps(path.text)
        for kind, at in wish.choices:
            made = insert_error(path.problem, steps, at, kind, rng)
            if made is not None:
                lines, error = made
                return _start_after(path, lines, at, error, kind)
        return None


@dataclasses.dataclass(frozen=True)
class ModelInserter:
    """Instructs a model to write the step with a mistake of the wished kind.

    Attributes:
      model: any engine.
      temperature: of the model.
    """

    model: Sampler
    temperature: float

    @property
    def key(self) -> str:
        """Names the weights."""
        return self.model.key

    def insert(
        self, context: Context, name: str, wishes: Sequence[Wish]
    ) -> tuple[list[Start | None], list[Dataset[Any]]]:
        """See `Inserter`; asks for the first choice."""
        turns = []
        for wish in wishes:
            kind, at = wish.choices[0]
            turns.append(Prompt(wish, mistake_messages(wish.path, at, kind)))
        replies = run_stage(
            context,
            f"{name}-mistake",
            _Reply,
            self.model,
            turns,
            lambda _, replies: [_Reply(completion.text) for completion, _ in replies],
            1,
            self.temperature,
            MISTAKE_TOKENS,
        )
        starts = [_read(wish, r.text) for wish, r in zip(wishes, replies, strict=True)]
        return starts, [replies]


@dataclasses.dataclass(frozen=True)
class _Reply:
    """A model's reply as it stands."""

    text: str


def _read(wish: Wish, text: str) -> Start | None:
    kind, at = wish.choices[0]
    made = read_mistake(wish.path, at, text)
    if made is None:
        return None
    lines = [*split_steps(wish.path.text)[:at], made.step]
    return _start_after(wish.path, lines, at, made.words or ERROR_TYPES[kind], kind)


def sample_from_scratch(
    context: Context,
    actor: Sampler,
    problems: Sequence[Problem],
    samples: int,
    temperature: float,
    wanted: tuple[int, int] | None = None,
) -> Paths:
    """RG1: repeated sampling; nothing is known of the errors.

    Args:
      context: of the run.
      actor: the model that is sampled.
      problems: what is solved.
      samples: the most of a problem.
      temperature: of the actor.
      wanted: so many right and so many wrong ones of a problem are enough; None: draw all.
    """
    stages: list[Dataset[Solution]] = []
    right: collections.Counter[str] = collections.Counter()
    wrong: collections.Counter[str] = collections.Counter()
    batch = min(samples, sum(wanted)) if wanted else samples
    unsettled = list(problems)
    drawn = 0
    while unsettled and drawn < samples:
        count = min(batch, samples - drawn)
        starts = [Start(problem, source="RG1") for problem in unsettled]
        name = f"rg1-{len(stages) + 1}"
        found = respond(context.reseeded(len(stages)), name, actor, starts, count, temperature)
        stages.append(found)
        drawn += count
        right.update(s.problem.id for s in found if s.correct)
        wrong.update(s.problem.id for s in found if not s.correct and s.text.strip())
        if wanted:
            unsettled = [p for p in unsettled if right[p.id] < wanted[0] or wrong[p.id] < wanted[1]]
    return Paths([solution for stage in stages for solution in stage], list(stages))


def branch_off(
    context: Context,
    actor: Sampler,
    correct: Sequence[Solution],
    placement: MistakePlacement,
    temperature: float,
    increase: float,
    rounds: int,
) -> Paths:
    """RG2: cut a correct path at a step and go on at a raised temperature.

    Where the continuation is still right, another step is chosen and the temperature raised
    further, `rounds` times in all. At least one step is kept: to keep none is RG1.

    Args:
      context: of the run.
      actor: the model that continues.
      correct: right solutions, one start each.
      placement: where they are cut.
      temperature: of the first round.
      increase: what each further round adds to it.
      rounds: how many.

    Returns:
      The continuations, right and wrong; the wrong ones with the step at which they really part.
    """
    cuts: dict[str, list[int]] = {}
    for path in correct:
        count = len(split_steps(path.text))
        rng = random.Random(digest("rg2", context.seed, path.problem.id, path.text))
        cuts[path.problem.id] = placement.steps(rng, range(1, count), count)

    def begin(
        name: str, paths: Sequence[Solution], number: int
    ) -> tuple[list[Start | None], list[Dataset[Any]]]:
        starts: list[Start | None] = []
        for path in paths:
            order = cuts[path.problem.id]
            cut = order[number % len(order)]
            kept = split_steps(path.text)[:cut]
            starts.append(Start(path.problem, _lines(kept), "RG2", error_step=cut))
        return starts, []

    able = [path for path in correct if cuts[path.problem.id]]
    paths = _until_flawed(
        context, "rg2", actor, able, rounds, begin, lambda number: temperature + number * increase
    )
    parted = {path.problem.id: split_steps(path.text) for path in able}
    solutions = [_with_parting(s, parted[s.problem.id]) for s in paths.solutions]
    return Paths(solutions, paths.stages)


def insert_mistakes(
    context: Context,
    actor: Sampler,
    correct: Sequence[Solution],
    inserter: Inserter,
    placement: MistakePlacement,
    temperature: float,
    attempts: int,
) -> Paths:
    """RG3: put a chosen mistake at a chosen step, and let the actor reason on from there.

    `correct` has one path a problem, which keeps its kind of mistake. Where the answer comes out
    right all the same, or no mistake was made, a step is drawn again, up to `attempts` in all.

    Returns:
      The flawed and the accidentally right solutions, with step, kind and mistake.
    """

    def begin(
        name: str, paths: Sequence[Solution], number: int
    ) -> tuple[list[Start | None], list[Dataset[Any]]]:
        wishes = []
        for path in paths:
            rng = random.Random(digest("rg3", context.seed, path.problem.id, path.text))
            kinds = placement.kinds(rng)
            count = len(split_steps(path.text))
            rng.seed(digest("rg3", context.seed, number, path.problem.id, path.text))
            steps = placement.steps(rng, range(count), count)
            if steps:  # None of a short path's may be in a third that has any weight.
                wishes.append(Wish(path, tuple((kind, step) for kind in kinds for step in steps)))
        return inserter.insert(context.reseeded(number), name, wishes)

    able = [path for path in correct if split_steps(path.text)]
    return _until_flawed(context, "rg3", actor, able, attempts, begin, lambda _: temperature)


_Begin = Callable[[str, Sequence[Solution], int], tuple[list[Start | None], list[Dataset[Any]]]]


def _until_flawed(
    context: Context,
    name: str,
    actor: Sampler,
    paths: Sequence[Solution],
    rounds: int,
    begin: _Begin,
    temperature: Callable[[int], float],
) -> Paths:
    """Has right paths, one a problem, continued from where `begin` says until all are flawed."""
    found: list[Solution] = []
    stages: list[Dataset[Any]] = []
    still_right = list(paths)
    for number in range(rounds):
        if not still_right:
            break
        turn = f"{name}-{number + 1}"
        begun, asked = begin(turn, still_right, number)
        stages += asked
        starts = [start for start in begun if start is not None]
        if not starts:
            continue
        continued = respond(context.reseeded(number), turn, actor, starts, 1, temperature(number))
        stages.append(continued)
        found += continued
        flawed = {s.problem.id for s in continued if not s.correct and s.text.strip()}
        still_right = [path for path in still_right if path.problem.id not in flawed]
    return Paths(found, stages)


def one_correct_each(solutions: Sequence[Solution]) -> list[Solution]:
    """Returns the first right solution of each problem that has one."""
    first: dict[str, Solution] = {}
    for solution in solutions:
        if solution.correct:
            first.setdefault(solution.problem.id, solution)
    return list(first.values())


def third(step: int, count: int) -> int:
    """Which third of `count` steps a step is in: the middle one of them lies in the middle."""
    return min(2, int(3 * (step + 0.5) / count))


def _start_after(path: Solution, lines: list[str], at: int, error: str, kind: str) -> Start:
    return Start(path.problem, _lines(lines), "RG3", error_step=at, error=error, error_type=kind)


def _with_parting(solution: Solution, path: Sequence[str]) -> Solution:
    """Puts the first step that is not the right path's in the place of the cut.

    A right continuation has no step at which it errs, wherever it parts.
    """
    if solution.correct:
        return dataclasses.replace(solution, error_step=None)
    steps = split_steps(solution.text)
    cut = solution.error_step or 0
    same = (mine == theirs for mine, theirs in zip(steps[cut:], path[cut:], strict=False))
    parting = next((cut + i for i, equal in enumerate(same) if not equal), None)
    if parting is None:  # One goes on where the other ends, or only the answer differs.
        parting = max(0, min(len(steps), len(path), len(steps) - 1))
    return dataclasses.replace(solution, error_step=parting)


def _drawn(rng: random.Random, items: Sequence[T], weights: Sequence[float]) -> list[T]:
    """A weighted draw without replacement (Efraimidis and Spirakis, 2006)."""
    keyed = [(rng.random() ** (1 / weight), i) for i, weight in enumerate(weights) if weight > 0]
    return [items[i] for _, i in sorted(keyed, reverse=True)]


def _lines(steps: Sequence[str]) -> str:
    return "".join(f"{step}\n" for step in steps)
