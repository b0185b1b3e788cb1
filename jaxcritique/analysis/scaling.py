"""Figure 9: what a critic brings actors of several sizes; scores, rows, tables and the figure."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxcritique.analysis import figures
from jaxcritique.analysis.evaluation_report import (
    Figure,
    Table,
    costs_table,
    csv_text,
    gain_cell,
    share_cell,
)
from jaxcritique.analysis.intervals import accuracy, paired_difference
from jaxcritique.analysis.report import write_page
from jaxcritique.records import Problem
from jaxcritique.store import write_atomically
from jaxcritique.testtime.rounds import PROTOCOLS
from jaxcritique.testtime.scores import ALONE

_COLUMNS = {name: f"accuracy_{name}" for name in PROTOCOLS}  # Of Table 2, by protocol.
_DRAWN = (ALONE, "refine_all", "oracle")  # As Figure 9 has them.
MOST_CRITICS = 3  # That one figure's colours tell apart.
_MILLION = 10**6


@dataclasses.dataclass(frozen=True)
class ActorScores:
    """One actor's scores by problem, with a critic or without."""

    actor: str  # Its name in tables.
    parameters: int
    critic: str | None
    method: str  # ALONE or a protocol.
    scores: Mapping[str, float]


def size_name(parameters: int) -> str:
    """Names a model by its size: 2.1M, 8.0B."""
    for unit, name in ((10**9, "B"), (_MILLION, "M")):
        if parameters >= unit:
            return f"{parameters / unit:.1f}{name}"
    return f"{parameters / 1000:.0f}k"


def actor_scores(
    actor: str, parameters: int, columns: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> list[ActorScores]:
    """Returns what Table 2's columns, by critic, say of one actor.

    Args:
      actor: its name.
      parameters: how many it has.
      columns: critic to column to scores, as `testtime.critic.table2_scores` returns them.
    """
    alone = next(iter(columns.values()))["accuracy_without"]
    found = [ActorScores(actor, parameters, None, ALONE, alone)]
    for critic, table in columns.items():
        for protocol, column in _COLUMNS.items():
            found.append(ActorScores(actor, parameters, critic, protocol, table[column]))
    return found


def scaling_rows(found: Sequence[ActorScores], seed: int) -> list[dict[str, Any]]:
    """Returns means with their intervals, and the gain over the same actor alone."""
    alone = {scored.actor: scored.scores for scored in found if scored.method == ALONE}
    rows = []
    for scored in found:
        row = dataclasses.asdict(scored)
        del row["scores"]
        estimate = accuracy(scored.scores, seed)
        row |= {"mean": estimate.mean, "ci95": estimate.ci95, "gain": None, "gain_ci95": None}
        if scored.method != ALONE:
            gain = paired_difference(scored.scores, alone[scored.actor], seed)
            row |= {"gain": gain.mean, "gain_ci95": gain.ci95}
        rows.append(row)
    return rows


def scaling_score_rows(
    problems: Sequence[Problem], found: Sequence[ActorScores]
) -> Iterator[dict[str, Any]]:
    """Yields every problem's scores, as `evaluation.score_rows` does, of each actor and critic."""
    for problem in problems:
        for scored in found:
            yield {
                "problem": problem.id,
                "level": problem.level,
                "actor": scored.actor,
                "parameters": scored.parameters,
                "critic": scored.critic,
                "method": scored.method,
                "metric": "greedy",
                "k": 1,
                "score": scored.scores[problem.id],
            }


def scaling_tables(results: Mapping[str, Any]) -> list[Table]:
    """Returns Figure 9's numbers, the gains over each actor alone, and the costs."""
    rows, gains = [], []
    for critic, methods in _series(results).items():
        for method, by_size in methods.items():
            name = _label(results, critic, method)
            rows.append((name, *(share_cell(row) for row in by_size)))
            if method != ALONE:
                cells = (gain_cell(row["gain"], row["gain_ci95"]) for row in by_size)
                gains.append((name, *cells))
    head = ("Method", *(f"{row['actor']}" for row in _series(results)[None][ALONE]))
    return [
        Table("Accuracy of actors by size (Figure 9)", [head, *rows], "One greedy answer."),
        Table("Gain over the same actor alone, in percentage points", [head, *gains]),
        costs_table(results),
    ]


def write_scaling(results: Mapping[str, Any], run_dir: pathlib.Path) -> None:
    """Writes report.html, and the figure's numbers to figures/accuracy_by_size.csv."""
    drawn = {
        _label(results, critic, method): [
            (row["parameters"] / _MILLION, row["mean"], *row["ci95"]) for row in by_size
        ]
        for critic, methods in _series(results).items()
        for method, by_size in methods.items()
        if method in _DRAWN
    }
    figure = Figure(
        "accuracy_by_size",
        "Accuracy against the actor's size, with 95% intervals (Figure 9 of the paper)",
        figures.curves(drawn, "Parameters of the actor, millions"),
        results["rows"],
    )
    write_atomically(run_dir / "figures" / f"{figure.name}.csv", csv_text(figure.rows))
    tables, page = scaling_tables(results), run_dir / "report.html"
    write_page("scaling.html.jinja", results, page, tables=tables, figures=[figure])


def _series(results: Mapping[str, Any]) -> dict[str | None, dict[str, list[Mapping[str, Any]]]]:
    """The rows by critic, then method, each list by size."""
    found: dict[str | None, dict[str, list[Mapping[str, Any]]]] = {}
    for row in sorted(results["rows"], key=lambda row: (row["parameters"], row["actor"])):
        found.setdefault(row["critic"], {}).setdefault(row["method"], []).append(row)
    return found


def _label(results: Mapping[str, Any], critic: str | None, method: str) -> str:
    """Names a series; the critic is left out where there is only one."""
    critics = list(dict.fromkeys(row["critic"] for row in results["rows"] if row["critic"]))
    return f"critic {critics.index(critic) + 1}, {method}" if critic and critics[1:] else method
