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
from typing import Any, Literal

from experiments.reproduction.evidence import (
    Evidence,
    Levels,
    NotMeasured,
    SeedScores,
    at_levels,
    minus,
    training_rows,
)
from jaxcritique.analysis.intervals import Estimate, block_difference
from jaxcritique.analysis.levels import HARD

FEWEST = 10  # Problems on a side below which resampling them says nothing.
VERDICTS = {  # `holds` in words.
    "yes": "holds",
    "no": "does not hold",
    "undecided": "undecided",
    "unmeasured": "not measured",
}

Holds = Literal["yes", "no", "undecided", "unmeasured"]
Blocks = Mapping[int, Mapping[str, Sequence[float]]]  # Seed, problem, and its scores or rows.
Lookup = Callable[[], SeedScores]  # May raise NotMeasured: then only its aspect is missing.


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


@dataclasses.dataclass(frozen=True)
class MeasuredAspect:
    """An aspect and its effect, a share (not points); None where it is not measured."""

    says: str
    beside: bool
    holds: Holds
    effect: float | None = None
    ci95: tuple[float, float] | None = None
    n: int | None = None  # Problems.
    seeds: Mapping[int, float] | None = None  # The effect in each.
    why: str = ""  # It is not measured, or on less than it should be.


@dataclasses.dataclass(frozen=True)
class MeasuredClaim:
    """A claim with its measured aspects."""

    claim: Claim
    aspects: Sequence[MeasuredAspect]

    @property
    def required(self) -> list[MeasuredAspect]:
        """The aspects that the claim asserts."""
        return [aspect for aspect in self.aspects if not aspect.beside]

    @property
    def first(self) -> MeasuredAspect:
        """The aspect whose effect is reported as the claim's."""
        return self.required[0]

    @property
    def holds(self) -> Holds:
        """Whether all aspects do ("unmeasured": none of them was measured)."""
        verdicts = {aspect.holds for aspect in self.required}
        alike = self.first.holds if len(verdicts) == 1 else "undecided"
        return "no" if "no" in verdicts else alike

    @property
    def why(self) -> str:
        """Why aspects are not measured, or on less than they should be."""
        return "; ".join(dict.fromkeys(aspect.why for aspect in self.required if aspect.why))

    def to_json(self) -> dict[str, Any]:
        """Returns what results.json holds of it."""
        about = {
            key: getattr(self.claim, key) for key in ("id", "says", "where", "paper", "method")
        }
        effect = {key: getattr(self.first, key) for key in ("effect", "ci95", "n", "seeds")}
        aspects = [dataclasses.asdict(aspect) for aspect in self.aspects]
        return {**about, "holds": self.holds, **effect, "why": self.why, "aspects": aspects}


def measure(claim: Claim, evidence: Evidence, protocol: str, seed: int = 0) -> MeasuredClaim:
    """Measures a claim.

    Args:
      claim: which.
      evidence: the outputs of the parts.
      protocol: which answers are refined with a critic (`testtime.rounds.PROTOCOLS`).
      seed: decides the bootstrap's resamples.

    Raises:
      ValueError: records contradict each other.
    """
    try:
        aspects = claim.aspects(evidence, protocol)
    except NotMeasured as error:
        return MeasuredClaim(claim, [_unmeasured(claim.says, error)])
    return MeasuredClaim(claim, [_measured(aspect, evidence.outputs, seed) for aspect in aspects])


def _unmeasured(says: str, error: NotMeasured, beside: bool = False) -> MeasuredAspect:
    return MeasuredAspect(says, beside, "unmeasured", why=str(error))


def _measured(aspect: Aspect, seeds: Iterable[int], seed: int) -> MeasuredAspect:
    """Measures an aspect; `seeds` are those that there could be, `seed` that of the bootstrap."""
    try:
        contrast = aspect.contrast()
    except NotMeasured as error:
        return _unmeasured(aspect.says, error, aspect.beside)
    estimate = estimate_of(contrast, seed)
    above, below = _pooled(contrast.above).keys(), _pooled(contrast.below).keys()
    effects = {
        number: _mean(contrast.above[number]) - _mean(contrast.below[number])
        for number in contrast.above
    }
    # One hard problem, say, never varies in resamples: the interval would be about easy ones alone.
    fewest = min(len(above), len(below))
    few = [f"{fewest} problems are too few"] if fewest < FEWEST else []
    lacking = ", ".join(str(number) for number in seeds if number not in effects)
    partial = [f"without seed {lacking}"] if lacking else []
    return MeasuredAspect(
        says=aspect.says,
        beside=aspect.beside,
        holds="undecided" if few else verdict(estimate, aspect.at_least),
        effect=estimate.mean,
        ci95=estimate.ci95,
        n=len(above | below),
        seeds=effects,
        why=", ".join([*few, *partial]),
    )


def verdict(estimate: Estimate, at_least: bool = False) -> Holds:
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


def average(scores: SeedScores) -> Estimate:
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


# ---- what aspects are made of


def scored(evidence: Evidence, part: str, **wanted: Any) -> Lookup:
    """Returns a lookup by `Evidence.scores`."""
    return lambda: evidence.scores(part, **wanted)


def less(first: Lookup, second: Lookup) -> Lookup:
    """Returns a lookup of the difference of two scores, problem by problem."""
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
        of, scores = levels(), gain()
        hard = at_levels(scores, of, lambda level: str(level) in HARD)
        easy = at_levels(scores, of, lambda level: str(level) not in HARD)
        for seed in hard:
            if not (hard[seed] and easy[seed]):
                raise NotMeasured(f"seed {seed}: all problems are of one kind, hard or easy")
        return Contrast(_blocks(hard), _blocks(easy))

    return Aspect(says, contrast)


def _against_zero(scores: SeedScores) -> Contrast:
    zeros = {seed: dict.fromkeys(problems, 0.0) for seed, problems in scores.items()}
    return Contrast(_blocks(scores), _blocks(zeros))


def _blocks(scores: SeedScores) -> Blocks:
    return {
        seed: {problem: [score] for problem, score in problems.items()}
        for seed, problems in scores.items()
    }
