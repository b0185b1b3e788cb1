"""What a critic is worth at test time (section 4.2): Table 2's columns."""

import dataclasses
from collections.abc import Sequence

from jaxcritique.records import Critique, Refinement, Solution
from jaxcritique.roles import Context, costs_of, criticise, refine
from jaxcritique.rollout.sampler import Sampler

Scores = dict[str, float]  # Problem id to the score of its response.


@dataclasses.dataclass(frozen=True)
class CriticReport:
    """Counts and rates over the responses a critic was shown; `n` of them."""

    n: int
    accuracy_without: float
    accuracy_refine_all: float  # Every response is refined.
    accuracy_refine_flagged: float  # Only those the critic does not call correct.
    accuracy_oracle: float  # Only the wrong ones, whatever the critic calls them.
    discriminability: float  # Share whose verdict matches the response's correctness.
    discriminability_right: float | None  # The same among right responses,
    discriminability_wrong: float | None  # and among wrong ones.
    helpfulness: float | None  # Share of wrong responses whose refinement is right.
    helpfulness_flagged: float | None  # The same among wrong responses the critic flagged.
    unparsable: int  # Critiques without a verdict; they count as mismatches, and as flagged.
    c2c: int  # Right before and after, refining all; and so on.
    c2i: int
    i2c: int
    i2i: int


def evaluate_critic(
    context: Context, name: str, actor: Sampler, critic: Sampler, solutions: Sequence[Solution]
) -> tuple[CriticReport, list[Refinement], dict[str, dict[str, int]]]:
    """Has each solution criticised and refined once, greedily; every one is shown to the critic.

    Returns:
      The report, the refinements, and what each stage cost.

    Raises:
      ValueError: there are no solutions.
    """
    if not solutions:
        raise ValueError("a critic cannot be evaluated on no solutions")
    critiques = criticise(context, f"{name}-criticise", critic, solutions, 1, 0.0)
    refinements = refine(context, f"{name}-refine", actor, list(critiques), 1, 0.0)
    costs = {f"{name}-criticise": costs_of(critiques), f"{name}-refine": costs_of(refinements)}
    return report_on(list(refinements)), list(refinements), costs


def report_on(refinements: Sequence[Refinement]) -> CriticReport:
    """Counts what one refinement of every response came to.

    Raises:
      ValueError: there are no refinements.
    """
    if not refinements:
        raise ValueError("a critic cannot be evaluated on no solutions")
    scores = table2_scores(refinements)
    rates = {name: _mean(column) for name, column in scores.items()}
    flows = [(r.critique.solution.correct, r.correct) for r in refinements]
    return CriticReport(
        n=len(refinements),
        **rates,  # pyright: ignore[reportArgumentType]
        unparsable=sum(r.critique.says_correct is None for r in refinements),
        c2c=flows.count((True, True)),
        c2i=flows.count((True, False)),
        i2c=flows.count((False, True)),
        i2i=flows.count((False, False)),
    )


def table2_scores(refinements: Sequence[Refinement]) -> dict[str, Scores]:
    """Returns every column of Table 2 as scores by problem: of those problems it is about.

    A column about wrong responses alone, say, has no score for the others. Each problem must have
    one response.
    """
    columns: dict[str, Scores] = {
        name: {}
        for name in (
            "accuracy_without",
            "accuracy_refine_all",
            "accuracy_refine_flagged",
            "accuracy_oracle",
            "discriminability",
            "discriminability_right",
            "discriminability_wrong",
            "helpfulness",
            "helpfulness_flagged",
        )
    }
    for refinement in refinements:
        critique = refinement.critique
        before, after = critique.solution.correct, refinement.correct
        flagged = critique.says_correct is not True
        matches = critique.says_correct == before
        found = {
            "accuracy_without": before,
            "accuracy_refine_all": after,
            "accuracy_refine_flagged": after if flagged else before,
            "accuracy_oracle": before or after,
            "discriminability": matches,
            f"discriminability_{'right' if before else 'wrong'}": matches,
        }
        if not before:
            found["helpfulness"] = after
            if flagged:
                found["helpfulness_flagged"] = after
        for name, score in found.items():
            columns[name][critique.solution.problem.id] = float(score)
    return columns


def critique_answers(critiques: Sequence[Critique]) -> dict[str, int]:
    """Returns how many critiques call their response correct, wrong, or neither."""
    verdicts = [critique.says_correct for critique in critiques]
    return {
        "correct": verdicts.count(True),
        "wrong": verdicts.count(False),
        "unparsable": verdicts.count(None),
    }


def _mean(scores: Scores) -> float | None:
    return sum(scores.values()) / len(scores) if scores else None
