"""The three roles of section 2, each a stage: solve, critique, refine.

A prompt contains only what the paper shows the model in that role: never the grader's verdict.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from absl import logging

from jaxcritique.config import Config, setting
from jaxcritique.grading import Grade, Grader, extract_answer
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.critique import parse_critique
from jaxcritique.prompts.templates import PROMPT_SETS, PromptSet
from jaxcritique.records import Critique, Messages, Problem, Refinement, Solution, digest
from jaxcritique.rollout.engines import Engine
from jaxcritique.rollout.guard import in_own_process
from jaxcritique.rollout.journal import complete
from jaxcritique.rollout.sampler import Completion, Request, Sampler, SamplerError
from jaxcritique.run_folder import release
from jaxcritique.store import Dataset, Stage, Store
from jaxcritique.training.data import Example
from jaxcritique.training.sft import SftConfig, fine_tune_stage

T = TypeVar("T")
S = TypeVar("S")

# The counts in the facts of a stage that samples.
COSTS = ("requests", "samples", "prompt_tokens", "generated_tokens", "cut_off", "failed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolesConfig(Config):
    """Settings that every stage of a run shares."""

    seed: int = setting(
        0, "Seed of generated problems, samples, data order and bootstrap intervals.", low=0
    )
    prompts: str | None = setting(
        None,
        "Wording of the prompts. Default: that which the model was trained on, as the file "
        "jaxcritique.json in its folder says, or full without one.",
        choices=tuple(PROMPT_SETS),
    )
    actor_tokens: int = setting(1024, "Maximum tokens of a solution or refinement.", low=1)
    critic_tokens: int = setting(1536, "Maximum tokens of a critique.", low=1)

    def prompts_for(self, folder: str | os.PathLike[str]) -> PromptSet:
        """Returns the prompts of a run with the model of this folder.

        Raises:
          InvalidInput: its jaxcritique.json is damaged.
        """
        return PROMPT_SETS[self.prompts] if self.prompts else PromptSet.read(folder)


@dataclasses.dataclass(frozen=True)
class Context:
    """What all stages of a run share. With `Store(None)` the stages are in memory."""

    store: Store
    grader: Grader
    prompts: PromptSet
    seed: int
    actor_tokens: int  # Maximum tokens of a solution or refinement.
    critic_tokens: int  # Maximum tokens of a critique.
    engine: Engine | None = None  # None: a context that neither loads nor fine-tunes models.

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        config: RolesConfig,
        model: ModelFolder,
        run_dir: str | os.PathLike[str],
        engine: Engine,
    ) -> Iterator["Context"]:
        """Yields the context of a run with this model's prompts; then frees engine and folder."""
        prompts = config.prompts_for(model.folder)
        try:
            with Grader() as grader, engine:
                yield cls(
                    Store(run_dir),
                    grader,
                    prompts,
                    config.seed,
                    config.actor_tokens,
                    config.critic_tokens,
                    engine,
                )
        finally:
            release(pathlib.Path(run_dir))

    def reseeded(self, number: int) -> "Context":
        """Returns this context with another seed, derived from its own; 0 returns it unchanged."""
        if not number:
            return self
        return dataclasses.replace(self, seed=int(digest(self.seed, number)[:7], 16))

    def sampler(self, model: ModelFolder) -> Sampler:
        """Returns a sampler of a model; the model is loaded when it is first used."""
        return self._engine.sampler(model)

    def fine_tune(
        self, name: str, base: ModelFolder, examples: Sequence[Example], config: SftConfig
    ) -> ModelFolder:
        """Fine-tunes `base` on the examples, as a stage; see `training.sft.fine_tune_stage`."""
        fine_tune = functools.partial(
            fine_tune_stage,
            self.store, name, base, examples, config.part(SftConfig), self.seed,
            self._engine.for_training(),
        )  # fmt: skip
        model = in_own_process(fine_tune) if self._engine.trains_apart else fine_tune()
        if PromptSet.read(model.folder) != self.prompts:
            self.prompts.write(model.folder)
        return model

    @property
    def _engine(self) -> Engine:
        if self.engine is None:
            raise ValueError("this context has no engine to load models with.")
        return self.engine


