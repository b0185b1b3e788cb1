"""How good a critic is at test time (section 4.2): the columns of Table 2."""

import dataclasses
from collections.abc import Sequence

from jaxcritique.analysis.critic_report import TABLE2
from jaxcritique.records import Critique, Refinement, Solution
from jaxcritique.roles import Context, costs_of, criticise, refine
from jaxcritique.rollout.sampler import Sampler


@dataclasses.dataclass(frozen=True)
class CriticReport:
    """Table 2 for one critic: rates (0 to 1) and counts over responses."""

    n: int  # Responses, one a problem.
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


def score_critic(
    context: Context, name: str, actor: Sampler, critic: Sampler, solutions: Sequence[Solution]
) -> tuple[CriticReport, list[Refinement], dict[str, dict[str, int]]]:
    """Criticises and refines each solution once, greedily.

    Returns:
      The report, the refinements, and what each stage cost.

    Raises:
      ValueError: there are no solutions.
    """
    if not solutions:
        raise ValueError("A critic cannot be evaluated on no solutions.")
    critiques = criticise(context, f"{name}-criticise", critic, solutions, 1, 0.0)
    refinements = refine(context, f"{name}-refine", actor, list(critiques), 1, 0.0)
    costs = {f"{name}-criticise": costs_of(critiques), f"{name}-refine": costs_of(refinements)}
    return report_on(list(refinements)), list(refinements), costs


def report_on(refinements: Sequence[Refinement]) -> CriticReport:
    """Returns Table 2 from one refinement of every response.

    Raises:
      ValueError: there are no refinements.
    """
    if not refinements:
        raise ValueError("A critic cannot be evaluated on no solutions.")
    rates = {name: _mean(scores) for name, scores in table2_scores(refinements).items()}
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


def table2_scores(refinements: Sequence[Refinement]) -> dict[str, dict[str, float]]:
    """Returns the score (0 or 1) of each problem in every column of Table 2 that it counts for.

    Helpfulness, for example, has no scores of problems whose response is right.

    Args:
      refinements: one of each problem's only response.
    """
    columns: dict[str, dict[str, float]] = {name: {} for name in TABLE2}
    for refinement in refinements:
        critique = refinement.critique
        before, after = critique.solution.correct, refinement.correct
        flagged = critique.says_correct is not True
        matches = critique.says_correct == before
        scores = {
            "accuracy_without": before,
            "accuracy_refine_all": after,
            "accuracy_refine_flagged": after if flagged else before,
            "accuracy_oracle": before or after,
            "discriminability": matches,
            f"discriminability_{'right' if before else 'wrong'}": matches,
        }
        if not before:
            scores["helpfulness"] = after
            if flagged:
                scores["helpfulness_flagged"] = after
        for name, score in scores.items():
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


def _mean(scores: dict[str, float]) -> float | None:
    return sum(scores.values()) / len(scores) if scores else None
