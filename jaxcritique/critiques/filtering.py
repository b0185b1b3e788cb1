"""Filtering critiques (section 3.3): does the actor, refining after one, come out right?

What is sampled is counted and kept; which critiques the counts let pass is decided afterwards, so
another threshold samples nothing again.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from jaxcritique.critiques.arithmetic import calculations, evaluate
from jaxcritique.records import Critique, Problem
from jaxcritique.roles import Context, Prompt, Replies, run_stage
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import Dataset

Kind = Literal["soft", "hard", "none"]
KINDS: tuple[Kind, ...] = ("soft", "hard", "none")

_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
_STEP_NUMBER = re.compile(r"\bsteps?\s+\d+(?:\s*(?:,|-|and|or|to)\s*\d+)*", re.I)
# Words that only someone who saw the hints (prompts/annotation.py) writes. "The given solution" is
# not among them, since the student's is given too, nor "leads to the correct answer".
_TELLS = re.compile(
    r"\b(?:reference|hint|ground.truth|gold|official|model) (?:solution|answer)\b"
    r"|\b(?:as|the) hint(?:ed)?\b"
    r"|\b(?:according to|compared (?:to|with)|match(?:es|ing)?|differs? from|unlike|as in|in|from)"
    r" (?:the|a) (?:(?:given|provided) )?correct (?:solution|answer)\b"
    r"|\b(?:given|provided) correct (?:solution|answer)\b"
    r"|\bcorrect (?:solution|answer) (?:given|provided|shows?|says?|states?|uses?|has|gives?)\b"
    r"|\b(?:told|informed) that (?:the (?:first )?(?:mistake|error)|step \d)"
    r"|\bmost likely goes wrong first\b",
    re.I,
)


@dataclasses.dataclass(frozen=True)
class Tally:
    """What samples of the actor came to. Rates are over those that came back."""

    answered: int
    right: int
    # Correct refinements that are not counted in `right`: they have less than half the numbers of
    # the response (the rule of the authors' release), so the critique probably leaked the answer.
    leaked: int = 0

    @property
    def rate(self) -> float | None:
        """The share of right ones; None where nothing came back."""
        return self.right / self.answered if self.answered else None


@dataclasses.dataclass(frozen=True)
class FilterRule:
    """Which tallies let a critique pass.

    Attributes:
      kind: "soft": strictly more than `tau` of the refinements are right; "hard": at least one
        is; "none": all pass.
      tau: see there (paper: 0.3, so with 10 refinements at least 4).
    """

    kind: Kind = "soft"
    tau: float = 0.3

    def keeps(self, tally: Tally) -> bool:
        """Whether a critique with this tally passes; only "none" passes one never measured."""
        if self.kind == "none":
            return True
        return tally.rate is not None and tally.rate > (self.tau if self.kind == "soft" else 0.0)


def tally_refinements(
    context: Context, actor: Sampler, critiques: Sequence[Critique], n: int, temperature: float
) -> Dataset[Tally]:
    """Samples `n` refinements after each critique and counts the right ones (Monte Carlo)."""

    def tally(critique: Critique, replies: Replies) -> list[Tally]:
        right = [c.text for c, grade in replies if grade.verdict == "correct"]
        leaked = sum(hardly_reasons(text, critique.solution.text) for text in right)
        return [Tally(_answered(replies), len(right) - leaked, leaked)]

    turns = [Prompt(c, context.prompts.to_refine(c), c.solution.problem) for c in critiques]
    return run_stage(
        context, "filter", Tally, actor, turns, tally, n, temperature, context.actor_tokens
    )


def tally_alone(
    context: Context, actor: Sampler, problems: Sequence[Problem], n: int, temperature: float
) -> Dataset[Tally]:
    """Samples `n` solutions of each problem: what the actor can do without any critique."""

    def tally(_: Problem, replies: Replies) -> list[Tally]:
        return [Tally(_answered(replies), sum(g.verdict == "correct" for _, g in replies))]

    turns = [Prompt(p, context.prompts.to_solve(p), p) for p in problems]
    # RG1 samples the same prompts; with its seed these would be the very same solutions.
    alone = context.reseeded(-1)
    return run_stage(
        alone, "alone", Tally, actor, turns, tally, n, temperature, context.actor_tokens
    )


def _answered(replies: Replies) -> int:
    return sum(completion.finish_reason != "error" for completion, _ in replies)


def leaks_answer(critique: Critique) -> bool:
    """Whether a critique of a wrong response gives away what its reader cannot work out from it.

    That is: it speaks of the hints only its annotator saw, or holds the right answer although
    neither the question nor the response does and no calculation in the critique comes to it.
    """
    if critique.solution.correct:
        return False
    if _TELLS.search(critique.text):
        return True
    gold = critique.solution.problem.answer
    shown = f"{critique.solution.problem.question}\n{critique.solution.text}"
    answer = evaluate(gold)
    if answer is None or "(" in gold:  # An expression: only its very words can be looked for.
        bare = "".join(gold.split())
        return bare in "".join(critique.text.split()) and bare not in "".join(shown.split())
    worked_out = {mark.value for mark in calculations(critique.text)}
    if re.search("[-/%]", gold):  # So they can of a number that has more than digits.
        words = re.escape("".join(gold.split())).replace("%", r"\s?%")
        number = re.compile(rf"(?<![\w.)])(?<![\d)]\s){words}(?!\w|\.\d)")  # 20-11 is no -11.
        said_so = number.search(critique.text) and not number.search(shown)
        return bool(said_so) and answer not in worked_out
    known = {evaluate(number) for number in _NUMBER.findall(shown)} | worked_out
    # "Step 3" is no answer 3.
    said = {evaluate(number) for number in _NUMBER.findall(_STEP_NUMBER.sub("", critique.text))}
    return answer in said and answer not in known


def hardly_reasons(refinement: str, response: str) -> bool:
    """Whether a refinement has less than half the numbers of the response it replaces."""
    return 2 * len(_NUMBER.findall(refinement)) < len(_NUMBER.findall(response))
