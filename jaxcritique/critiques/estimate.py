"""What building a dataset will cost, before anything is sampled, and what will be asked."""

import dataclasses
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from jaxcritique.critiques.build import CritiqueDataConfig
from jaxcritique.prompts.annotation import Mode, annotation_messages
from jaxcritique.prompts.critique import (
    StepVerdict,
    render_critique,
    split_steps,
    without_calculations,
)
from jaxcritique.prompts.mistakes import mistake_messages
from jaxcritique.prompts.templates import PromptSet, refine_messages, solve_messages
from jaxcritique.records import Critique, Messages, Problem, Solution

RIGHT = 0.5  # Assumed: the share of an actor's continuations that are right.


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most tokens of a reply."""

    actor: int
    annotator: int
    mistake: int


class StageCost(NamedTuple):
    """What a stage is expected to cost, and the most that it can."""

    stage: str
    requests: float
    prompt_tokens: float
    generated_tokens: float
    most_requests: float
    most_tokens: float  # Of prompts and replies.


def estimate(
    problems: Sequence[Problem],
    prompts: PromptSet,
    config: CritiqueDataConfig,
    limits: Limits,
    count: Callable[[Messages], int],
    count_text: Callable[[str], int],
    mode: Mode | None,
    instructed: bool,
    attempts: int,
) -> list[StageCost]:
    """Estimates every stage, from the lengths of the first problems' own solutions.

    Args:
      problems: of training.
      prompts: of the players.
      config: of the framework.
      limits: of replies.
      count: counts a prompt's tokens.
      count_text: counts a text's tokens.
      mode: of an annotator that is a model; None: a program annotates.
      instructed: whether a model puts in RG3's mistakes.
      attempts: how often a model annotator is asked where no usable reply comes.
    """
    looked_at = problems[:50]
    examples = example_prompts(looked_at[0], prompts, mode, instructed)
    solve = fmean(count(solve_messages(prompts, p)) for p in looked_at)
    solution = fmean(count_text(p.rationale) for p in looked_at)
    critiques = [_stand_in(p) for p in looked_at]
    critique = fmean(count_text(c.text) for c in critiques)
    refine = fmean(count(refine_messages(prompts, c)) for c in critiques)
    size = len(problems)
    rg1 = min(config.samples, 2 * max(config.wanted)) if config.wanted else config.samples
    rg2 = sum(RIGHT**i for i in range(config.rg2_rounds))
    rg3 = sum(RIGHT**i for i in range(config.rg3_attempts))
    flawed = size * (rg1 + rg2 + rg3) * (1 - RIGHT)
    filtered = min(flawed, config.max_flawed or flawed)
    # Every sample of RG1 may be wrong, or one of each problem right and one more of RG2 and RG3.
    most_flawed = size * (config.samples + bool(config.rg2_rounds) + bool(config.rg3_attempts))
    most_filtered = min(most_flawed, config.max_flawed or most_flawed)
    continued = solve + solution / 2

    def row(
        stage: str,
        requests: float,
        most: float,
        prompt: float,
        reply: float,
        longest: int,
        samples: float = 1,
        most_samples: float = 1,
    ) -> StageCost:
        return StageCost(
            stage,
            requests,
            requests * prompt,
            requests * samples * min(reply, longest),
            most,
            most * (prompt + most_samples * longest),
        )

    rounds = max(rg1 / sum(config.wanted), 1) if config.wanted else 1
    most_rounds = -(-config.samples // sum(config.wanted)) if config.wanted else 1
    rows = [
        row(
            "rg1",
            size * rounds,
            size * most_rounds,
            solve,
            solution,
            limits.actor,
            rg1 / rounds,
            config.samples / most_rounds,
        ),
        row("rg2", size * rg2, size * config.rg2_rounds, continued, solution / 2, limits.actor),
        row("rg3", size * rg3, size * config.rg3_attempts, continued, solution / 2, limits.actor),
    ]
    if instructed:
        prompt = count(examples["rg3: put in a mistake"])
        most = size * config.rg3_attempts
        rows.append(row("mistakes", size * rg3, most, prompt, limits.mistake / 2, limits.mistake))
    if mode:
        prompt = count(examples[f"annotate {mode}, RG1"])
        most = 2 * most_flawed * attempts
        rows.append(row("annotate", 2 * flawed, most, prompt, critique, limits.annotator))
    n = config.refinements
    rows.append(row("filter", filtered, most_filtered, refine, solution, limits.actor, n, n))
    if n := config.alone_samples:
        asked = min(size, filtered)
        rows.append(row("alone", asked, size, solve, solution, limits.actor, n, n))
    return rows


def example_prompts(
    problem: Problem, prompts: PromptSet, mode: Mode | None, instructed: bool
) -> dict[str, Messages]:
    """Returns one example of every prompt that building a dataset will use."""
    path = Solution(problem, problem.rationale, "correct", problem.answer)
    flawed = dataclasses.replace(path, verdict="wrong")
    hinted = {
        "right": path,
        "RG1": dataclasses.replace(flawed, source="RG1"),
        "RG2": dataclasses.replace(flawed, source="RG2", error_step=0),
        "RG3": dataclasses.replace(
            flawed,
            source="RG3",
            error_step=0,
            error="the mistake, in words",
            error_type="calculation",
        ),
    }
    found = {"rg1 (rg2 and rg3 go on from given steps)": solve_messages(prompts, problem)}
    if instructed:
        found["rg3: put in a mistake"] = mistake_messages(path, 0, "calculation")
    if mode:
        for source, solution in hinted.items():
            found[f"annotate {mode}, {source}"] = annotation_messages(prompts, solution, mode)
    found["filter: refine (response and critique: stand-ins)"] = refine_messages(
        prompts, _stand_in(problem)
    )
    return found


def _stand_in(problem: Problem) -> Critique:
    """A critique about as long as real ones: every step repeated twice, the last called wrong."""
    solution = Solution(problem, problem.rationale, "wrong", None)
    steps = [without_calculations(step) for step in split_steps(problem.rationale)]
    last = len(steps) - 1
    verdicts = [StepVerdict(step, step, correct=i < last) for i, step in enumerate(steps)]
    return Critique(solution, render_critique(verdicts, says_correct=False), False, last)
