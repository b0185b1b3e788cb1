"""The three tasks of section 2, each a stage: reasoning, critique, refinement.

Only what the paper shows a player is in its prompt; the grader's verdict rides on every answer
and is never shown.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from jaxcritique.grading import Grader
from jaxcritique.prompts.critique import parse_critique
from jaxcritique.prompts.templates import (
    PromptSet,
    critique_messages,
    refine_messages,
    solve_messages,
)
from jaxcritique.records import Critique, Messages, Problem, Refinement, Solution, digest
from jaxcritique.rollout.generate import complete
from jaxcritique.rollout.sampler import Completion, Request, Sampler
from jaxcritique.store import Dataset, Store

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Game:
    """What the players play with."""

    store: Store
    grader: Grader
    prompts: PromptSet
    seed: int
    actor_tokens: int  # The most tokens in a solution or refinement.
    critic_tokens: int  # The most tokens in a critique.


@dataclasses.dataclass(frozen=True)
class Start:
    """A problem and the first lines of a solution to go on from ("": start from scratch)."""

    problem: Problem
    prefix: str = ""
    source: str = "actor"
    error_step: int | None = None
    error: str | None = None


def respond(
    game: Game, name: str, actor: Sampler, starts: Sequence[Start], n: int, temperature: float
) -> Dataset[Solution]:
    """Samples `n` solutions of each start: y = pi_theta(x). Records follow the starts' order."""

    def record(start: Start, completion: Completion) -> Solution:
        grade = game.grader.grade(start.problem.answer, completion.text)
        return Solution(
            start.problem,
            completion.text,
            grade.verdict,
            grade.extracted,
            source=start.source,
            error_step=start.error_step,
            error=start.error,
        )

    asked = [(solve_messages(game.prompts, start.problem), start.prefix) for start in starts]
    return _play(
        game, name, Solution, actor, asked, starts, record, n, temperature, game.actor_tokens
    )


def criticise(
    game: Game,
    name: str,
    critic: Sampler,
    solutions: Sequence[Solution],
    n: int,
    temperature: float,
) -> Dataset[Critique]:
    """Samples `n` critiques of each solution: c = pi_phi(x, y)."""

    def record(solution: Solution, completion: Completion) -> Critique:
        parsed = parse_critique(completion.text)
        return Critique(solution, completion.text, parsed.says_correct, parsed.first_error)

    asked = [(critique_messages(game.prompts, solution), "") for solution in solutions]
    return _play(
        game, name, Critique, critic, asked, solutions, record, n, temperature, game.critic_tokens
    )


def refine(
    game: Game,
    name: str,
    actor: Sampler,
    critiques: Sequence[Critique],
    n: int,
    temperature: float,
) -> Dataset[Refinement]:
    """Samples `n` refinements after each critique: y' = pi_theta(x, y, c)."""

    def record(critique: Critique, completion: Completion) -> Refinement:
        grade = game.grader.grade(critique.solution.problem.answer, completion.text)
        return Refinement(critique, completion.text, grade.verdict, grade.extracted)

    asked = [(refine_messages(game.prompts, critique), "") for critique in critiques]
    return _play(
        game, name, Refinement, actor, asked, critiques, record, n, temperature, game.actor_tokens
    )


def _play(
    game: Game,
    name: str,
    cls: type[T],
    player: Sampler,
    asked: Iterable[tuple[Messages, str]],
    subjects: Sequence[Any],
    record: Any,
    n: int,
    temperature: float,
    max_tokens: int,
) -> Dataset[T]:
    # Equal prompts about the same problem (a solution drawn twice) get seeds of their own.
    seen: dict[str, int] = {}
    requests = []
    for messages, prefix in asked:
        request = Request(messages, n, max_tokens, temperature, game.seed, prefix)
        repeat = seen[request.id] = seen.get(request.id, -1) + 1
        requests.append(dataclasses.replace(request, seed=int(digest(game.seed, repeat)[:7], 16)))

    def make(stage: Any) -> tuple[Iterable[T], dict[str, int]]:
        answers = complete(stage, name, player, requests)
        records = [
            record(subject, completion)
            for subject, completions in zip(subjects, answers, strict=True)
            for completion in completions
        ]
        completions = [completion for answer in answers for completion in answer]
        return records, {
            "generated_tokens": sum(completion.completion_tokens for completion in completions),
            "cut_off": sum(completion.finish_reason == "length" for completion in completions),
            "failed": sum(completion.finish_reason == "error" for completion in completions),
        }

    ids = [request.id for request in requests]
    # The subjects carry what the requests do not: the answers they are graded by.
    return game.store.dataset(name, cls, player.key, digest(ids), digest(*subjects), make=make)