@dataclasses.dataclass(frozen=True)
class Start:
    """A problem, and the first lines of the solution to complete ("": none)."""

    problem: Problem
    prefix: str = ""
    source: str = "actor"
    error_step: int | None = None
    error: str | None = None
    error_type: str | None = None


@dataclasses.dataclass(frozen=True)
class Prompt(Generic[S]):
    """The messages of a request, and the record that its replies are about."""

    subject: S
    messages: Messages
    problem: Problem | None = None  # Its answer grades the replies; None: they are not graded.
    prefix: str = ""  # The first lines of the reply.


# The completions of a prompt. The verdict is "ungraded" where there is no answer to grade by.
Replies = Sequence[tuple[Completion, Grade]]


def respond(
    context: Context,
    name: str,
    actor: Sampler,
    starts: Sequence[Start],
    n: int,
    temperature: float,
    messages: Callable[[PromptSet, Problem], Messages] = PromptSet.to_solve,
) -> Dataset[Solution]:
    """Samples `n` solutions of each start, y = pi_theta(x), in the order of the starts.

    Args:
      context: of the run.
      name: of the stage.
      actor: the model.
      starts: the problems.
      n: solutions of each start.
      temperature: of sampling; 0 is greedy.
      messages: makes the prompt of a problem.
    """

    def solutions(start: Start, replies: Replies) -> list[Solution]:
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
            for completion, grade in replies
        ]

    prompts = [Prompt(s, messages(context.prompts, s.problem), s.problem, s.prefix) for s in starts]
    return run_stage(
        context, name, Solution, actor, prompts, solutions, n, temperature, context.actor_tokens
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
    """Samples `n` critiques of each solution, c = pi_phi(x, y), in the order of the solutions.

    Args:
      context: of the run.
      name: of the stage.
      critic: the model.
      solutions: to criticise.
      n: critiques of each solution.
      temperature: of sampling; 0 is greedy.
      prefixes: the first lines of the critiques, one for each solution; empty: none.
    """

    def critiques(solution: Solution, replies: Replies) -> list[Critique]:
        return [read_critique(solution, c.text, c.completion_tokens) for c, _ in replies]

    prompts = [
        Prompt(s, context.prompts.to_critique(s), prefix=prefix)
        for s, prefix in zip(solutions, prefixes or [""] * len(solutions), strict=True)
    ]
    return run_stage(
        context, name, Critique, critic, prompts, critiques, n, temperature, context.critic_tokens
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
    """Samples `n` refinements after each critique, y' = pi_theta(x, y, c), in their order.

    Args:
      context: of the run.
      name: of the stage.
      actor: the model.
      critiques: each with the solution to refine; one without text asks for self-correction.
      n: refinements after each critique.
      temperature: of sampling; 0 is greedy.
      prefixes: the first lines of the refinements, one for each critique; empty: none.
    """

    def refinements(critique: Critique, replies: Replies) -> list[Refinement]:
        return [
            Refinement(critique, c.text, grade.verdict, grade.extracted, c.completion_tokens)
            for c, grade in replies
        ]

    prompts = [
        Prompt(c, context.prompts.to_refine(c), c.solution.problem, prefix)
        for c, prefix in zip(critiques, prefixes or [""] * len(critiques), strict=True)
    ]
    return run_stage(
        context, name, Refinement, actor, prompts, refinements, n, temperature, context.actor_tokens
    )


def no_critique(solution: Solution) -> Critique:
    """Returns a critique without text: the actor then corrects itself."""
    return Critique(solution, "", None, None)


def read_critique(solution: Solution, text: str, tokens: int = 0) -> Critique:
    """Parses the text of a critic, of so many generated tokens, into a record."""
    parsed = parse_critique(text)
    return Critique(solution, text, parsed.says_correct, parsed.first_error, tokens)


def run_stage(
    context: Context,
    name: str,
    cls: type[T],
    model: Sampler,
    prompts: Sequence[Prompt[S]],
    records: Callable[[S, Replies], Iterable[T]],
    n: int,
    temperature: float,
    max_tokens: int,
) -> Dataset[T]:
    """Samples from a model, as a stage whose facts include the counts of `COSTS`.

    Args:
      context: of the run.
      name: of the stage.
      cls: the class of the stage's records.
      model: the sampler.
      prompts: the prompts.
      records: makes the records of a prompt from its subject and the replies.
      n: samples of each prompt.
      temperature: of sampling; 0 is greedy.
      max_tokens: of a sample.
    """
    # Equal prompts about the same problem (a solution drawn twice) get seeds of their own.
    repeats: collections.Counter[str] = collections.Counter()
    requests: list[Request] = []
    for prompt in prompts:
        request = Request(prompt.messages, n, max_tokens, temperature, context.seed, prompt.prefix)
        seed = int(digest(context.seed, repeats[request.id])[:7], 16)
        repeats[request.id] += 1
        requests.append(dataclasses.replace(request, seed=seed))

    def make(stage: Stage) -> tuple[Iterable[T], dict[str, int]]:
        answers = complete(stage, name, model, requests)
        completions = [completion for samples in answers for completion in samples]
        failed = [completion for completion in completions if completion.finish_reason == "error"]
        costs = {
            "requests": len(requests),
            "samples": len(completions),
            "prompt_tokens": sum(samples[0].prompt_tokens for samples in answers),
            "generated_tokens": sum(completion.completion_tokens for completion in completions),
            "cut_off": sum(completion.finish_reason == "length" for completion in completions),
            "failed": len(failed),
        }
        if failed and len(failed) == len(completions) and stage.path is None:
            raise SamplerError(f"{name}: {failed[0].error}")
        if failed:
            again = (
                f". To sample them again, delete {stage.path} (beside it annotations-* and "
                "candidates-*, if there are any, and the run's results.json)"
            )
            logging.warning(
                "%s: %d of %d samples failed (%s)%s.",
                name,
                len(failed),
                len(completions),
                failed[0].error,
                again if stage.path else "",
            )
        return [
            record
            for prompt, replies in zip(prompts, _graded(context, prompts, answers), strict=True)
            for record in records(prompt.subject, replies)
        ], costs

    ids = [request.id for request in requests]
    # Subjects are hashed too, since their gold answers decide the grades.
    subjects = digest(*(prompt.subject for prompt in prompts))
    return context.store.dataset(name, cls, model.key, digest(ids), subjects, make=make)


def _graded(
    context: Context, prompts: Sequence[Prompt[Any]], answers: Sequence[list[Completion]]
) -> list[Replies]:
    """Grades the completions of all prompts in one call."""
    known = [
        (prompt.problem.answer, completion.text)
        for prompt, completions in zip(prompts, answers, strict=True)
        if prompt.problem and prompt.problem.answer
        for completion in completions
    ]
    grades = iter(context.grader.grade_all(known))

    def grade(problem: Problem | None, text: str) -> Grade:
        if problem and problem.answer:
            return next(grades)
        answer = extract_answer(text) if problem else None
        return Grade("ungraded", "no gold answer", answer.text if answer else None, gold="")

    return [
        [(completion, grade(prompt.problem, completion.text)) for completion in completions]
        for prompt, completions in zip(prompts, answers, strict=True)
    ]


def costs_of(stage: Dataset[Any]) -> dict[str, int]:
    """Returns the counts of a stage that sampled."""
    return {name: stage.facts[name] for name in COSTS}


def total_costs(stages: Iterable[Dataset[Any]]) -> dict[str, int]:
    """Adds up the counts of stages that sampled."""
    total: collections.Counter[str] = collections.Counter(dict.fromkeys(COSTS, 0))
    for stage in stages:
        total.update(costs_of(stage))
    return dict(total)
