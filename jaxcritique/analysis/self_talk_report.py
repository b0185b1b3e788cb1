"""What `experiments/self_talk.py` found: Table 5, its comparisons, and a page."""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxcritique.analysis.intervals import paired_difference
from jaxcritique.analysis.methods import ALONE, METRICS, Method, named, one_round
from jaxcritique.analysis.page import (
    Row,
    Table,
    bounds_cell,
    costs_table,
    difference_cell,
    share_cell,
)
from jaxcritique.analysis.report import write_page
from jaxcritique.analysis.table import percent
from jaxcritique.records import Problem
from jaxcritique.testtime.rounds import PROTOCOLS, Chain, Protocol
from jaxcritique.testtime.scores import Point, one_answer_point, parallel_points
from jaxcritique.testtime.voting import Same

SELF_CORRECTION, SELF_TALK = named("self-correction"), named("self-talk")
# As Table 5 has them, best last.
METHODS = (ALONE, SELF_CORRECTION, SELF_TALK, *map(one_round, PROTOCOLS))
# The answer is final as it stands: nobody is asked about it.
UNTOUCHED = Protocol(lambda answer: False, lambda critique: False)


def method_points(
    problems: Sequence[Problem],
    method: Method,
    protocol: Protocol,
    greedy: Sequence[Chain],
    sampled: Sequence[Chain],
    ks: Sequence[int],
    same: Same,
) -> list[Point]:
    """Scores a method: one greedy answer a problem, and Maj@K and Pass@K of samples.

    Args:
      problems: all of them.
      method: what is scored.
      protocol: what becomes of each answer.
      greedy: one chain a problem.
      sampled: the largest K of them, or more.
      ks: the K.
      same: when two answers are one.

    Raises:
      ValueError: a problem has fewer chains than the largest K; it is named.
    """
    point = one_answer_point(method, [chain.cut(protocol, 1) for chain in greedy])
    return [point, *parallel_points(problems, method, protocol, sampled, ks, same)]


def comparisons(points: Sequence[Point], seed: int) -> list[dict[str, Any]]:
    """Compares every method with those before it in Table 5, at the same metric and K."""
    rows = []
    ranked = sorted(points, key=lambda point: METHODS.index(point.method))
    for rival, point in itertools.combinations(ranked, 2):
        if (point.metric, point.k) != (rival.metric, rival.k):
            continue
        difference = paired_difference(point.scores, rival.scores, seed)
        rows.append(
            {
                "method": str(point.method),
                "metric": point.metric,
                "minus": str(rival.method),
                "minus_metric": rival.metric,
                "k": point.k,
                "difference": difference.mean,
                "ci95": difference.ci95,
            }
        )
    return rows


def self_talk_tables(results: Mapping[str, Any]) -> list[Table]:
    """Returns Table 5, with what a method without any check does, and the comparisons."""
    columns = list(dict.fromkeys((row["metric"], row["k"]) for row in results["points"]))
    found = {(row["method"], row["metric"], row["k"]): row for row in results["points"]}
    rows: list[tuple[str, ...]] = [
        ("Method", "Accuracy", "95% interval", *_titles(columns), "Tokens a problem")
    ]
    for method in dict.fromkeys(row["method"] for row in results["points"]):
        greedy, *others = (found[method, *column] for column in columns)
        cells = (percent(greedy["mean"]), bounds_cell(greedy["ci95"]), *map(share_cell, others))
        rows.append((_title(method), *cells, f"{greedy['tokens']:.0f}"))
    note = (
        "Accuracy and tokens: one greedy answer. Maj@K and Pass@K: expected over samples, with "
        "intervals."
    )
    compared: dict[tuple[str, str], dict[tuple[str, int], Row]] = {}
    for row in results["differences"]:
        pair = _title(row["method"]), _title(row["minus"])
        compared.setdefault(pair, {})[row["metric"], row["k"]] = row
    differences: list[tuple[str, ...]] = [("Method", "minus", "Accuracy", *_titles(columns))]
    for pair, at in compared.items():
        differences.append((*pair, *(difference_cell(at[column]) for column in columns)))
    return [
        Table("Table 5", rows, note),
        Table("Differences in percentage points", differences),
        costs_table(results),
    ]


def write_self_talk(results: Mapping[str, Any], run_dir: pathlib.Path) -> None:
    """Writes report.html. All text of models is escaped: it is untrusted."""
    tables = self_talk_tables(results)
    write_page("self_talk.html.jinja", results, run_dir / "report.html", tables=tables, figures=[])


def _titles(columns: Iterable[tuple[str, int]]) -> list[str]:
    return [METRICS[metric].replace("K", str(k)) for metric, k in columns if metric != "greedy"]


def _title(method: str) -> str:
    titles = {
        str(ALONE): "SFT, response only",
        str(SELF_CORRECTION): "Self-correction",
        str(SELF_TALK): "Self-talk via critique",
    }
    return titles.get(method, f"SFT + test-time critic, {method}")
