"""Difficulty levels from many samples of the actor (section 4.2.2): 1 (easy) to 5 (hard)."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from jaxcritique.config import Config, setting
from jaxcritique.records import Problem, Solution

EDGES = ("fifths", "quantiles")
_LEVELS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class DifficultyConfig(Config):
    """How problems are rated by difficulty."""

    difficulty_samples: int = setting(
        100,
        "Extra samples of the actor for each problem, to estimate its difficulty from (paper: "
        "100). 0: the levels of the data.",
        low=0,
    )
    difficulty: str = setting(
        EDGES[0],
        "Levels by fifths of 0 to 100% right samples, or with a fifth of the problems each.",
        choices=EDGES,
    )

    @property
    def levels_by(self) -> str:
        """What the levels are estimated from, for reports."""
        if not self.difficulty_samples:
            return "the data"
        return f"{self.difficulty_samples} samples, {self.difficulty}"


def rated(
    problems: Sequence[Problem], samples: Iterable[Solution], wanted: int, edges: str
) -> list[Problem]:
    """Returns the problems with levels estimated from samples.

    Args:
      problems: to be rated.
      samples: of the actor, in any order.
      wanted: number of samples of each problem.
      edges: "fifths": at level 1 at least 80% of a problem's samples are right, at level 5 fewer
        than 20% (the paper does not give its edges). "quantiles": each level has a fifth of the
        problems, except that problems with equal shares have one level.

    Raises:
      ValueError: a problem does not have `wanted` samples; it is named.
    """
    right: dict[str, list[bool]] = collections.defaultdict(list)
    for sample in samples:
        right[sample.problem.id].append(sample.correct)
    for problem in problems:
        if len(right[problem.id]) != wanted:
            raise ValueError(
                f"problem {problem.id} has {len(right[problem.id])} samples to estimate its "
                f"difficulty from, where {wanted} are wanted."
            )
    counts = {problem.id: sum(right[problem.id]) for problem in problems}
    if edges == "fifths":
        fifth = {count: _LEVELS * count // wanted for count in counts.values()}
    else:
        fifth, below = {}, 0
        for count, many in sorted(collections.Counter(counts.values()).items()):
            # Problems with equal counts have the level of the middle one.
            fifth[count] = _LEVELS * (2 * below + many) // (2 * len(counts))
            below += many
    return [
        dataclasses.replace(problem, level=_LEVELS - min(fifth[counts[problem.id]], _LEVELS - 1))
        for problem in problems
    ]
