"""The three roles of section 2, each a stage: solve, critique, refine.

A prompt holds only what the paper shows the model in that role. The grader's verdict is stored with
every answer and is never shown.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from absl import logging

from jaxcritique.config import Config, setting
from jaxcritique.grading import Grade, Grader
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.critique import parse_critique
from jaxcritique.prompts.templates import (
    PROMPT_SETS,
    PromptSet,
    critique_messages,
    refine_messages,
    solve_messages,
)
from jaxcritique.records import Critique, Messages, Problem, Refinement, Solution, digest
from jaxcritique.rollout.engines import Engine, EngineConfig
from jaxcritique.rollout.journal import complete
from jaxcritique.rollout.sampler import Completion, Request, Sampler
from jaxcritique.store import Dataset, Store
from jaxcritique.training.data import Example
from jaxcritique.training.sft import SftConfig

T = TypeVar("T")
S = TypeVar("S")

# What a stage that asks a model counts, in its facts.
COSTS = ("requests", "samples", "prompt_tokens", "generated_tokens", "cut_off", "failed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolesConfig(Config):
    """Settings that every stage of a run shares."""

    seed: int = setting(
        0, "Decides generated problems, samples, the order of training data and resamples.", low=0
    )
    prompts: str = setting("full", "Wording of the prompts.", choices=tuple(PROMPT_SETS))
    actor_tokens: int = setting(1024, "Most tokens of a solution or refinement.", low=1)
    critic_tokens: int = setting(1536, "Most tokens of a critique.", low=1)


@dataclasses.dataclass(frozen=True)
class Context:
    """What all stages of a run share."""

    store: Store
    grader: Grader
    prompts: PromptSet
    seed: int
    actor_tokens: int  # Most tokens of a solution or refinement.
    critic_tokens: int  # Most tokens of a critique.
    engine: Engine = dataclasses.field(default_factory=lambda: EngineConfig().start())

    @classmethod
    def of(cls, config: RolesConfig, store: Store, grader: Grader, engine: Engine) -> "Context":
        """Returns the context of a run with these settings."""
        return cls(
            store,
            grader,
            PROMPT_SETS[config.prompts],
            config.seed,
            config.actor_tokens,
            config.critic_tokens,
            engine,
        )

    def reseeded(self, number: int) -> "Context":
        """Returns this context with a seed derived from its own, for drawing the same anew.

        Number 0 is this context itself.
        """
        if not number:
            return self
        return dataclasses.replace(self, seed=int(digest(self.seed, number)[:7], 16))

    def sampler(self, model: ModelFolder) -> Sampler:
        """Returns a sampler of a model, which is loaded when first asked."""
        return self.engine.sampler(model)

    def fine_tune(
        self, name: str, base: ModelFolder, examples: Sequence[Example], config: SftConfig
    ) -> ModelFolder:
        """Fine-tunes `base` on the examples as a stage; see `training.sft.fine_tune`."""
        return self.engine.fine_tune(self.store, name, base, examples, config, self.seed)


@dataclasses.dataclass(frozen=True)
class Start:
    """A problem and the first lines of a solution to go on from ("": start from scratch)."""

    problem: Problem
    prefix: str = ""
    source: str = "actor"
    error_step: int | None = None
    error: str | None = None
    error_type: str | None = None


@dataclasses.dataclass(frozen=True)
class Prompt(Generic[S]):
    """What a model is asked, and the record that the answer is about."""

    subject: S
    messages: Messages
    prefix: str = ""


def respond(
    context: Context,
    name: str,
    actor: Sampler,
    starts: Sequence[Start],
    n: int,
    temperature: float,
    ask: Callable[[PromptSet, Problem], Messages] = solve_messages,
) -> Dataset[Solution]:
    """Samples `n` solutions of each start: y = pi_theta(x). Records follow the starts' order.

    `ask` makes the messages that a problem is posed with.
    """

    def records(asked: Sequence[Start], answers: Sequence[list[Completion]]) -> list[Solution]:
        return [
            Solution(
                start.problem,
                completion.text,
                grade.verdict,
                grade.extracted,
                source=start.source,
                error_step=start.error_step,
                error=start.error,
                error_type=start.error_type,
                tokens=completion.completion_tokens,
            )
            for start, completion, grade in graded(context, asked, answers, lambda s: s.problem)
        ]

    asked = [Prompt(s, ask(context.prompts, s.problem), s.prefix) for s in starts]
    return run_stage(
        context, name, Solution, actor, asked, records, n, temperature, context.actor_tokens
    )


def criticise(
    context: Context,
    name: str,
    critic: Sampler,
    solutions: Sequence[Solution],
    n: int,
    temperature: float,
    prefixes: Sequence[str] = (),
) -> Dataset[Critique]:
    """Samples `n` critiques of each solution: c = pi_phi(x, y).

    Where there are `prefixes`, one a solution, its critiques go on from it.
    """

    def records(asked: Sequence[Solution], answers: Sequence[list[Completion]]) -> list[Critique]:
        return [
            read_critique(solution, completion.text, completion.completion_tokens)
            for solution, completions in zip(asked, answers, strict=True)
            for completion in completions
        ]

    asked = [
        Prompt(s, critique_messages(context.prompts, s), prefix)
        for s, prefix in zip(solutions, prefixes or [""] * len(solutions), strict=True)
    ]
    return run_stage(
        context, name, Critique, critic, asked, records, n, temperature, context.critic_tokens
    )


def refine(
    context: Context,
    name: str,
    actor: Sampler,
    critiques: Sequence[Critique],
    n: int,
    temperature: float,
    prefixes: Sequence[str] = (),
) -> Dataset[Refinement]:
    """Samples `n` refinements after each critique: y' = pi_theta(x, y, c).

    Where there are `prefixes`, one a critique, its refinements go on from it.
    """

    def records(asked: Sequence[Critique], answers: Sequence[list[Completion]]) -> list[Refinement]:
        return [
            Refinement(
                critique,
                completion.text,
                grade.verdict,
                grade.extracted,
                completion.completion_tokens,
            )
            for critique, completion, grade in graded(
                context, asked, answers, lambda c: c.solution.problem
            )
        ]

    asked = [
        Prompt(c, refine_messages(context.prompts, c), prefix)
        for c, prefix in zip(critiques, prefixes or [""] * len(critiques), strict=True)
    ]
    return run_stage(
        context, name, Refinement, actor, asked, records, n, temperature, context.actor_tokens
    )


def no_critique(solution: Solution) -> Critique:
    """Returns the critique that says nothing, after which the actor corrects itself."""
    return Critique(solution, "", None, None)


def read_critique(solution: Solution, text: str, tokens: int = 0) -> Critique:
    """Makes a record of what a critic wrote in so many generated tokens."""
    parsed = parse_critique(text)
    return Critique(solution, text, parsed.says_correct, parsed.first_error, tokens)


def graded(
    context: Context,
    asked: Sequence[S],
    answers: Sequence[list[Completion]],
    problem_of: Callable[[S], Problem],
) -> list[tuple[S, Completion, Grade]]:
    """Grades every completion against its subject's problem, all of them in one go."""
    pairs = [
        (subject, completion)
        for subject, completions in zip(asked, answers, strict=True)
        for completion in completions
    ]
    grades = context.grader.grade_all((problem_of(s).answer, c.text) for s, c in pairs)
    return [(*pair, grade) for pair, grade in zip(pairs, grades, strict=True)]


