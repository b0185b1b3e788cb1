import pytest

from jaxcritique.analysis.levels import accuracy_by_level, hard_share, share_by_level
from jaxcritique.records import Problem


def problems_at(*levels):
    return [Problem(f"p{i}", "?", "1", "", "math", level) for i, level in enumerate(levels)]


def test_accuracy_is_averaged_within_each_level():
    problems = problems_at(5, 1, 1, None, 5)
    scores = {"p0": False, "p1": True, "p2": False, "p3": True, "p4": 0.5, "elsewhere": True}
    expected = {"1": 0.5, "5": 0.25, "unknown": 1.0}
    assert accuracy_by_level(problems, scores) == expected
    assert list(accuracy_by_level(problems, scores)) == list(expected)


def test_a_problem_without_a_score_is_not_passed_over():
    with pytest.raises(KeyError, match="p1"):
        accuracy_by_level(problems_at(1, 2), {"p0": True})


def test_shares_add_up_and_count_every_row():
    problems = problems_at(1, 4, 5, None)
    shares = share_by_level([*problems, problems[1]])
    assert shares == {"1": 0.2, "4": 0.4, "5": 0.2, "unknown": 0.2}
    assert hard_share(shares) == pytest.approx(0.6)


def test_hard_share_is_unknown_without_levels_and_zero_without_hard_problems():
    assert share_by_level([]) == {}
    assert hard_share({}) is None
    assert hard_share(share_by_level(problems_at(None, None))) is None
    assert hard_share(share_by_level(problems_at(1, 2))) == 0.0
