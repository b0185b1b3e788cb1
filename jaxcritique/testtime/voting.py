"""Pass@K and majority votes over the answers to a problem (sections 4.2.2 and 6.3).

The most frequent answer wins, where answers that the grader holds equal count as one; a tie goes to
the answer seen first. Responses without an answer that can be read do not vote.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxcritique.grading import Grader
from jaxcritique.records import Refinement, Solution

Answer = Solution | Refinement
Same = Callable[[str, str], bool]  # Whether two answers, alone and without their responses, agree.


@dataclasses.dataclass(frozen=True)
class Ballot:
    """The answers to one problem, in the order in which they were given."""

    problem: str  # Its id.
    votes: tuple[int | None, ...]  # The class of each answer, from 0; None: it does not vote.
    right: tuple[bool, ...]  # Whether each is right; a class is right if its first answer is.

    def __len__(self) -> int:
        return len(self.votes)

    def first(self, k: int) -> "Ballot":
        """The first `k` answers, or all where there are fewer."""
        return Ballot(self.problem, self.votes[:k], self.right[:k])

    def require(self, k: int) -> None:
        """Checks that `k` answers can be scored.

        Raises:
          ValueError: there are fewer than `k`, or `k` is not positive; the problem is named.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"problem {self.problem} has {len(self)} samples where K is {k}.")


def cast(problem: str, answers: Sequence[Answer], same: Same) -> Ballot:
    """Groups answers into classes: two are in one class if a chain of equal answers joins them.

    Whether an answer is right is not used: at test time it is not known.
    """
    readable = [a.answer if a.verdict != "unparsable" else None for a in answers]
    classes: list[list[str]] = []
    for answer in dict.fromkeys(filter(None, readable)):
        joined = [c for c in classes if any(same(answer, other) for other in c)]
        classes = [c for c in classes if c not in joined]
        classes.append([*(member for c in joined for member in c), answer])
    number = {answer: index for index, members in enumerate(classes) for answer in members}
    votes = tuple(number[answer] if answer else None for answer in readable)
    return Ballot(problem, votes, tuple(a.correct for a in answers))


def equality(grader: Grader) -> Same:
    """Returns the grader's comparison of two answers, made symmetric."""

    def same(first: str, second: str) -> bool:
        if first == second:
            return True
        rows = [(first, second), (second, first)]
        return any(grade.verdict == "correct" for grade in grader.grade_all(rows, "answer"))

    return same


def pass_at(ballot: Ballot, k: int) -> float:
    """Returns Pass@K: the probability that one of `k` answers drawn without replacement is right.

    The unbiased estimate from all n answers, 1 - C(n - right, k) / C(n, k) (arXiv 2107.03374).

    Raises:
      ValueError: there are fewer than `k` answers.
    """
    ballot.require(k)
    wrong = len(ballot) - sum(ballot.right)
    return 1 - math.comb(wrong, k) / math.comb(len(ballot), k)


def majority(ballot: Ballot) -> bool:
    """Whether the vote of all answers is right; without a vote it is wrong."""
    counts = collections.Counter(vote for vote in ballot.votes if vote is not None)
    if not counts:
        return False
    winner = max(counts, key=lambda vote: counts[vote])  # The first of the largest.
    return ballot.right[ballot.votes.index(winner)]


def majority_at(ballot: Ballot, k: int) -> float:
    """Returns Maj@K: the probability that the vote of `k` answers (without replacement) is right.

    The exact mean over all C(n, k) subsets, in each of which answers keep their order. A class wins
    a subset in which it has m votes, the first of them at position p, if every other class has
    fewer, or has m but none before p. These subsets are counted for each right class, p and m by
    multiplying polynomials, of which the coefficient of x^j counts the ways to take j answers. No
    other class can have as many as m where m is more than the largest of them has: such subsets
    all count.

    Raises:
      ValueError: there are fewer than `k` answers.
    """
    ballot.require(k)
    if k == len(ballot):
        return float(majority(ballot))
    places: dict[int, list[int]] = {}
    for position, vote in enumerate(ballot.votes):
        if vote is not None:
            places.setdefault(vote, []).append(position)
    choose = _binomials(len(ballot), k)
    silent = ballot.votes.count(None)
    won = 0.0
    for vote, own in places.items():
        if not ballot.right[own[0]]:
            continue
        most = min(len(own), k)
        others = [theirs for other, theirs in places.items() if other != vote]
        rest = len(ballot) - len(own)
        contested = min(most, max(map(len, others), default=0))
        m = np.arange(contested + 1, most + 1)
        m = m[k - m <= rest]
        won += (choose[len(own), m] * choose[rest, k - m]).sum()
        # Of the votes that are not the class's own, fewer than m come from each other class.
        m = np.arange(1, contested + 1)
        m = m[k - m <= rest]
        if not m.size:
            continue
        size = k - m[0] + 1
        # Axes: p (which of its own votes is the first), m, and the power of x.
        ways = np.zeros((len(own), len(m), size))
        ways[:, :, 0] = choose[len(own) - 1 - np.arange(len(own))][:, m - 1]
        ways = _times(ways, np.broadcast_to(choose[silent, :size], ways.shape), silent)
        for theirs in others:
            fewer = np.arange(k + 1) < m[:, None]
            factor = np.broadcast_to(choose[len(theirs)] * fewer, (*ways.shape[:2], k + 1)).copy()
            later = len(theirs) - np.searchsorted(theirs, own)
            factor[:, np.arange(len(m)), m] = choose[later][:, m]
            ways = _times(ways, factor[..., :size], min(len(theirs), m[-1]))
        won += ways[:, np.arange(len(m)), k - m].sum()
    return won / math.comb(len(ballot), k)


def between(at: Callable[[Ballot, int], float], ballot: Ballot, samples: float) -> float:
    """Scores a fractional number of answers, by linear interpolation between whole numbers.

    So a baseline can have exactly the tokens of another method.
    """
    whole = math.floor(samples)
    score = at(ballot, whole)
    if more := samples - whole:
        score += more * (at(ballot, whole + 1) - score)
    return score


def _times(left: np.ndarray, right: np.ndarray, degree: int) -> np.ndarray:
    """Multiplies polynomials, whose coefficients are along the last axis; higher powers are cut.

    Args:
      left: coefficients, [..., size].
      right: likewise.
      degree: of `right`, at most.
    """
    size = left.shape[-1]
    product = np.zeros_like(left)
    for power in range(min(size, degree + 1)):
        product[..., power:] += left[..., : size - power] * right[..., power : power + 1]
    return product


@functools.cache
def _binomials(n: int, k: int) -> np.ndarray:
    """Returns C(i, j) at [i, j] for i up to n and j up to k; whole numbers are exact to 2**53."""
    return np.array([[float(math.comb(i, j)) for j in range(k + 1)] for i in range(n + 1)])
