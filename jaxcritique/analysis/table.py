"""Tables as text."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table, its header first, as lines; all columns but the first align right."""
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


def percent(share: float | None) -> str:
    """Writes a share (0 to 1) as a percentage, and an unknown one as a dash."""
    return "-" if share is None else f"{100 * share:.1f}%"
