"""Figure 9: what a critic brings actors of several sizes, as tables, a figure and a page."""

from collections.abc import Mapping
from typing import Any

from jaxcritique.analysis import page
from jaxcritique.analysis.methods import ALONE

MOST_CRITICS = 3  # That one figure's colours tell apart.
_NO_CRITIC = str(ALONE)
_DRAWN = (_NO_CRITIC, "refine_all", "oracle")  # Methods, as in Figure 9.


def scaling_tables(results: Mapping[str, Any]) -> list[page.Table]:
    """Returns Figure 9's numbers, the gains over each actor alone, and the costs."""
    rows, gains = [], []
    for name, by_size in _series(results).items():
        rows.append((name, *map(page.share_cell, by_size)))
        if by_size[0]["critic"] is not None:
            cells = (page.gain_cell(row["gain"], row["gain_ci95"]) for row in by_size)
            gains.append((name, *cells))
    head = ("Method", *(row["actor"] for row in _series(results)[_NO_CRITIC]))
    return [
        page.Table("Accuracy of actors by size (Figure 9)", [head, *rows], "One greedy answer."),
        page.Table("Gain over the same actor alone, in percentage points", [head, *gains]),
        page.costs_table(results),
    ]


def scaling_figure(results: Mapping[str, Any]) -> page.Figure:
    """Draws Figure 9."""
    drawn = [
        {**row, "series": name, "millions": row["parameters"] / 10**6}
        for name, by_size in _series(results).items()
        for row in by_size
        if row["method"] in _DRAWN
    ]
    return page.Figure(
        "accuracy_by_size",
        "Accuracy against the actor's size, with 95% intervals (Figure 9 of the paper)",
        page.curves(drawn, "millions", "Parameters of the actor, millions"),
        results["rows"],
    )


def _series(results: Mapping[str, Any]) -> dict[str, list[page.Row]]:
    """The rows by method and critic, each list by size; the only critic has no number."""
    critics = list(dict.fromkeys(row["critic"] for row in results["rows"] if row["critic"]))
    series: dict[str, list[page.Row]] = {}
    for row in sorted(results["rows"], key=lambda row: (row["parameters"], row["actor"])):
        name = row["method"]
        if row["critic"] and len(critics) > 1:
            name = f"critic {critics.index(row['critic']) + 1}, {name}"
        series.setdefault(name, []).append(row)
    return series
