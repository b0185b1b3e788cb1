"""What `experiments/evaluate.py` found, as tables, figures and a page."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcritique.analysis import figures
from jaxcritique.analysis.levels import has_levels
from jaxcritique.analysis.report import write_page
from jaxcritique.analysis.table import percent
from jaxcritique.roles import COSTS
from jaxcritique.store import write_atomically
from jaxcritique.testtime.rounds import PROTOCOLS
from jaxcritique.testtime.scores import (
    ALONE,
    METRICS,
    MULTIPLES,
    in_parallel,
    in_sequence,
    multiple,
)

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text, its header first."""

    title: str
    rows: list[tuple[str, ...]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing, and the rows it was drawn from."""

    name: str
    caption: str
    svg: str
    rows: Sequence[Row]


def write_evaluation(results: Mapping[str, Any], run_dir: pathlib.Path) -> None:
    """Writes report.html, and the numbers of its figures to figures/NAME.csv."""
    drawn = evaluation_figures(results)
    numbers = {run_dir / "figures" / f"{figure.name}.csv": figure.rows for figure in drawn}
    for path, rows in numbers.items():
        write_atomically(path, csv_text(rows))
    for stale in set(run_dir.glob("figures/*.csv")) - numbers.keys():  # Of other --scaling, say.
        stale.unlink()
    tables = evaluation_tables(results)
    page = run_dir / "report.html"
    write_page("evaluation.html.jinja", results, page, tables=tables, figures=drawn)


def evaluation_tables(results: Mapping[str, Any]) -> list[Table]:
    """Returns the tables of a `results.json`."""
    points = results["points"]
    ks = [f"K={k}" for k in _ks(results)]
    tables = [_greedy_table(results)]
    for metric in ("maj", "pass", "final"):
        rows = [
            (method, *(share_cell(point) for point in found))
            for method, found in _by_method(points, metric).items()
        ]
        if rows:
            tables.append(Table(METRICS[metric], [("Method", *ks), *rows], _NOTES[metric]))
    sampled = [row for row in results["differences"] if row["metric"] != "greedy"]
    if sampled:
        compared: dict[tuple[str, ...], list[str]] = {}
        for row in sampled:
            ours, theirs = METRICS[row["metric"]], METRICS[row["minus_metric"]]
            other = row["minus"] if ours == theirs else f"{row['minus']}: {theirs}"
            compared.setdefault((row["method"], ours, other), []).append(difference_cell(row))
        rows = [(*names, *cells) for names, cells in compared.items()]
        head = ("Method", "Metric", "minus", *ks)
        tables.append(Table("Differences in percentage points", [head, *rows]))
    if has_levels({row["level"]: 0.0 for row in results["by_level"]}):
        tables.append(_level_table(results))
    return [*tables, costs_table(results)]


def costs_table(results: Mapping[str, Any]) -> Table:
    """Returns what each stage cost, by the `costs` of a `results.json`."""
    head = ("Stage", *(key.replace("_", " ") for key in COSTS))
    rows = [
        (stage, *(f"{cost[key]:,}" for key in COSTS)) for stage, cost in results["costs"].items()
    ]
    return Table("What was sampled", [head, *rows])


def evaluation_figures(results: Mapping[str, Any]) -> list[Figure]:
    """Draws the curves by K and by tokens, and the levels where there are any."""
    points = results["points"]
    critics = [m for m in _methods(points, "maj") if not m.startswith(ALONE)]
    baselines = [multiple(times) for times in MULTIPLES]
    parallel = [in_parallel(protocol) for protocol in PROTOCOLS if in_parallel(protocol) in critics]
    found = [
        _curves(
            "maj_at_k",
            "Majority vote against K (Figure 1 of the paper)",
            {method: _points(points, method, "maj") for method in [*baselines, *parallel]},
            "k",
        ),
        _curves(
            "maj_by_tokens",
            "Majority vote against the tokens generated for a problem",
            {
                ALONE: [row for method in baselines for row in _points(points, method, "maj")],
                **{method: _points(points, method, "maj") for method in critics},
            },
            "tokens",
        ),
        _curves(
            "pass_at_k",
            "Pass@K against K (Figure 11 of the paper)",
            {method: _points(points, method, "pass") for method in [ALONE, *critics]},
            "k",
        ),
    ]
    for protocol in PROTOCOLS:
        method = in_sequence(protocol)
        if method not in critics:
            continue
        series = {
            "parallel: vote": _points(points, in_parallel(protocol), "maj"),
            "sequential: vote": _points(points, method, "maj"),
            "sequential: final": _points(points, method, "final"),
        }
        caption = f"Votes and final answers against K, {protocol} (Figure 12 of the paper)"
        found.append(_curves(f"sequential_{protocol}", caption, series, "k"))
    largest = max(_ks(results))
    for name, metric, k, caption in (
        ("greedy_by_level", "greedy", 1, "Accuracy of one greedy answer by difficulty (Figure 5)"),
        ("maj_by_level", "maj", largest, f"Maj@{largest} by difficulty"),
    ):
        shown = (ALONE, *critics) if metric == "maj" else _methods(points, metric)
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
            found.append(Figure(name, caption, svg, rows))
    return found


def _curves(name: str, caption: str, series: Mapping[str, Sequence[Row]], x: str) -> Figure:
    ordered = {
        label: sorted({row[x]: row for row in rows}.values(), key=lambda row: row[x])
        for label, rows in series.items()
        if rows
    }
    drawn = {
        label: [(row[x], row["mean"], *row["ci95"]) for row in rows]
        for label, rows in ordered.items()
    }
    numbers = [{"series": label, **row} for label, rows in ordered.items() for row in rows]
    xlabel = "K" if x == "k" else "Generated tokens a problem"
    return Figure(name, caption, figures.curves(drawn, xlabel), numbers)


def _greedy_table(results: Mapping[str, Any]) -> Table:
    gains = {r["method"]: r for r in results["differences"] if r["metric"] == "greedy"}
    rows = [
        (
            row["method"],
            percent(row["mean"]),
            bounds_cell(row["ci95"]),
            difference_cell(gains[row["method"]]) if row["method"] in gains else "",
            f"{row['tokens']:.0f}",
        )
        for row in results["points"]
        if row["metric"] == "greedy"
    ]
    head = ("Method", "Accuracy", "95% interval", "Gain in points", "Tokens a problem")
    return Table("One greedy answer", [head, *rows])


def _level_table(results: Mapping[str, Any]) -> Table:
    sizes = {row["level"]: row["problems"] for row in results["by_level"]}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in results["by_level"]:
        groups.setdefault((row["metric"], row["method"]), []).append(row)
    rows: list[tuple[str, ...]] = []
    for (metric, method), found in groups.items():
        name = METRICS[metric].replace("K", str(found[0]["k"]))
        rows.append((name, method, *map(share_cell, found)))
        if found[0]["gain"] is not None:
            gains = [gain_cell(row["gain"], row["gain_ci95"]) for row in found]
            rows.append((name, "gain over no critic", *gains))
    head = ("Metric", "Method", *(f"Level {level} ({size:,})" for level, size in sizes.items()))
    note = f"Level 1 is easy, 5 hard, by {results['levels_by']}; in brackets how many problems."
    return Table("By difficulty", [head, *rows], note)


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


def _methods(points: Sequence[Row], metric: str) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in points if row["metric"] == metric))


def _points(points: Sequence[Row], method: str, metric: str) -> list[Row]:
    found = [row for row in points if (row["method"], row["metric"]) == (method, metric)]
    return sorted(found, key=lambda row: row["k"])


def _by_method(points: Sequence[Row], metric: str) -> dict[str, list[Row]]:
    return {method: _points(points, method, metric) for method in _methods(points, metric)}


def share_cell(row: Row) -> str:
    """Writes a row's mean with its interval."""
    return f"{percent(row['mean'])} ({bounds_cell(row['ci95'])})"


def bounds_cell(ci95: Sequence[float]) -> str:
    """Writes an interval of shares in per cent."""
    return "{:.1f}-{:.1f}".format(*(100 * bound for bound in ci95))


def difference_cell(row: Row) -> str:
    """Writes a row's difference with its interval, in percentage points."""
    return gain_cell(row["difference"], row["ci95"])


def gain_cell(difference: float, ci95: Sequence[float]) -> str:
    """Writes a difference of shares with its interval, in percentage points."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * x for x in (difference, *ci95)))


def csv_text(rows: Sequence[Row]) -> str:
    """Returns rows as CSV, an interval as two columns; columns that a row lacks are empty."""
    flat = []
    for row in rows:
        columns: dict[str, Any] = {}
        for name, value in row.items():
            if name.endswith("ci95"):
                prefix = name.removesuffix("ci95")
                columns[f"{prefix}low"], columns[f"{prefix}high"] = value or ("", "")
            else:
                columns[name] = "" if value is None else value
        flat.append(columns)
    file = io.StringIO()
    names = list(dict.fromkeys(name for columns in flat for name in columns))
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()
