"""Table 5: scores and comparisons of its methods, as tables and a page."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxcritique.analysis import page
from jaxcritique.analysis.methods import ALONE, METRICS, Method
from jaxcritique.analysis.table import percent
from jaxcritique.records import Problem
from jaxcritique.testtime.rounds import PROTOCOLS, Chain, RefineProtocol
from jaxcritique.testtime.scores import (
    DifferenceRow,
    Point,
    difference_row,
    one_answer_point,
    parallel_points,
)
from jaxcritique.testtime.voting import Same

SELF_CORRECTION, SELF_TALK = Method("named", "self-correction"), Method("named", "self-talk")
# In the order of Table 5, the best last.
METHODS = (ALONE, SELF_CORRECTION, SELF_TALK, *(Method("one round", name) for name in PROTOCOLS))
# Every answer is final: no critique, no refinement.
UNTOUCHED = RefineProtocol(lambda answer: False, lambda critique: False)


def method_points(
    problems: Sequence[Problem],
    method: Method,
    protocol: RefineProtocol,
    greedy: Sequence[Chain],
    sampled: Sequence[Chain],
    ks: Sequence[int],
    same: Same,
) -> list[Point]:
    """Scores a method: one greedy answer to each problem, and Maj@K and Pass@K of samples.

    Args:
      problems: all of them.
      method: what is scored.
      protocol: which answers are refined.
      greedy: one chain for each problem.
      sampled: chains for each problem, as many as the largest K or more.
      ks: the K.
      same: whether two answers are equal.

    Raises:
      ValueError: a problem has fewer chains than the largest K; it is named.
    """
    point = one_answer_point(method, [chain.cut(protocol, 1) for chain in greedy])
    return [point, *parallel_points(problems, method, protocol, sampled, ks, same)]


def comparisons(points: Sequence[Point], seed: int) -> list[DifferenceRow]:
    """Compares every method with those before it in Table 5, at the same metric and K."""
    ranked = sorted(points, key=lambda point: METHODS.index(point.method))
    return [
        difference_row(point, rival, seed)
        for rival, point in itertools.combinations(ranked, 2)
        if (point.metric, point.k) == (rival.metric, rival.k)
    ]


def self_talk_tables(results: Mapping[str, Any]) -> list[page.Table]:
    """Returns Table 5 with the actor alone added, the differences, and the costs.

    Args:
      results: as in results.json.
    """
    columns = list(dict.fromkeys((row["metric"], row["k"]) for row in results["points"]))
    at_column = {(row["method"], row["metric"], row["k"]): row for row in results["points"]}
    rows: list[tuple[str, ...]] = [
        ("Method", "Accuracy", "95% interval", *_titles(columns), "Tokens a problem")
    ]
    for method in dict.fromkeys(row["method"] for row in results["points"]):
        greedy, *others = (at_column[method, *column] for column in columns)
        mean = percent(greedy["mean"]), page.bounds_cell(greedy["ci95"])
        cells = map(page.share_cell, others)
        rows.append((_title(method), *mean, *cells, f"{greedy['tokens']:.0f}"))
    note = (
        "Accuracy and tokens: one greedy answer. Maj@K and Pass@K: expected over samples, with "
        "intervals."
    )
    compared: dict[tuple[str, str], dict[tuple[str, int], page.Row]] = {}
    for row in results["differences"]:
        pair = _title(row["method"]), _title(row["minus"])
        compared.setdefault(pair, {})[row["metric"], row["k"]] = row
    differences: list[tuple[str, ...]] = [("Method", "minus", "Accuracy", *_titles(columns))]
    for pair, at in compared.items():
        differences.append((*pair, *(page.difference_cell(at[column]) for column in columns)))
    return [
        page.Table("Table 5", rows, note),
        page.Table("Differences in percentage points", differences),
        page.costs_table(results),
    ]


def _titles(columns: Iterable[tuple[str, int]]) -> list[str]:
    return [METRICS[metric].replace("K", str(k)) for metric, k in columns if metric != "greedy"]


def _title(method: str) -> str:
    titles = {
        str(ALONE): "SFT, response only",
        str(SELF_CORRECTION): "Self-correction",
        str(SELF_TALK): "Self-talk via critique",
    }
    return titles.get(method, f"SFT + test-time critic, {method}")