def run_stage(
    context: Context,
    name: str,
    cls: type[T],
    player: Sampler,
    asked: Sequence[Prompt[S]],
    records: Callable[[Sequence[S], Sequence[list[Completion]]], Iterable[T]],
    n: int,
    temperature: float,
    max_tokens: int,
) -> Dataset[T]:
    """Samples from a model, as a stage; COSTS are among its facts.

    Args:
      context: of the run.
      name: of the stage.
      cls: the class of the stage's records.
      player: the model.
      asked: the prompts.
      records: makes records from the prompts' subjects and the completions of each.
      n: samples of each prompt.
      temperature: of sampling.
      max_tokens: of a sample.
    """
    # Equal prompts about the same problem (a solution drawn twice) get seeds of their own.
    seen: dict[str, int] = {}
    requests = []
    for prompt in asked:
        request = Request(prompt.messages, n, max_tokens, temperature, context.seed, prompt.prefix)
        repeat = seen[request.id] = seen.get(request.id, -1) + 1
        requests.append(
            dataclasses.replace(request, seed=int(digest(context.seed, repeat)[:7], 16))
        )
    subjects = [prompt.subject for prompt in asked]

    def make(stage: Any) -> tuple[Iterable[T], dict[str, int]]:
        answers = complete(stage, name, player, requests)
        completions = [completion for answer in answers for completion in answer]
        failed = [completion for completion in completions if completion.finish_reason == "error"]
        costs = {
            "requests": len(requests),
            "samples": len(completions),
            "prompt_tokens": sum(answer[0].prompt_tokens for answer in answers),
            "generated_tokens": sum(completion.completion_tokens for completion in completions),
            "cut_off": sum(completion.finish_reason == "length" for completion in completions),
            "failed": len(failed),
        }
        if failed:
            logging.warning(
                "%s: %d of %d samples could not be had (%s). To ask for them again, delete %s "
                "(beside it annotations-* and candidates-*, if there are any, and the run's "
                "results.json).",
                name,
                len(failed),
                len(completions),
                failed[0].error,
                stage.folder,
            )
        return records(subjects, answers), costs

    ids = [request.id for request in requests]
    # The subjects carry what the requests do not: the answers they are graded by.
    return context.store.dataset(name, cls, player.key, digest(ids), digest(*subjects), make=make)


def costs_of(stage: Dataset[Any]) -> dict[str, int]:
    """Returns what a stage that asked a model cost."""
    return {name: stage.facts[name] for name in COSTS}


def total_costs(stages: Iterable[Dataset[Any]]) -> dict[str, int]:
    """Adds up what stages that asked a model cost."""
    total: collections.Counter[str] = collections.Counter(dict.fromkeys(COSTS, 0))
    for stage in stages:
        total.update(costs_of(stage))
    return dict(total)
