"""How a claim is measured: its aspects, each a difference with an interval, and the verdict.

A claim is made of aspects, differences between two methods on the same problems (or between two
groups of problems), each written so that the claim says it is above zero. An aspect's interval
resamples problems, each with its scores in all seeds at once: the test problems are the same in
every seed, so scores of one problem are not independent of each other, and a mean over seeds is
less noisy than one run. Such an interval says what other problems would change, not what further
seeds would; the effect in each seed is therefore given beside it.

An aspect holds if its 95% interval lies above zero (or begins there, where the claim says "at
least"), and does not if it lies below. A claim holds if all its aspects do (a conjunction, so no
correction for their number is due), does not if one of them does not, and is undecided otherwise.
"Does not hold" is not corrected: of a claim with six aspects, none of which makes a difference,
chance alone says so up to 15 times in a hundred. What is reported as its effect is the first
aspect's.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from experiments.reproduction.evidence import (
    Evidence,
    Levels,
    NotMeasured,
    Scores,
    level_in,
    minus,
    training_rows,
    with_levels,
)
from jaxcritique.analysis.intervals import Estimate, block_difference
from jaxcritique.analysis.levels import HARD

FEWEST = 10  # Problems on a side below which resampling them says nothing.

Blocks = Mapping[int, Mapping[str, Sequence[float]]]  # Seed, problem, and its scores or rows.
Lookup = Callable[[], Scores]  # May raise NotMeasured: then only the aspect that asks is missing.


@dataclasses.dataclass(frozen=True)
class Contrast:
    """The mean of `above` less that of `below`, by seed and problem."""

    above: Blocks
    below: Blocks


@dataclasses.dataclass(frozen=True)
class Aspect:
    """A difference that the claim says is above zero, or one reported beside the claim."""

    says: str
    contrast: Callable[[], Contrast]  # May raise NotMeasured.
    beside: bool = False
    at_least: bool = False  # Whether the claim says that it is zero or above.


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim and how it is measured."""

    id: str
    says: str
    where: str  # In the paper.
    paper: str  # The paper's figure.
    method: str  # How it is measured here.
    aspects: Callable[[Evidence, str], list[Aspect]]  # From evidence and the protocol.


def measure(claim: Claim, evidence: Evidence, protocol: str, seed: int = 0) -> dict[str, Any]:
    """Measures a claim.

    Args:
      claim: which.
      evidence: what the programs left.
      protocol: which answers are refined (`testtime.rounds.PROTOCOLS`), where a critic is used.
      seed: decides the bootstrap's resamples.

    Returns:
      {id, says, where, paper, method, holds, effect, ci95, n, seeds, why, aspects}, holds being
      "yes", "no", "undecided" or (no part of it) "unmeasured", effects shares (not points), n how
      many problems, seeds the effect in each. What could not be measured has None for numbers and
      says why.

    Raises:
      ValueError: records contradict each other.
    """
    try:
        aspects = claim.aspects(evidence, protocol)
    except NotMeasured as error:
        aspects = [Aspect(claim.says, _missing(str(error)))]
    measured = [_measured(aspect, evidence.runs, seed) for aspect in aspects]
    required = [found for found in measured if not found["beside"]]
    verdicts = [found["holds"] for found in required]
    alike = verdicts[0] if len(set(verdicts)) == 1 else "undecided"
    first = required[0]
    return {
        **{key: getattr(claim, key) for key in ("id", "says", "where", "paper", "method")},
        "holds": "no" if "no" in verdicts else alike,
        **{key: first[key] for key in ("effect", "ci95", "n", "seeds")},
        "why": "; ".join(dict.fromkeys(found["why"] for found in required if found["why"])),
        "aspects": measured,
    }


