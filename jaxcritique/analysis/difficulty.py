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
        "Samples of the actor for each problem, used for nothing else, that tell its difficulty "
        "(paper: 100). 0: the levels are those of the data.",
        low=0,
    )
    difficulty: str = setting(
        EDGES[0],
        "Levels by fifths of 0 to 100% right samples, or with a fifth of the problems each.",
        choices=EDGES,
    )

    @property
    def levels_by(self) -> str:
        """Says what tells a problem's difficulty."""
        if not self.difficulty_samples:
            return "the data"
        return f"{self.difficulty_samples} samples, {self.difficulty}"


def rated(
    problems: Sequence[Problem], samples: Iterable[Solution], wanted: int, edges: str
) -> list[Problem]:
    """Returns the problems, each with the level that its samples say.

    Args:
      problems: what is rated.
      samples: of the actor, in any order.
      wanted: samples of each problem.
      edges: "fifths": level 1 are problems of which at least 80% of the samples are right, level 5
        those of which fewer than 20% are (the paper does not give its edges). "quantiles": each
        level has a fifth of the problems, but that equal shares of right samples are one level.

    Raises:
      ValueError: a problem has another number of samples than `wanted`; it is named.
    """
    right: dict[str, list[bool]] = collections.defaultdict(list)
    for sample in samples:
        right[sample.problem.id].append(sample.correct)
    for problem in problems:
        if len(right[problem.id]) != wanted:
            raise ValueError(
                f"problem {problem.id} has {len(right[problem.id])} samples to tell its difficulty "
                f"by where {wanted} are wanted."
            )
    counts = {problem.id: sum(right[problem.id]) for problem in problems}
    if edges == "fifths":
        fifth = {count: _LEVELS * count // wanted for count in counts.values()}
    else:
        fifth, below = {}, 0
        for count, many in sorted(collections.Counter(counts.values()).items()):
            # The middle one of those that are equal says where they all belong.
            fifth[count] = _LEVELS * (2 * below + many) // (2 * len(counts))
            below += many
    return [
        dataclasses.replace(problem, level=_LEVELS - min(fifth[counts[problem.id]], _LEVELS - 1))
        for problem in problems
    ]
