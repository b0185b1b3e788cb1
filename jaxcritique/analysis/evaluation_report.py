"""What an evaluation found, as tables, figures and a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxcritique.analysis import figures, page
from jaxcritique.analysis.levels import has_levels
from jaxcritique.analysis.methods import ALONE, BASELINES, METRICS, Method
from jaxcritique.analysis.table import percent

_NO_CRITIC = str(ALONE)


def evaluation_tables(results: Mapping[str, Any]) -> list[page.Table]:
    """Returns the tables of a `results.json`."""
    points = results["points"]
    ks = [f"K={k}" for k in _ks(results)]
    tables = [_greedy_table(results)]
    for metric in ("maj", "pass", "final"):
        rows = [
            (method, *map(page.share_cell, _points(points, method, metric)))
            for method in _methods(points, metric)
        ]
        if rows:
            tables.append(page.Table(METRICS[metric], [("Method", *ks), *rows], _NOTES[metric]))
    sampled = [row for row in results["differences"] if row["metric"] != "greedy"]
    if sampled:
        compared: dict[tuple[str, ...], list[str]] = {}
        for row in sampled:
            ours, theirs = METRICS[row["metric"]], METRICS[row["minus_metric"]]
            other = row["minus"] if ours == theirs else f"{row['minus']}: {theirs}"
            compared.setdefault((row["method"], ours, other), []).append(page.difference_cell(row))
        rows = [(*names, *cells) for names, cells in compared.items()]
        head = ("Method", "Metric", "minus", *ks)
        tables.append(page.Table("Differences in percentage points", [head, *rows]))
    if has_levels({row["level"]: 0.0 for row in results["by_level"]}):
        tables.append(_level_table(results))
    return [*tables, page.costs_table(results)]


def evaluation_figures(results: Mapping[str, Any]) -> list[page.Figure]:
    """Draws the curves by K and by tokens, and the levels where there are any."""
    points = results["points"]
    # A protocol has a greedy answer of its name.
    protocols = [name for name in _methods(points, "greedy") if name != _NO_CRITIC]
    sampled = set(_methods(points, "maj"))
    parallel, sequential = (
        {
            protocol: name
            for protocol in protocols
            if (name := str(Method(way, protocol))) in sampled
        }
        for way in ("parallel", "sequential")
    )
    critics = [*parallel.values(), *sequential.values()]
    baselines = [str(baseline) for baseline in BASELINES]

    def of(method: str, metric: str, series: str = "") -> list[page.Row]:
        return [{"series": series or method, **row} for row in _points(points, method, metric)]

    drawn = [
        _curves(
            "maj_at_k",
            "Majority vote against K (Figure 1 of the paper)",
            [row for method in (*baselines, *parallel.values()) for row in of(method, "maj")],
            "k",
        ),
        _curves(
            "maj_by_tokens",
            "Majority vote against the tokens generated for a problem",
            [
                *(row for method in baselines for row in of(method, "maj", _NO_CRITIC)),
                *(row for method in critics for row in of(method, "maj")),
            ],
            "tokens",
        ),
        _curves(
            "pass_at_k",
            "Pass@K against K (Figure 11 of the paper)",
            [row for method in (_NO_CRITIC, *critics) for row in of(method, "pass")],
            "k",
        ),
    ]
    for protocol, method in sequential.items():
        rows = [
            *of(str(Method("parallel", protocol)), "maj", "parallel: vote"),
            *of(method, "maj", "sequential: vote"),
            *of(method, "final", "sequential: final"),
        ]
        caption = f"Votes and final answers against K, {protocol} (Figure 12 of the paper)"
        drawn.append(_curves(f"sequential_{protocol}", caption, rows, "k"))
    largest = max(_ks(results))
    for name, metric, k, caption in (
        ("greedy_by_level", "greedy", 1, "Accuracy of one greedy answer by difficulty (Figure 5)"),
        ("maj_by_level", "maj", largest, f"Maj@{largest} by difficulty"),
    ):
        shown = (_NO_CRITIC, *critics) if metric == "maj" else _methods(points, metric)
        rows = [
            row
            for row in results["by_level"]
            if (row["metric"], row["k"]) == (metric, k) and row["method"] in shown
        ]
        splits: dict[str, dict[str, float]] = {}
        for row in rows:
            splits.setdefault(row["method"], {})[row["level"]] = row["mean"]
        svg = figures.bars_by_level(splits, "Share right")
        if svg is not None:
            drawn.append(page.Figure(name, caption, svg, rows))
    return drawn


def _curves(name: str, caption: str, rows: Sequence[page.Row], x: str) -> page.Figure:
    # 2K samples at K are 4K samples at K/2: one point of a curve by tokens. Sorted in each series.
    order = list(dict.fromkeys(row["series"] for row in rows))
    distinct = {(order.index(row["series"]), row[x]): row for row in rows}
    ordered = [distinct[key] for key in sorted(distinct)]
    xlabel = "K" if x == "k" else "Generated tokens a problem"
    return page.Figure(name, caption, page.curves(ordered, x, xlabel), ordered)


def _greedy_table(results: Mapping[str, Any]) -> page.Table:
    gains = {r["method"]: r for r in results["differences"] if r["metric"] == "greedy"}
    rows = [
        (
            row["method"],
            percent(row["mean"]),
            page.bounds_cell(row["ci95"]),
            page.difference_cell(gains[row["method"]]) if row["method"] in gains else "",
            f"{row['tokens']:.0f}",
        )
        for row in results["points"]
        if row["metric"] == "greedy"
    ]
    head = ("Method", "Accuracy", "95% interval", "Gain in points", "Tokens a problem")
    return page.Table("One greedy answer", [head, *rows])


def _level_table(results: Mapping[str, Any]) -> page.Table:
    sizes = {row["level"]: row["problems"] for row in results["by_level"]}
    groups: dict[tuple[str, str], list[page.Row]] = {}
    for row in results["by_level"]:
        groups.setdefault((row["metric"], row["method"]), []).append(row)
    rows: list[tuple[str, ...]] = []
    for (metric, method), by_level in groups.items():
        name = METRICS[metric].replace("K", str(by_level[0]["k"]))
        rows.append((name, method, *map(page.share_cell, by_level)))
        if by_level[0]["gain"] is not None:
            gains = [page.gain_cell(row["gain"], row["gain_ci95"]) for row in by_level]
            rows.append((name, "gain over no critic", *gains))
    head = ("Metric", "Method", *(f"Level {level} ({size:,})" for level, size in sizes.items()))
    note = f"Level 1 is easy, 5 hard, by {results['levels_by']}; in brackets how many problems."
    return page.Table("By difficulty", [head, *rows], note)


_NOTES = {
    "maj": "Expected over subsets of the samples; of K rounds after one response (sequential), the "
    "vote of the response and all refinements. Baselines have K, 2K, 3K samples, or as many as "
    "generate the same tokens.",
    "pass": "At least one is right: the unbiased estimate from all samples; of a sequence, of the "
    "K answers that its rounds leave, without the response before them.",
    "final": "The last answer of a sequence.",
}


def _ks(results: Mapping[str, Any]) -> list[int]:
    return sorted({row["k"] for row in results["points"] if row["metric"] == "maj"})


def _methods(points: Sequence[page.Row], metric: str) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in points if row["metric"] == metric))


def _points(points: Sequence[page.Row], method: str, metric: str) -> list[page.Row]:
    rows = (row for row in points if (row["method"], row["metric"]) == (method, metric))
    return sorted(rows, key=lambda row: row["k"])
