"""Means over problems with 95% bootstrap intervals.

The problem is the unit that is resampled: the samples of one problem are not independent of each
other, and two methods are compared on the same problems.

Not `scipy.stats.bootstrap`: of right and wrong answers only counts need to be resampled, which is
faster, and its resamples would differ from those behind published intervals.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 10_000
_FEW = 50  # Up to so many distinct scores it is cheaper to resample their counts.
_PARTS = 20  # Otherwise resamples are drawn in so many parts, to bound memory.


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


def block_difference(
    above: Mapping[str, Sequence[float]], below: Mapping[str, Sequence[float]], seed: int
) -> Estimate:
    """Returns the mean of all scores in `above` minus that in `below`, resampling problems.

    A problem is drawn with all its scores on both sides, those of several runs for example, which
    are not independent of each other. The sides may be about different problems (hard and easy
    ones), or hold any number of scores of one (rows of a training set). Resamples in which a side
    has no score are left out.

    Raises:
      ValueError: a side has no scores.
    """
    problems = sorted(above.keys() | below.keys())
    sides = [[side.get(problem, ()) for problem in problems] for side in (above, below)]
    sizes = [[len(scores) for scores in side] for side in sides]
    if sizes[0] == sizes[1] and len(set(sizes[0])) == 1 and sizes[0][0]:
        sums = [np.array([sum(scores) for scores in side], np.float64) for side in sides]
        return _bootstrap((sums[0] - sums[1]) / sizes[0][0], seed)
    return of_block_means(lambda first, second: first - second, (above, below), seed)


def of_block_means(
    combine: Callable[..., Any], sides: Sequence[Mapping[str, Sequence[float]]], seed: int
) -> Estimate:
    """Returns `combine` of the mean of all scores on each side, resampling problems.

    `block_difference` is a special case.

    Args:
      combine: of one mean a side, or of arrays of them, element by element.
      sides: problem to its scores, however many.
      seed: decides the resamples.

    Raises:
      ValueError: a side has no scores.
    """
    problems = sorted(set().union(*sides))
    scores = [[side.get(problem, ()) for problem in problems] for side in sides]
    sums = [np.array([sum(column) for column in side], np.float64) for side in scores]
    sizes = [np.array([len(column) for column in side], np.float64) for side in scores]
    if not all(size.any() for size in sizes):
        raise ValueError("an interval from no scores was asked for")
    rng = np.random.default_rng(seed)
    resampled = []
    for _ in range(_PARTS):
        drawn = rng.integers(len(problems), size=(RESAMPLES // _PARTS, len(problems)))
        totals = np.stack([column[drawn].sum(axis=1) for column in sums])
        counts = np.stack([column[drawn].sum(axis=1) for column in sizes])
        whole = (counts > 0).all(axis=0)
        resampled.append(combine(*(totals[:, whole] / counts[:, whole])))
    low, high = np.quantile(np.concatenate(resampled), [0.025, 0.975])
    means = (total.sum() / size.sum() for total, size in zip(sums, sizes, strict=True))
    return Estimate(float(combine(*means)), (float(low), float(high)))


def _bootstrap(values: np.ndarray, seed: int) -> Estimate:
    """Resamples the mean of `values` [problems]."""
    if not values.size:
        raise ValueError("an interval over no problems was asked for")
    # A resample's mean depends only on how often each distinct value was drawn; right and wrong
    # answers have two or three, so these counts are drawn, not the problems.
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
