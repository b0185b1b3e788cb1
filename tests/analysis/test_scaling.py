"""Figure 9 from scores that are known."""

import csv

import pytest

from jaxcritique.analysis.page import write_report
from jaxcritique.analysis.scaling_report import scaling_figure, scaling_tables
from jaxcritique.records import Critique, Problem, Refinement, Solution
from jaxcritique.roles import COSTS
from jaxcritique.testtime.critic_metrics import table2_scores
from jaxcritique.testtime.scaling import (
    ScalingConfig,
    actor_scores,
    scaling_rows,
    scaling_score_rows,
    size_name,
)

ALONE = "no critic"
PROBLEMS = [Problem(f"p{i}", f"{i}?", "5", "", "gsm8k", level=i + 1) for i in range(4)]


def refinement(problem: Problem, before: bool, says: bool, after: bool) -> Refinement:
    verdict = {True: "correct", False: "wrong"}
    critique = Critique(Solution(problem, "x", verdict[before], "x"), "c", says, None)
    return Refinement(critique, "y", verdict[after], "y")


@pytest.fixture
def scored():
    """Right before, called right, right after; by problem, actor and critic."""
    plays = {
        ("small", "a"): [(0, 0, 1), (0, 1, 1), (1, 1, 0), (0, 0, 0)],
        ("small", "b"): [(0, 0, 0), (0, 1, 0), (1, 1, 1), (0, 0, 0)],
        ("large", "a"): [(1, 1, 1), (1, 1, 1), (1, 0, 0), (0, 0, 1)],
        ("large", "b"): [(1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)],
    }
    columns = {
        key: table2_scores(
            [refinement(p, *map(bool, flow)) for p, flow in zip(PROBLEMS, flows, strict=True)]
        )
        for key, flows in plays.items()
    }
    return [
        scored
        for actor, size in (("large", 4_400_000), ("small", 200_000))
        for scored in actor_scores(actor, size, {c: columns[actor, c] for c in "ab"})
    ]


def test_rows_hold_each_protocol_and_its_gain(scored):
    rows = {(r["actor"], r["critic"], r["method"]): r for r in scaling_rows(scored, seed=0)}
    assert len(rows) == 2 * (1 + 2 * 3)
    means = {
        method: rows["small", "a" if method != ALONE else None, method]["mean"]
        for method in (ALONE, "refine_all", "refine_flagged", "oracle")
    }
    assert means == {ALONE: 0.25, "refine_all": 0.5, "refine_flagged": 0.5, "oracle": 0.75}
    assert rows["small", "a", "oracle"]["gain"] == 0.5
    assert rows["large", "a", "refine_all"]["gain"] == 0.0
    assert rows["large", "b", "refine_all"]["gain_ci95"] == (0.0, 0.0)
    assert rows["large", None, ALONE]["gain"] is None


def test_scores_tell_actors_critics_and_methods_apart(scored):
    rows = list(scaling_score_rows(PROBLEMS, scored))
    keys = [(r["problem"], r["actor"], r["critic"], r["method"]) for r in rows]
    assert len(set(keys)) == len(rows) == 4 * len(scored)
    assert {r["level"] for r in rows} == {1, 2, 3, 4}
    alone = [r for r in rows if (r["actor"], r["method"]) == ("large", ALONE)]
    assert [r["score"] for r in alone] == [1, 1, 1, 0]


def test_tables_figure_and_numbers(scored, tmp_path):
    results = {
        "command": "python -m experiments.scaling",
        "seed": 0,
        "settings": {},
        "wall_seconds": 1.0,
        "peak_rss_bytes": 2**30,
        "task": "gsm8k",
        "problems": 4,
        "failed": 0,
        "critics": [{"name": "a", "parameters": 2_115_648}, {"name": "b", "parameters": None}],
        "rows": scaling_rows(scored, seed=0),
        "costs": {"small: respond": dict.fromkeys(COSTS, 7)},
    }
    accuracy, gains, _ = scaling_tables(results)
    assert accuracy.rows[0] == ("Method", "small", "large")  # By size.
    assert accuracy.rows[1][0] == ALONE
    assert [row[0] for row in gains.rows[1:]] == [
        f"critic {n}, {method}"
        for n in (1, 2)
        for method in ("refine_all", "refine_flagged", "oracle")
    ]
    drawn = [scaling_figure(results)]
    write_report("scaling.html.jinja", results, tmp_path, scaling_tables(results), drawn)
    page = (tmp_path / "report.html").read_text()
    assert "2,115,648 parameters" in page
    assert "critic 2, oracle" in page
    rows = list(csv.DictReader((tmp_path / "figures/accuracy_by_size.csv").open()))
    assert len(rows) == len(results["rows"])
    assert {row["parameters"] for row in rows} == {"200000", "4400000"}


@pytest.mark.parametrize(("parameters", "name"), [
    (209_344, "209k"), (2_115_648, "2.1M"), (1_543_714_304, "1.5B"), (999, "1k"),
])  # fmt: skip
def test_sizes_have_names(parameters, name):
    assert size_name(parameters) == name


@pytest.mark.parametrize(("settings", "message"), [
    ({"critic": ("checker",)}, "name actors with `actor_base` or `actor`"),
    ({"critic": 4 * ("checker",), "actor": ("a",)}, "`critic`: name at most 3"),
    ({"critic": ("checker",), "actor": ("a/b",), "actor_base": ("a/../a/b/.",)},
     "`actor_base=a/../a/b/.` is also an `actor`"),
])  # fmt: skip
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ScalingConfig(**settings)
