"""Test-time scaling from stored answers: scores by problem, then means, differences and levels.

A `Point` is one method at one K with a score for every problem. All that is reported is made of
points, so that whatever is compared is compared on the same problems.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, TypedDict

from jaxcritique.analysis.intervals import Estimate, accuracy, paired_difference
from jaxcritique.analysis.levels import level_of
from jaxcritique.analysis.methods import ALONE, BASELINES, MULTIPLES, SHARE, VOTE, Method
from jaxcritique.records import Problem, Solution
from jaxcritique.testtime import voting
from jaxcritique.testtime.rounds import Chain, RefineProtocol

_SAMPLED = {"maj": voting.majority_at, "pass": voting.pass_at}


class About(TypedDict):
    """What a row of results.json or scores.jsonl is about."""

    method: str
    metric: str
    k: int


@dataclasses.dataclass(frozen=True)
class Point:
    """A method at one K."""

    method: Method
    metric: str  # A key of `methods.METRICS`, SHARE or VOTE.
    k: int  # Of the methods with a critic; what a method without one has to be compared with.
    samples: float  # Answers a problem that are voted on or looked at.
    tokens: float  # Generated for a problem, on average.
    scores: Mapping[str, float]  # By problem id, each from 0 to 1.

    @property
    def about(self) -> About:
        """What its rows are about."""
        return {"method": str(self.method), "metric": self.metric, "k": self.k}


class Estimated(TypedDict):
    """A mean over problems (0 to 1) in results.json."""

    mean: float
    ci95: tuple[float, float]


class WithGain(Estimated):
    """The same, with the gain over the actor alone; None where that is not compared."""

    gain: float | None
    gain_ci95: tuple[float, float] | None


class PointRow(About, Estimated):
    """A `Point` in results.json."""

    samples: float
    tokens: float


class DifferenceRow(About):
    """A method minus another one at the same K, paired by problem."""

    minus: str
    minus_metric: str
    difference: float
    ci95: tuple[float, float]


class LevelRow(About, WithGain):
    """A point among the problems of one difficulty level."""

    level: str
    problems: int


def greedy_points(answers: Sequence[Chain], protocols: Mapping[str, RefineProtocol]) -> list[Point]:
    """Scores one answer a problem, without a critic and after a round under each protocol.

    Args:
      answers: one chain a problem.
      protocols: by name; empty where there is no critic.
    """
    points = [one_answer_point(ALONE, [Chain(chain.response) for chain in answers])]
    for name, protocol in protocols.items():
        cut = [chain.cut(protocol, 1) for chain in answers]
        points.append(one_answer_point(Method("one round", name), cut))
    return points


def one_answer_point(method: Method, answers: Sequence[Chain]) -> Point:
    """Scores the last answer of one chain a problem."""
    scores = {chain.problem: float(chain.answers[-1].correct) for chain in answers}
    return Point(method, "greedy", 1, 1, fmean(chain.tokens for chain in answers), scores)


def parallel_points(
    problems: Sequence[Problem],
    method: Method,
    protocol: RefineProtocol,
    chains: Sequence[Chain],
    ks: Sequence[int],
    same: voting.Same,
) -> list[Point]:
    """Scores what comes of K responses with a round each: an expectation over subsets of them.

    Raises:
      ValueError: a problem has fewer chains than the largest K; it is named.
    """
    cut = [chain.cut(protocol, 1) for chain in chains]
    last = [(chain.problem, chain.answers[-1]) for chain in cut]
    ballots = _ballots(problems, last, same)
    tokens = fmean(chain.tokens for chain in cut)
    return _sampled_points(method, ballots, {k: k for k in ks}, tokens)


def sequential_points(
    problems: Sequence[Problem],
    method: Method,
    protocol: RefineProtocol,
    chains: Sequence[Chain],
    ks: Sequence[int],
    same: voting.Same,
) -> list[Point]:
    """Scores K rounds after one response: the vote, Pass@K and the final answer (section 6.3).

    The response and what each round leaves vote. If the protocol stops early, the last answer is
    repeated for the remaining rounds; a response that is not refined in parallel scaling is kept in
    the same way. Pass@K is of K answers, as there: those that the K rounds leave, without the
    response before them.

    Raises:
      ValueError: a problem has no chain, or one that ends where the protocol goes on.
    """
    whole = [chain.cut(protocol, max(ks)) for chain in chains]
    answers = [(chain.problem, answer) for chain in whole for answer in _after(chain, max(ks))]
    ballots = _ballots(problems, answers, same)
    points = []
    for k in ks:
        first = [ballot.first(k + 1) for ballot in ballots]
        for ballot in first:
            ballot.require(1)
        refined = [ballot.right[1:] for ballot in first]
        tokens = fmean(chain.cut(protocol, k).tokens for chain in whole)
        columns = {
            "maj": (first, [voting.majority(ballot) for ballot in first]),
            "pass": (refined, [any(right) for right in refined]),
            "final": (first, [ballot.right[-1] for ballot in first]),
        }
        names = [ballot.problem for ballot in first]
        for metric, (counted, right) in columns.items():
            scores = dict(zip(names, map(float, right), strict=True))
            points.append(Point(method, metric, k, fmean(map(len, counted)), tokens, scores))
    return points


def _after(chain: Chain, rounds: int) -> Iterator[voting.Answer]:
    """Yields the response, and the answer that stands after each round."""
    for number in range(rounds + 1):
        yield chain.answers[min(number, len(chain.answers) - 1)]


def alone_points(
    problems: Sequence[Problem],
    samples: Sequence[Solution],
    ks: Sequence[int],
    with_critic: Sequence[Point],
    price: float,
    same: voting.Same,
) -> list[Point]:
    """Scores the actor alone at K samples, and at the compute of methods with a critic.

    Those are compared with 2K and 3K samples, and with as many as generate the same tokens.

    Args:
      problems: all of them.
      samples: of each of them, in the order they were drawn.
      ks: the K.
      with_critic: points of methods with a critic; empty where there is none.
      price: tokens of a sample, on average.
      same: whether two answers are equal.

    Raises:
      ValueError: a problem has too few samples; it is named.
    """
    ballots = _ballots(problems, [(s.problem.id, s) for s in samples], same)
    points = []
    for baseline in BASELINES if with_critic else [ALONE]:
        samples_at = {k: baseline.multiple * k for k in ks}
        points += _sampled_points(baseline, ballots, samples_at, price)
    budgets: dict[Method, dict[int, float]] = {}
    for point in with_critic:
        budgets.setdefault(point.method, {})[point.k] = _worth(point, price)
    for method, samples_at in budgets.items():
        points += _sampled_points(Method("alone", tokens_of=method), ballots, samples_at, price)
    return points


def samples_needed(with_critic: Sequence[Point], price: float) -> int:
    """How many samples of each problem `alone_points` needs for methods with a critic."""
    largest = max(point.k for point in with_critic)
    return max(MULTIPLES[-1] * largest, *(math.ceil(_worth(p, price)) for p in with_critic))


def _worth(point: Point, price: float) -> float:
    """Returns how many samples of the actor alone generate the tokens of a point; at least one."""
    return max(1.0, point.tokens / price)


def _sampled_points(
    method: Method, ballots: Sequence[voting.Ballot], samples_at: Mapping[int, float], price: float
) -> list[Point]:
    """Scores, for each K, as many samples as `samples_at` says; a sample costs `price` tokens."""
    return [
        Point(
            method,
            metric,
            k,
            samples,
            samples * price,
            {ballot.problem: voting.between(at, ballot, samples) for ballot in ballots},
        )
        for metric, at in _SAMPLED.items()
        for k, samples in samples_at.items()
    ]


def _ballots(
    problems: Sequence[Problem], answers: Iterable[tuple[str, voting.Answer]], same: voting.Same
) -> list[voting.Ballot]:
    """Returns the ballot of every problem, empty where there is no answer to it."""
    given: dict[str, list[voting.Answer]] = {problem.id: [] for problem in problems}
    for problem, answer in answers:
        given[problem].append(answer)
    return [voting.cast(problem, answers, same) for problem, answers in given.items()]


def before_and_after(
    problems: Sequence[Problem],
    protocols: Mapping[Method, RefineProtocol],
    chains: Sequence[Chain],
    same: voting.Same,
) -> list[Point]:
    """Scores the same responses before and after a round each: their share right, their vote.

    Args:
      problems: all of them.
      protocols: by method.
      chains: as many of each problem.
      same: whether two answers are equal.

    Returns:
      Points with SHARE or VOTE as metric; the method is ALONE for what the responses were before.

    Raises:
      ValueError: a problem has no chain; it is named.
    """
    sides = {ALONE: [Chain(chain.response) for chain in chains]} | {
        method: [chain.cut(protocol, 1) for chain in chains]
        for method, protocol in protocols.items()
    }
    points = []
    for method, cut in sides.items():
        last = [(chain.problem, chain.answers[-1]) for chain in cut]
        ballots = _ballots(problems, last, same)
        for ballot in ballots:
            ballot.require(1)
        k = len(chains) // len(problems)
        tokens = k * fmean(chain.tokens for chain in cut)
        columns = {
            SHARE: {ballot.problem: fmean(ballot.right) for ballot in ballots},
            VOTE: {ballot.problem: float(voting.majority(ballot)) for ballot in ballots},
        }
        points += [Point(method, m, k, k, tokens, scores) for m, scores in columns.items()]
    return points


def differences(points: Sequence[Point], seed: int) -> list[DifferenceRow]:
    """Compares each method with a critic, at the same K, with its baselines.

    These are the points of `alone_points`; for a parallel method also the sequential one of its
    protocol, and for a sequential vote its final answer.
    """
    table = {(point.method, point.metric, point.k): point for point in points}
    rows: list[DifferenceRow] = []
    for (method, metric, k), point in table.items():
        for other, other_metric in _rivals(method, metric):
            rival = table.get((other, other_metric, k))
            if rival is not None:
                rows.append(difference_row(point, rival, seed))
    return rows


def difference_row(point: Point, rival: Point, seed: int) -> DifferenceRow:
    """Compares a point with another one of the same problems and K."""
    difference = paired_difference(point.scores, rival.scores, seed)
    return {
        **point.about,
        "minus": str(rival.method),
        "minus_metric": rival.metric,
        "difference": difference.mean,
        "ci95": difference.ci95,
    }


def _rivals(method: Method, metric: str) -> list[tuple[Method, str]]:
    """Returns what a method is compared with: methods and their metrics."""
    if method.kind == "alone":
        return []
    if metric == "greedy":
        return [(ALONE, metric)]
    rivals = [(baseline, metric) for baseline in BASELINES]
    rivals.append((Method("alone", tokens_of=method), metric))
    if method.kind == "parallel":
        sequential = Method("sequential", method.what)
        rivals.append((sequential, metric))
        if metric == "maj":
            rivals.append((sequential, "final"))
    elif metric == "maj":
        rivals.append((method, "final"))
    return rivals


def rows_of(points: Sequence[Point], seed: int) -> list[PointRow]:
    """Returns the points' means with their intervals, whose resamples `seed` decides."""
    return [
        {
            **point.about,
            "samples": point.samples,
            "tokens": point.tokens,
            **_estimated(accuracy(point.scores, seed)),
        }
        for point in points
    ]


