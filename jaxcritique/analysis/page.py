"""What pages and programs show of results: tables of text, and figures with their numbers.

Pages are HTML that needs no other file.
"""

import csv
import dataclasses
import datetime
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

from jaxcritique.analysis import figures
from jaxcritique.analysis.intervals import RESAMPLES
from jaxcritique.analysis.table import aligned, percent
from jaxcritique.prompts.critique import split_steps
from jaxcritique.roles import COSTS
from jaxcritique.store import write_atomically

Row = Mapping[str, Any]  # Of results.json.


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text, its header first."""

    title: str
    rows: Sequence[tuple[str, ...]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing, and the rows it was drawn from."""

    name: str
    caption: str
    svg: str
    rows: Sequence[Row]


def write_report(
    template: str,
    results: Mapping[str, Any],
    run_dir: pathlib.Path,
    tables: Sequence[Table],
    drawn: Sequence[Figure],
) -> None:
    """Writes report.html, and the numbers of its figures to figures/NAME.csv."""
    write_numbers(drawn, run_dir)
    write_page(template, results, run_dir / "report.html", tables=tables, figures=drawn)


def write_numbers(drawn: Sequence[Figure], run_dir: pathlib.Path) -> None:
    """Writes figures/NAME.csv; those of figures that are no longer drawn are removed."""
    numbers = {run_dir / "figures" / f"{figure.name}.csv": figure.rows for figure in drawn}
    for path, rows in numbers.items():
        write_atomically(path, csv_text(rows))
    for stale in set(run_dir.glob("figures/*.csv")) - numbers.keys():
        stale.unlink()


def write_page(
    template: str,
    results: Any,
    path: pathlib.Path,
    templates: str = "jaxcritique.analysis",
    **parts: Any,
) -> None:
    """Writes a page. Everything put into it is escaped: text of models is untrusted.

    Args:
      template: a file that extends `page.html.jinja`.
      results: as an object (`run_folder.Results`) or as read from results.json.
      path: of the page.
      templates: the package that holds the template.
      **parts: further variables of the template.

    Raises:
      jinja2.UndefinedError: the template names what is missing in `results` and `parts`.
    """
    packages = dict.fromkeys([templates, "jaxcritique.analysis"])
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package, "") for package in packages]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = percent
    environment.filters["hms"] = lambda seconds: str(datetime.timedelta(seconds=round(seconds)))
    page = environment.get_template(template)
    write_atomically(path, page.render(results=results, resamples=RESAMPLES, **parts))


def marked_lines(response: str, first_error: int | None) -> Iterator[tuple[str, bool]]:
    """Yields the response's lines, each with whether it is step `first_error` (from 0)."""
    steps = 0
    for line in response.splitlines():
        is_step = bool(split_steps(line))
        yield line, is_step and steps == first_error
        steps += is_step


def as_text(tables: Sequence[Table]) -> str:
    """Returns the tables under their titles, in aligned columns."""
    return "\n\n".join(f"{table.title}\n{aligned(table.rows)}" for table in tables)


def curves(rows: Sequence[Row], x: str, xlabel: str, doubling: bool = True) -> str:
    """Draws a curve for each series; see `figures.curves`.

    Args:
      rows: with the keys series, mean, ci95, and `x`.
      x: the quantity that the means are drawn against.
      xlabel: its label.
      doubling: whether its axis is logarithmic.
    """
    series: dict[str, list[tuple[float, float, float, float]]] = {row["series"]: [] for row in rows}
    for row in sorted(rows, key=lambda row: row[x]):
        series[row["series"]].append((row[x], row["mean"], *row["ci95"]))
    return figures.curves(series, xlabel, doubling)


def costs_table(results: Mapping[str, Any]) -> Table:
    """Returns the cost of each stage, from the `costs` of a `results.json`."""
    head = ("Stage", *(key.replace("_", " ") for key in COSTS))
    rows = [
        (stage, *(f"{cost[key]:,}" for key in COSTS)) for stage, cost in results["costs"].items()
    ]
    return Table("What was sampled", [head, *rows])


def share_cell(row: Row) -> str:
    """Writes a row's mean with its interval, in per cent."""
    return f"{percent(row['mean'])} ({bounds_cell(row['ci95'])})"


def bounds_cell(ci95: Sequence[float] | None) -> str:
    """Writes an interval of shares in per cent; nothing where there is none."""
    return "{:.1f}-{:.1f}".format(*(100 * bound for bound in ci95)) if ci95 else ""


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
