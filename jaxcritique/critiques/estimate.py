"""A dry run: what building critique data will cost, and one example of each prompt."""

import dataclasses
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from jaxcritique.analysis.table import aligned, percent
from jaxcritique.critiques.annotate import CHECKER
from jaxcritique.critiques.build_critiques import BuildCritiquesConfig, Inputs
from jaxcritique.critiques.flaws import MISTAKE_TOKENS
from jaxcritique.errors import checking_input
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.prompts.annotation import annotation_messages
from jaxcritique.prompts.critique import (
    StepVerdict,
    render_critique,
    split_steps,
    without_calculations,
)
from jaxcritique.prompts.mistakes import mistake_messages
from jaxcritique.records import Critique, Messages, Problem, Solution

RIGHT = 0.5  # Assumed share of an actor's continuations that are right.


class StageCost(NamedTuple):
    """What a stage is expected to cost, and the most that it can."""

    stage: str
    requests: float
    prompt_tokens: float
    generated_tokens: float
    most_requests: float
    most_tokens: float  # Of prompts and replies.


def dry_run(config: BuildCritiquesConfig) -> str:
    """Returns one example of each prompt, then an estimate of the cost; samples nothing.

    Raises:
      InvalidInput: a setting or an input cannot be used.
    """
    with checking_input():
        problems = Inputs.read(config).problems
    tokenizer = Tokenizer(config.actor)
    shown = [
        f"==== {name}\n{tokenizer.prompt(messages)}\n"
        for name, messages in example_prompts(config, problems[0]).items()
    ]
    costs = estimate(config, problems, tokenizer)
    total = StageCost("all", *(sum(column) for column in zip(*(c[1:] for c in costs), strict=True)))
    rows = [
        ("stage", "requests", "prompt tokens", "generated tokens", "at most: requests", "tokens")
    ]
    rows += [(cost[0], *(f"{round(number):,}" for number in cost[1:])) for cost in [*costs, total]]
    return "\n".join(
        [
            *shown,
            aligned(rows),
            f"Expected if {percent(RIGHT)} of the actor's answers are right, replies are as long "
            "as the reference's, and every reply of an annotator is usable; nothing was sampled.",
            f"All tokens are counted by the actor's tokenizer ({config.actor}), also the "
            "annotator's.",
        ]
    )


def estimate(
    config: BuildCritiquesConfig, problems: Sequence[Problem], tokenizer: Tokenizer
) -> list[StageCost]:
    """Estimates every stage from the lengths of the first problems' own solutions."""

    def count(messages: Messages) -> int:
        return len(tokenizer.encode(tokenizer.prompt(messages)))

    prompts, first = config.prompts_for(config.actor), problems[:50]
    examples = example_prompts(config, first[0])
    critiques = [_stand_in(p) for p in first]
    solve = fmean(count(prompts.to_solve(p)) for p in first)
    solution = fmean(len(tokenizer.encode(p.rationale)) for p in first)
    critique = fmean(len(tokenizer.encode(c.text)) for c in critiques)
    refine = fmean(count(prompts.to_refine(c)) for c in critiques)
    continued, rest = solve + solution / 2, solution / 2
    size, samples, wanted = len(problems), config.rg1_samples, config.wanted
    # RG1 draws rounds of as many samples as are wanted.
    rg1 = min(samples, 2 * max(wanted)) if wanted else samples
    rounds = max(rg1 / sum(wanted), 1) if wanted else 1
    most_rounds = -(-samples // sum(wanted)) if wanted else 1
    rg2 = sum(RIGHT**i for i in range(config.rg2_rounds))
    rg3 = sum(RIGHT**i for i in range(config.rg3_attempts))
    flawed = size * (rg1 + rg2 + rg3) * (1 - RIGHT)
    filtered = min(flawed, config.max_flawed or flawed)
    # Every sample of RG1 may be wrong, or one of each problem right and one more of RG2 and RG3.
    most_flawed = size * (samples + bool(config.rg2_rounds) + bool(config.rg3_attempts))
    most_filtered = min(most_flawed, config.max_flawed or most_flawed)

    def row(
        stage: str, requests: float, most: float, prompt: float, reply: float, limit: int,
        n: float = 1, most_n: float = 1,
    ) -> StageCost:  # fmt: skip
        """The cost of `requests` for `n` samples each, and of at most `most` for `most_n`."""
        return StageCost(
            stage,
            requests,
            requests * prompt,
            requests * n * min(reply, limit),
            most,
            most * (prompt + most_n * limit),
        )

    actor, annotator = config.actor_tokens, config.critic_tokens
    rows = [
        row("rg1", size * rounds, size * most_rounds, solve, solution, actor,
            rg1 / rounds, samples / most_rounds),
        row("rg2", size * rg2, size * config.rg2_rounds, continued, rest, actor),
        row("rg3", size * rg3, size * config.rg3_attempts, continued, rest, actor),
    ]  # fmt: skip
    if config.mistakes == "model":
        prompt, most = count(examples["rg3: put in a mistake"]), size * config.rg3_attempts
        rows.append(row("mistakes", size * rg3, most, prompt, MISTAKE_TOKENS / 2, MISTAKE_TOKENS))
    if config.annotator != CHECKER:
        prompt = count(examples[f"annotate {config.annotation}, RG1"])
        most = 2 * most_flawed * config.annotation_attempts
        rows.append(row("annotate", 2 * flawed, most, prompt, critique, annotator))
    n = config.filter_refinements
    rows.append(row("filter", filtered, most_filtered, refine, solution, actor, n, n))
    if n := config.alone_samples:
        rows.append(row("alone", min(size, filtered), size, solve, solution, actor, n, n))
    return rows


def example_prompts(config: BuildCritiquesConfig, problem: Problem) -> dict[str, Messages]:
    """Returns one example of every prompt that building a dataset will use."""
    prompts = config.prompts_for(config.actor)
    right = Solution(problem, problem.rationale, "correct", problem.answer)
    wrong = dataclasses.replace(right, verdict="wrong")
    known = dataclasses.replace(wrong, error_step=0)
    hinted = {
        "right": right,
        "RG1": dataclasses.replace(wrong, source="RG1"),
        "RG2": dataclasses.replace(known, source="RG2"),
        "RG3": dataclasses.replace(
            known, source="RG3", error="the mistake, in words", error_type="calculation"
        ),
    }
    examples = {"rg1 (rg2 and rg3 go on from given steps)": prompts.to_solve(problem)}
    if config.mistakes == "model":
        examples["rg3: put in a mistake"] = mistake_messages(right, 0, "calculation")
    if config.annotator != CHECKER:
        for source, solution in hinted.items():
            examples[f"annotate {config.annotation}, {source}"] = annotation_messages(
                prompts, solution, config.annotation
            )
    examples["filter: refine (response and critique: stand-ins)"] = prompts.to_refine(
        _stand_in(problem)
    )
    return examples


def _stand_in(problem: Problem) -> Critique:
    """A critique about as long as real ones: every step repeated twice, the last called wrong."""
    solution = Solution(problem, problem.rationale, "wrong", None)
    steps = [without_calculations(step) for step in split_steps(problem.rationale)]
    last = len(steps) - 1
    verdicts = [StepVerdict(step, step, correct=i < last) for i, step in enumerate(steps)]
    return Critique(solution, render_critique(verdicts, says_correct=False), False, last)