def with_gain(
    scores: Mapping[str, float], alone: Mapping[str, float] | None, seed: int
) -> WithGain:
    """Returns the mean of scores by problem, and the gain over the actor alone on the same ones."""
    gain = None if alone is None else paired_difference(scores, alone, seed)
    return {
        **_estimated(accuracy(scores, seed)),
        "gain": gain and gain.mean,
        "gain_ci95": gain and gain.ci95,
    }


def _estimated(estimate: Estimate) -> Estimated:
    return {"mean": estimate.mean, "ci95": estimate.ci95}


def point_scores(problems: Sequence[Problem], points: Sequence[Point]) -> Iterator[dict[str, Any]]:
    """Yields every problem's scores, for comparisons with another run's."""
    return score_rows(problems, [(point.about, point.scores) for point in points])


def score_rows(
    problems: Iterable[Problem],
    scored: Sequence[tuple[Mapping[str, Any], Mapping[str, float]]],
    field: str = "score",
) -> Iterator[dict[str, Any]]:
    """Yields rows for scores.jsonl.

    Args:
      problems: those that rows are about.
      scored: what is scored, and the score of each of the problems.
      field: the name of a score.
    """
    for problem in problems:
        for about, scores in scored:
            level = {"problem": problem.id, "level": problem.level}
            yield {**level, **about, field: scores[problem.id]}


def by_level(problems: Sequence[Problem], points: Sequence[Point], seed: int) -> list[LevelRow]:
    """Returns means at each level, of greedy answers and of the largest K, with what is gained.

    The gain is that of methods with a critic over ALONE's point of the same metric and K.
    """
    largest = max(point.k for point in points)
    points = [point for point in points if point.metric == "greedy" or point.k == largest]
    alone = {(p.metric, p.k): p for p in points if p.method == ALONE}
    ordered = sorted(problems, key=level_of)
    rows: list[LevelRow] = []
    for level, group in itertools.groupby(ordered, level_of):
        ids = {problem.id for problem in group}
        for point in points:
            rival = alone.get((point.metric, point.k))
            there = None
            if rival is not None and point.method.kind != "alone":
                there = {id_: rival.scores[id_] for id_ in ids}
            here = {id_: point.scores[id_] for id_ in ids}
            rows.append(
                {
                    "level": level,
                    "problems": len(ids),
                    **point.about,
                    **with_gain(here, there, seed),
                }
            )
    return rows
