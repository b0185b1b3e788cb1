"""The report of a self-improvement run: one HTML file that needs nothing besides itself."""

import datetime
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2

from jaxcritique.analysis import figures
from jaxcritique.analysis.intervals import RESAMPLES
from jaxcritique.analysis.table import COLUMNS, method_rows, percent, table_cells
from jaxcritique.prompts.critique import split_steps
from jaxcritique.store import write_atomically


def write_report(results: Mapping[str, Any], path: pathlib.Path) -> None:
    """Writes what a `results.json` holds as a page for people.

    Figures by level are left out where the data has no levels, and the page says so. All text of
    models is escaped: it is untrusted.

    Raises:
      KeyError: `results` lacks an entry other than `critic` or `critique_data`.
    """
    write_page(
        "report.html.jinja",
        results,
        path,
        headline=headline(results),
        last_iteration=_last_iteration(results),
        columns=COLUMNS,
        rows=table_cells(results),
        figures=_captioned_figures(results),
        marked_lines=marked_lines,
    )


def write_page(template: str, results: Mapping[str, Any], path: pathlib.Path, **parts: Any) -> None:
    """Writes a page from a template of this package that extends `page.html.jinja`.

    Raises:
      KeyError: `results` lacks what every page says: wall_seconds, peak_rss_bytes.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxcritique", "analysis"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = percent
    page = environment.get_template(template).render(
        results=results,
        resamples=RESAMPLES,
        wall_time=datetime.timedelta(seconds=round(results["wall_seconds"])),
        peak_gib=results["peak_rss_bytes"] / 2**30,
        **parts,
    )
    write_atomically(path, page)


def headline(results: Mapping[str, Any]) -> str:
    """Says in words how the two methods compare at the last iteration."""
    points = 100 * results["comparison"]["critique_minus_vanilla"]
    low, high = (100 * bound for bound in results["comparison"]["ci95"])
    critique, vanilla = (
        percent(method_rows(results, method)[-1]["accuracy"]) for method in ("critique", "vanilla")
    )
    if low > 0:
        meaning = "The interval excludes zero: this critique-in-the-loop actor is better."
    elif high < 0:
        meaning = "The interval excludes zero: this critique-in-the-loop actor is worse."
    else:
        meaning = "The interval includes zero: this run does not tell the two methods apart."
    return (
        f"After iteration {_last_iteration(results)}, critique-in-the-loop solves {critique} of "
        f"the {results['test_problems']:,} test problems and vanilla self-improvement {vanilla}: "
        f"a difference of {points:+.1f} percentage points "
        f"(95% interval {low:+.1f} to {high:+.1f}). {meaning}"
    )


def _last_iteration(results: Mapping[str, Any]) -> int:
    return max(row["iteration"] for row in results["iterations"])


def _captioned_figures(results: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    return [
        (
            "Accuracy by iteration, with 95% intervals",
            figures.accuracy_by_iteration(results),
        ),
        (
            "Accuracy by difficulty level, of the SFT actor and of the last iteration",
            figures.accuracy_by_level(results),
        ),
        (
            "Training data of the last iteration by difficulty level",
            figures.training_by_level(results),
        ),
    ]


def marked_lines(response: str, first_error: int | None) -> Iterator[tuple[str, bool]]:
    """Yields the response's lines, each with whether it is step `first_error` (from 0)."""
    steps = 0
    for line in response.splitlines():
        is_step = bool(split_steps(line))
        yield line, is_step and steps == first_error
        steps += is_step
