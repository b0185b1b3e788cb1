import pytest

from jaxcritique.analysis.difficulty import rated
from jaxcritique.records import Problem, Solution


def rate(rights: list[int], wanted: int, edges: str) -> list[int | None]:
    """Levels of problems of which so many of `wanted` samples are right."""
    problems = [Problem(f"p-{i}", "?", "1", "", "gsm8k", level=9) for i in range(len(rights))]
    samples = [
        Solution(problem, "", "correct" if number < right else "wrong", None)
        for problem, right in zip(problems, rights, strict=True)
        for number in range(wanted)
    ]
    return [problem.level for problem in rated(problems, samples[::-1], wanted, edges)]


def test_fifths_of_a_hundred():
    rights = [0, 19, 20, 39, 40, 59, 60, 79, 80, 100]
    assert rate(rights, 100, "fifths") == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert rate([0, 1, 2, 3], 3, "fifths") == [5, 4, 2, 1]  # 0, 33, 67 and 100%.


def test_quantiles_hold_a_fifth_of_the_problems_each():
    assert rate([7, 3, 9, 1, 5, 8, 2, 6, 4, 10], 10, "quantiles") == [2, 4, 1, 5, 3, 2, 5, 3, 4, 1]


def test_equal_problems_are_of_one_level():
    levels = rate([10] * 6 + [0, 1, 2, 3], 10, "quantiles")
    assert levels == [2] * 6 + [5, 5, 4, 4]
    assert rate([4, 4, 4], 5, "quantiles") == [3, 3, 3]


@pytest.mark.parametrize("edges", ["fifths", "quantiles"])
def test_no_problem_and_missing_samples(edges):
    assert rated([], [], 100, edges) == []
    problems = [Problem(id_, "?", "1", "", "gsm8k") for id_ in ("a", "b")]
    samples = [Solution(problems[0], "", "wrong", None)] * 2
    with pytest.raises(ValueError, match=r"problem b has 0 samples .* where 2 are wanted"):
        rated(problems, samples, 2, edges)
