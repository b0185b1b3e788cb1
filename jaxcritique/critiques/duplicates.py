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
    words = _words(text)
    count = max(1, len(words) - n + 1) if words else 0
    return frozenset(words[i : i + n] for i in range(count))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(text))


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
      n: words in a gram; of a test question of fewer words the whole is one.
      threshold: share of the shorter question's n-grams (0 to 1). A problem is contaminated if one
        test question shares at least this much with it.

    Returns:
      The clean and the contaminated problems.
    """
    holders: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    theirs: list[tuple[int, int]] = []  # Of each test question: words in its grams, and how many.
    for number, test in enumerate(tests):
        size = min(n, len(_words(test.question)))
        found = grams(test.question, n)
        theirs.append((size, len(found)))
        for gram in found:
            holders[gram].append(number)
    sizes = {size for size, count in theirs if count}
    clean, contaminated = [], []
    for problem in problems:
        mine = {size: grams(problem.question, size) for size in sizes}
        shared = collections.Counter(
            number for gram in Grams().union(*mine.values()) for number in holders.get(gram, ())
        )
        given_away = any(
            count >= threshold * min(len(mine[theirs[number][0]]), theirs[number][1])
            for number, count in shared.items()
        )
        (contaminated if given_away else clean).append(problem)
    return clean, contaminated


def _likeness(mine: Grams, other: Grams) -> float:
    union = len(mine | other)
    return len(mine & other) / union if union else 1.0
