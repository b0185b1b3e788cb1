"""Means over problems with 95% bootstrap intervals.

The problem is the unit that is resampled: the samples of one problem are not independent of each
other, and two methods are compared on the same problems.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

RESAMPLES = 10_000
_FEW = 50  # Distinct scores up to which counting them is the cheaper way to resample.
_PARTS = 20  # Otherwise so many parts of the resamples are in memory after each other.


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over problems with its 95% percentile interval, in the unit of the scores."""

    mean: float
    ci95: tuple[float, float]  # A single point where all problems score the same.


def accuracy(scores: Mapping[str, float], seed: int) -> Estimate:
    """Returns the mean score of a method.

    Args:
      scores: problem id to whether its answer is right, or to the share of its answers that are.
      seed: decides the resamples; the order of `scores` does not matter.

    Raises:
      ValueError: there are no problems.
    """
    return _bootstrap(np.array(list(scores.values()), np.float64), seed)


def paired_difference(
    scores: Mapping[str, float], baseline: Mapping[str, float], seed: int
) -> Estimate:
    """Returns the mean of `scores` minus `baseline`, resampling problems with both their scores.

    Raises:
      ValueError: there are no problems, or the two do not score the same ones.
    """
    if unpaired := scores.keys() ^ baseline.keys():
        raise ValueError(f"{len(unpaired)} problems are scored by only one of the two methods")
    differences = [float(scores[problem]) - float(baseline[problem]) for problem in scores]
    return _bootstrap(np.array(differences, np.float64), seed)


def _bootstrap(values: np.ndarray, seed: int) -> Estimate:
    """Resamples the mean of `values`, one a problem."""
    if not values.size:
        raise ValueError("an interval over no problems was asked for")
    # A resample's mean depends only on how often each distinct value was drawn. There are two or
    # three of them for right and wrong answers, so these counts are drawn, not the problems.
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    if distinct.size <= _FEW:
        drawn = rng.multinomial(values.size, counts / values.size, size=RESAMPLES)
        means = drawn @ distinct / values.size
    else:
        ordered = np.repeat(distinct, counts)
        shape = RESAMPLES // _PARTS, values.size
        parts = (rng.integers(values.size, size=shape, dtype=np.int32) for _ in range(_PARTS))
        means = np.concatenate([ordered[part].mean(axis=1) for part in parts])
    low, high = np.quantile(means, [0.025, 0.975])
    # The mean is rounded as the resamples' means are, or it could lie outside a one-point interval.
    return Estimate(float(counts @ distinct / values.size), (float(low), float(high)))
