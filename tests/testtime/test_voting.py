"""Every metric against the loop over all subsets, on small random ballots."""

import itertools
import math
import random
from statistics import fmean

import pytest

from jaxcritique.grading import Grader
from jaxcritique.records import Problem, Solution
from jaxcritique.testtime.voting import (
    Ballot,
    between,
    cast,
    equality,
    majority,
    majority_at,
    pass_at,
)

PROBLEM = Problem("p-7", "2+3?", "5", "", "gsm8k")


def random_ballot(rng: random.Random, n: int) -> Ballot:
    """A ballot with ties and with answers that do not vote; some classes are right."""
    right = {vote: rng.random() < 0.4 for vote in range(4)} | {None: False}
    votes = [rng.choice([None, 0, 0, 1, 2, 3]) for _ in range(n)]
    return Ballot("p", tuple(votes), tuple(right[vote] for vote in votes))


def subsets(ballot: Ballot, k: int):
    """Every way to take k answers, in their order."""
    for chosen in itertools.combinations(range(len(ballot)), k):
        yield [(ballot.votes[i], ballot.right[i]) for i in chosen]


def vote(answers) -> bool:
    """The vote as one would count by hand: one more, one earlier."""
    best, winner = 0, False
    for option, right in answers:
        count = sum(other == option for other, _ in answers)
        if option is not None and count > best:  # Of equals the earlier one stays.
            best, winner = count, right
    return winner


@pytest.mark.parametrize("seed", range(60))
def test_expectations_are_means_over_all_subsets(seed):
    rng = random.Random(seed)
    ballot = random_ballot(rng, rng.randint(1, 9))
    for k in range(1, len(ballot) + 1):
        drawn = list(subsets(ballot, k))
        assert majority_at(ballot, k) == pytest.approx(fmean(map(vote, drawn)), abs=1e-12)
        passed = fmean(any(right for _, right in answers) for answers in drawn)
        assert pass_at(ballot, k) == pytest.approx(passed, abs=1e-12)
    assert majority(ballot) == vote(list(zip(ballot.votes, ballot.right, strict=True)))


@pytest.mark.parametrize("seed", range(8))
def test_the_mean_over_all_orders_does_not_depend_on_the_order(seed):
    """Whatever order the answers came in: averaged over all, the first K are a random K."""
    rng = random.Random(seed)
    ballot = random_ballot(rng, 6)
    order = list(range(6))
    for k in (1, 3, 5):
        shuffled, first = [], []
        for places in itertools.permutations(order):
            other = Ballot(
                "p", tuple(ballot.votes[i] for i in places), tuple(ballot.right[i] for i in places)
            )
            shuffled.append(majority_at(other, k))
            first.append(majority(other.first(k)))
        assert fmean(shuffled) == pytest.approx(fmean(first))


def test_one_sample_is_right_as_often_in_every_metric():
    ballot = Ballot("p", (0, None, 1, 0), (True, False, False, True))
    assert majority_at(ballot, 1) == pass_at(ballot, 1) == 0.5


