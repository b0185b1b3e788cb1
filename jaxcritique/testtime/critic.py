"""What a critic is worth at test time (section 4.2): Table 2's columns."""

import dataclasses
from collections.abc import Sequence

from jaxcritique.prompts.players import Game, criticise, refine
from jaxcritique.records import Critique, Refinement, Solution
from jaxcritique.rollout.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class CriticReport:
    """Counts and rates over the responses a critic was shown; `n` of them."""

    n: int
    accuracy_without: float
    accuracy_refine_all: float  # Every response is refined.
    accuracy_refine_flagged: float  # Only those the critic does not call correct.
    discriminability: float  # Share whose verdict matches the response's correctness.
    helpfulness: float | None  # Share of wrong responses whose refinement is right.
    unparsable: int  # Critiques without a verdict; they count as mismatches.
    c2c: int  # Right before and after, refining all; and so on.
    c2i: int
    i2c: int
    i2i: int


def evaluate_critic(
    game: Game, name: str, actor: Sampler, critic: Sampler, solutions: Sequence[Solution]
) -> tuple[CriticReport, list[Refinement]]:
    """Has each solution criticised and refined once, greedily; every one is shown to the critic.

    Raises:
      ValueError: there are no solutions.
    """
    if not solutions:
        raise ValueError("a critic cannot be evaluated on no solutions")
    critiques = criticise(game, f"{name}-criticise", critic, solutions, 1, 0.0)
    refinements = list(refine(game, f"{name}-refine", actor, list(critiques), 1, 0.0))
    before = [solution.correct for solution in solutions]
    after = [refinement.correct for refinement in refinements]
    flows = [sum(b == x and a == y for b, a in zip(before, after, strict=True))
             for x, y in ((True, True), (True, False), (False, True), (False, False))]  # fmt: skip
    c2c, c2i, i2c, i2i = flows
    n = len(before)
    flagged = [critique.says_correct is not True for critique in critiques]
    chosen = [a if f else b for a, b, f in zip(after, before, flagged, strict=True)]
    return CriticReport(
        n=n,
        accuracy_without=sum(before) / n,
        accuracy_refine_all=sum(after) / n,
        accuracy_refine_flagged=sum(chosen) / n,
        discriminability=sum(map(_matches, critiques)) / n,
        helpfulness=i2c / (i2c + i2i) if i2c + i2i else None,
        unparsable=sum(critique.says_correct is None for critique in critiques),
        c2c=c2c,
        c2i=c2i,
        i2c=i2c,
        i2i=i2i,
    ), refinements


def _matches(critique: Critique) -> bool:
    return critique.says_correct == critique.solution.correct
