"""Duplicates among solutions, and problems that a test set also has.

Likeness is counted in word n-grams, numbers and signs being words: solutions of one problem that
differ in a single number differ in the n grams around it.
"""

import collections
import re
from collections.abc import Iterable, Sequence

from jaxcritique.records import Problem, Solution

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[-+*/=%$]")
Grams = frozenset[tuple[str, ...]]


def grams(text: str, n: int) -> Grams:
    """Returns the word n-grams of a text; a text of fewer words is one gram, an empty one none."""
    words = tuple(word.lower() for word in _WORD.findall(text))
    count = max(1, len(words) - n + 1) if words else 0
    return frozenset(words[i : i + n] for i in range(count))


def distinct(solutions: Sequence[Solution]) -> list[Solution]:
    """Drops solutions of a problem whose text another has; where they came from does not count."""
    first: dict[tuple[str, str], Solution] = {}
    for solution in solutions:
        first.setdefault((solution.problem.id, solution.text.strip()), solution)
    return list(first.values())


def without_near_duplicates(
    solutions: Sequence[Solution], n: int, threshold: float
) -> list[Solution]:
    """Drops solutions much like an earlier one of the same problem and the same verdict.

    Args:
      solutions: the earlier ones stay.
      n: words in a gram.
      threshold: the Jaccard likeness (0 to 1) from which on two are near duplicates.
    """
    kept: list[Solution] = []
    known: dict[tuple[str, bool], list[Grams]] = collections.defaultdict(list)
    for solution in solutions:
        mine = grams(solution.text, n)
        others = known[solution.problem.id, solution.correct]
        if not any(_likeness(mine, other) >= threshold for other in others):
            others.append(mine)
            kept.append(solution)
    return kept


def decontaminated(
    problems: Sequence[Problem], tests: Iterable[Problem], n: int, threshold: float
) -> tuple[list[Problem], list[Problem]]:
    """Splits problems into those fit for training and those that a test question gives away.

    Args:
      problems: of training.
      tests: those evaluated on.
      n: words in a gram.
      threshold: a problem is contaminated if so large a share of its question's grams is in the
        question of a single test problem.

    Returns:
      The clean and the contaminated problems.
    """
    holders: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    for number, test in enumerate(tests):
        for gram in grams(test.question, n):
            holders[gram].append(number)
    clean, contaminated = [], []
    for problem in problems:
        mine = grams(problem.question, n)
        shared = collections.Counter(number for gram in mine for number in holders.get(gram, ()))
        most = max(shared.values(), default=0)
        (contaminated if mine and most / len(mine) >= threshold else clean).append(problem)
    return clean, contaminated


def _likeness(mine: Grams, other: Grams) -> float:
    union = len(mine | other)
    return len(mine & other) / union if union else 1.0
