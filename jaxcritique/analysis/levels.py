"""Results split by difficulty level: "1" (easy) to "5" (hard), or "unknown"."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean

from jaxcritique.records import Problem

UNKNOWN = "unknown"
HARD = ("4", "5")


def accuracy_by_level(problems: Iterable[Problem], scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the mean score (0 to 1) of each level that occurs.

    Args:
      problems: those to average over.
      scores: problem id to whether its answer is right, or to the share of its answers that are.

    Raises:
      KeyError: a problem has no score.
    """
    scores_at = defaultdict(list)
    for problem in problems:
        scores_at[level_of(problem)].append(float(scores[problem.id]))
    return {level: fmean(scores_at[level]) for level in sorted(scores_at)}


def share_by_level(problems: Iterable[Problem]) -> dict[str, float]:
    """Returns the share (0 to 1) of a training set's rows at each level that occurs.

    A problem counts once for every row that it has in the training set.
    """
    counts = Counter(level_of(problem) for problem in problems)
    return {level: counts[level] / counts.total() for level in sorted(counts)}


def hard_share(shares: Mapping[str, float]) -> float | None:
    """Returns the share of levels 4 and 5, or None where no level is known."""
    if not has_levels(shares):
        return None
    return sum(shares.get(level, 0.0) for level in HARD)


def has_levels(by_level: Mapping[str, float]) -> bool:
    """Returns whether any level is known; problems of GSM8K have none."""
    return bool(by_level.keys() - {UNKNOWN})


def level_of(problem: Problem) -> str:
    """Names the level of a problem."""
    return UNKNOWN if problem.level is None else str(problem.level)