def _measured(aspect: Aspect, seeds: Iterable[int], seed: int) -> dict[str, Any]:
    """Measures an aspect; `seeds` are those that there could be, `seed` that of the bootstrap."""
    found: dict[str, Any] = {"says": aspect.says, "beside": aspect.beside, "holds": "unmeasured"}
    try:
        contrast = aspect.contrast()
        estimate = estimate_of(contrast, seed)
        above, below = _pooled(contrast.above).keys(), _pooled(contrast.below).keys()
        by_seed = {
            number: _mean(contrast.above[number]) - _mean(contrast.below[number])
            for number in contrast.above
        }
    except NotMeasured as error:
        return {**found, **dict.fromkeys(("effect", "ci95", "n", "seeds")), "why": str(error)}
    # One hard problem, say, never varies in resamples: the interval would be about easy ones alone.
    fewest = min(len(above), len(below))
    few = [f"{fewest} problems are too few"] if fewest < FEWEST else []
    lacking = ", ".join(str(number) for number in seeds if number not in by_seed)
    partial = [f"without seed {lacking}"] if lacking else []
    found |= {"effect": estimate.mean, "ci95": list(estimate.ci95)}
    found |= {"n": len(above | below), "seeds": by_seed}
    return {
        **found,
        "holds": "undecided" if few else verdict(estimate, aspect.at_least),
        "why": ", ".join([*few, *partial]),
    }


def verdict(estimate: Estimate, at_least: bool = False) -> str:
    """Says whether an effect above zero was seen: "yes", "no" (below it) or "undecided".

    Args:
      estimate: of the effect.
      at_least: whether zero itself is an effect as claimed.
    """
    low, high = estimate.ci95
    return "yes" if low > 0 or (at_least and low == 0) else "no" if high < 0 else "undecided"


def estimate_of(contrast: Contrast, seed: int = 0) -> Estimate:
    """Returns a contrast with its interval, problems resampled with their scores in all seeds."""
    return block_difference(_pooled(contrast.above), _pooled(contrast.below), seed)


def average(scores: Scores) -> Estimate:
    """Returns the mean score with such an interval."""
    return estimate_of(_against_zero(scores))


def share_contrast(e: Evidence, levels: Iterable[int | str]) -> Contrast:
    """Compares the share of these levels in the last training set, critique-in-the-loop - vanilla.

    Raises:
      NotMeasured: there is no training data, or its problems have no levels.
    """
    wanted = {str(level) for level in levels}
    sides = [
        {
            seed: {r["problem"]: [float(str(r["level"]) in wanted)] * r["rows"] for r in rows}
            for seed, rows in training_rows(e, method).items()
        }
        for method in ("critique", "vanilla")
    ]
    return Contrast(*sides)


def _pooled(blocks: Blocks) -> dict[str, list[float]]:
    """All seeds' scores of each problem."""
    pooled: dict[str, list[float]] = {}
    for problems in blocks.values():
        for problem, scores in problems.items():
            pooled.setdefault(problem, []).extend(scores)
    return pooled


def _mean(problems: Mapping[str, Sequence[float]]) -> float:
    return fmean(score for scores in problems.values() for score in scores)


def _missing(reason: str) -> Callable[[], Contrast]:
    def contrast() -> Contrast:
        raise NotMeasured(reason)

    return contrast


# ---- what aspects are made of


def scored(evidence: Evidence, part: str, **wanted: Any) -> Lookup:
    """Returns what looks up `Evidence.scores`."""
    return lambda: evidence.scores(part, **wanted)


def less(first: Lookup, second: Lookup) -> Lookup:
    """Returns what looks up two scores and subtracts the second, problem by problem."""
    return lambda: minus(first(), second())


def difference(
    says: str, above: Lookup, below: Lookup, beside: bool = False, at_least: bool = False
) -> Aspect:
    """Returns the aspect of one method less another on the same problems."""
    return Aspect(says, lambda: _against_zero(minus(above(), below())), beside, at_least)


def harder(says: str, gain: Lookup, levels: Callable[[], Levels]) -> Aspect:
    """Returns the aspect of a gain on problems of levels 4 and 5 less that on the others.

    It is of the seeds whose problems have levels.
    """

    def contrast() -> Contrast:
        hard: dict[int, dict[str, list[float]]] = {}
        easy: dict[int, dict[str, list[float]]] = {}
        of = levels()
        for seed, scores in with_levels(gain(), of).items():
            hard[seed], easy[seed] = {}, {}
            for problem, score in scores.items():
                side = hard if str(level_in(of, seed, problem)) in HARD else easy
                side[seed][problem] = [score]
            if not (hard[seed] and easy[seed]):
                raise NotMeasured(f"seed {seed}: all problems are of one kind, hard or easy")
        return Contrast(hard, easy)

    return Aspect(says, contrast)


def _against_zero(scores: Scores) -> Contrast:
    return Contrast(
        {seed: {p: [score] for p, score in found.items()} for seed, found in scores.items()},
        {seed: {p: [0.0] for p in found} for seed, found in scores.items()},
    )
