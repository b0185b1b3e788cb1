"""The results table, method by iteration, as plain text; `report.py` shows the same cells."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxcritique.analysis.levels import hard_share

COLUMNS = (
    "Method",
    "Iter.",
    "Accuracy",
    "95% interval",
    "Training set",
    "Levels 4-5",
    "Generated tokens",
)


def results_table(results: Mapping[str, Any]) -> str:
    """Returns the table of a `results.json` as aligned lines."""
    return aligned([COLUMNS, *table_cells(results)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table, its header first, as lines: the first column to the left, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])])
        for first, *others in rows
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table, its header first, as Markdown, aligned like `aligned`."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    cells = ([cell.replace("|", r"\|") for cell in row] for row in [rows[0], rule, *rows[1:]])
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def table_cells(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the cells under `COLUMNS`, a row for every method and iteration."""
    return [
        (
            method,
            str(row["iteration"]),
            percent(row["accuracy"]),
            "{:.1f}-{:.1f}".format(*(100 * bound for bound in row["ci95"])),
            f"{row['train_size']:,}",
            percent(hard_share(row["train_share_by_level"])),
            f"{row['generated_tokens']:,}",
        )
        for method in methods_of(results)
        for row in method_rows(results, method)
    ]


def methods_of(results: Mapping[str, Any]) -> list[str]:
    """Returns the methods of `results["iterations"]`, in their order."""
    return list(dict.fromkeys(row["method"] for row in results["iterations"]))


def method_rows(results: Mapping[str, Any], method: str) -> list[Mapping[str, Any]]:
    """Returns a method's entries of `results["iterations"]`, the SFT actor (0) first."""
    rows = [row for row in results["iterations"] if row["method"] == method]
    return sorted(rows, key=lambda row: row["iteration"])


def percent(share: float | None) -> str:
    """Writes a share (0 to 1) as a percentage, and an unknown one as a dash."""
    return "-" if share is None else f"{100 * share:.1f}%"
