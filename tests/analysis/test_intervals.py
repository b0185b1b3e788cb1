import numpy as np
import pytest

from jaxcritique.analysis import intervals
from jaxcritique.analysis.intervals import accuracy, paired_difference


def slow_bootstrap(values, resamples, seed):
    """The textbook loop: draw problems with replacement, average, take the percentiles."""
    rng = np.random.default_rng(seed)
    means = [
        np.mean([values[i] for i in rng.integers(len(values), size=len(values))])
        for _ in range(resamples)
    ]
    return np.quantile(means, [0.025, 0.975])


def scored(values):
    return {f"problem-{i}": value for i, value in enumerate(values)}


def test_interval_of_right_and_wrong_is_that_of_the_normal_approximation():
    right = np.random.default_rng(0).random(2000) < 0.4
    estimate = accuracy(scored(right), seed=1)
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / right.size)
    assert estimate.mean == pytest.approx(right.mean())
    assert estimate.ci95 == pytest.approx((right.mean() - half, right.mean() + half), abs=0.0015)


def test_interval_of_skewed_shares_is_that_of_the_slow_loop():
    shares = [0.0] * 20 + [0.2, 0.4, 0.6, 1.0, 1.0]
    estimate = accuracy(scored(shares), seed=1)
    assert estimate.mean == pytest.approx(np.mean(shares))
    assert estimate.ci95 == pytest.approx(slow_bootstrap(shares, 4000, seed=2), abs=0.015)


def test_difference_is_paired_by_problem_whatever_the_order():
    rng = np.random.default_rng(0)
    baseline = rng.random(300) < 0.5
    better = baseline | (rng.random(300) < 0.1)
    reversed_baseline = dict(reversed(scored(baseline).items()))
    estimate = paired_difference(scored(better), reversed_baseline, seed=1)
    differences = better.astype(float) - baseline
    assert estimate.mean == pytest.approx(differences.mean())
    assert estimate.ci95 == pytest.approx(slow_bootstrap(differences, 4000, seed=2), abs=0.006)
    assert estimate.ci95[0] > 0  # Which two unpaired intervals of +-6 points could not show.


def test_intervals_cover_the_true_value_95_percent_of_the_time(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    samples = rng.random((400, 200)) < 0.3
    bounds = [accuracy(scored(sample), seed=i).ci95 for i, sample in enumerate(samples)]
    assert 0.91 < np.mean([low <= 0.3 <= high for low, high in bounds]) < 0.98


def test_seed_decides_the_interval_and_order_does_not():
    values = np.random.default_rng(0).random(50)
    forwards = scored(values)
    backwards = dict(reversed(forwards.items()))
    assert accuracy(forwards, seed=3).ci95 == accuracy(backwards, seed=3).ci95
    assert accuracy(forwards, seed=3).ci95 != accuracy(forwards, seed=4).ci95


@pytest.mark.parametrize("values", [[1], [0], [True] * 40, [False] * 40, [0.3] * 7])
def test_equal_scores_give_a_point(values):
    estimate = accuracy(scored(values), seed=0)
    assert estimate.ci95 == (estimate.mean, estimate.mean)
    assert estimate.mean == pytest.approx(float(values[0]))


def test_a_method_does_not_differ_from_itself():
    scores = scored([True, False, True])
    assert paired_difference(scores, scores, seed=0) == intervals.Estimate(0.0, (0.0, 0.0))


def test_no_problems_and_unpaired_problems_are_refused():
    with pytest.raises(ValueError, match="no problems"):
        accuracy({}, seed=0)
    with pytest.raises(ValueError, match="no problems"):
        paired_difference({}, {}, seed=0)
    with pytest.raises(ValueError, match="3 problems"):
        paired_difference({"a": 1, "b": 0}, {"b": 1, "c": 0, "d": 0}, seed=0)


def test_interval_of_many_different_scores_is_that_of_the_slow_loop():
    shares = np.random.default_rng(0).random(120) ** 3
    estimate = accuracy(scored(shares), seed=1)
    assert estimate.mean == pytest.approx(shares.mean())
    assert estimate.ci95 == pytest.approx(slow_bootstrap(shares, 4000, seed=2), abs=0.006)
    assert accuracy(dict(reversed(scored(shares).items())), seed=1) == estimate