def test_many_samples_are_counted_exactly():
    """Two classes and silence: who has more votes is then hypergeometric, term by term."""
    right, wrong, silent, k = 40, 45, 15, 25
    votes = [0, 1] * right + [1] * (wrong - right) + [None] * silent
    ballot = Ballot("p", tuple(votes), tuple(vote == 0 for vote in votes))
    strictly = sum(
        math.comb(right, r) * math.comb(wrong, w) * math.comb(silent, k - r - w)
        for r in range(k + 1)
        for w in range(r)
        if k >= r + w
    )
    tied = sum(
        math.comb(right, r) * math.comb(wrong, r) * math.comb(silent, k - 2 * r)
        for r in range(1, k // 2 + 1)
    )
    total = math.comb(100, k)
    assert strictly / total < majority_at(ballot, k) < (strictly + tied) / total
    reversed_ballot = Ballot("p", ballot.votes[::-1], ballot.right[::-1])
    swapped = Ballot("p", ballot.votes, tuple(vote == 1 for vote in votes))
    either = majority_at(ballot, k) + majority_at(swapped, k)
    nobody = math.comb(silent, k) if silent >= k else 0
    assert either == pytest.approx(1 - nobody / total)
    assert strictly / total < majority_at(reversed_ballot, k) < majority_at(ballot, k)


def test_ties_go_to_the_first_seen_and_silence_is_wrong():
    assert majority(Ballot("p", (None, 1, 0, 0, 1), (False, True, False, False, True)))
    assert not majority(Ballot("p", (0, 1), (False, True)))
    assert not majority(Ballot("p", (None, None), (False, False)))
    assert majority_at(Ballot("p", (None, None, None), (False,) * 3), 2) == 0
    assert majority_at(Ballot("p", (0, 0, 0), (True,) * 3), 2) == 1


@pytest.mark.parametrize("score", [majority_at, pass_at])
@pytest.mark.parametrize("k", [0, 3, 10])
def test_missing_samples_are_refused_by_name(score, k):
    with pytest.raises(ValueError, match="problem p-7 has 2 samples where K is"):
        score(Ballot("p-7", (0, 0), (True, True)), k)


def test_a_fractional_number_of_samples_lies_between():
    ballot = Ballot("p", (0, 1, 1, 0, 0), (True, False, False, True, True))
    assert between(pass_at, ballot, 2.0) == pass_at(ballot, 2)
    expected = 0.75 * majority_at(ballot, 2) + 0.25 * majority_at(ballot, 3)
    assert between(majority_at, ballot, 2.25) == pytest.approx(expected)
    assert between(pass_at, ballot, 5) == 1
    with pytest.raises(ValueError, match="5 samples where K is 6"):
        between(pass_at, ballot, 5.1)


def solutions(*answers: tuple[str | None, str]) -> list[Solution]:
    return [Solution(PROBLEM, "", verdict, answer) for answer, verdict in answers]


def test_equal_answers_vote_together_in_whatever_form():
    with Grader() as grader:
        ballot = cast(
            "p-7",
            solutions(
                ("1/2", "wrong"),
                ("5", "correct"),
                (None, "unparsable"),
                (r"\frac{1}{2}", "wrong"),
                ("((", "unparsable"),
                ("5.0", "correct"),
                ("0.5", "wrong"),
                ("7", "wrong"),
            ),
            equality(grader),
        )
    groups: dict[int | None, list[int]] = {}
    for position, choice in enumerate(ballot.votes):
        groups.setdefault(choice, []).append(position)
    assert sorted(groups.pop(None)) == [2, 4]
    assert sorted(groups.values()) == [[0, 3, 6], [1, 5], [7]]
    assert ballot.right == (False, True, False, False, False, True, False, False)
    assert not majority(ballot)


def test_comparing_is_symmetric_and_equal_strings_are_not_compared():
    class OneWay:
        asked = 0

        def grade_all(self, rows, kind):
            assert kind == "answer"
            self.asked += 1
            with Grader() as grader:
                right, wrong = grader.grade("1", "1"), grader.grade("1", "2")
            return [right if row == ("a", "b") else wrong for row in rows]

    grader = OneWay()
    same = equality(grader)  # pyright: ignore[reportArgumentType]
    assert same("a", "b")
    assert same("b", "a")
    assert not same("a", "c")
    assert grader.asked == 3
    cast("p", solutions(*[("x", "wrong")] * 50), same)
    assert grader.asked == 3


def test_a_chain_of_equal_answers_is_one_class_in_any_order():
    def near(first: str, second: str) -> bool:
        return abs(float(first) - float(second)) < 1.5

    for order in itertools.permutations(["1", "2", "3", "9"]):
        ballot = cast("p", solutions(*[(answer, "wrong") for answer in order]), near)
        votes = dict(zip(order, ballot.votes, strict=True))
        assert votes["1"] == votes["2"] == votes["3"] != votes["9"]
