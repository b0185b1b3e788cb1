"""Figures of reports, as SVG for HTML pages.

Series differ in colour (the Okabe-Ito palette, safe for colour-blind readers) and in marker or
order. Text and axes take the colour of the surrounding text, so one drawing suits light and dark
pages.
"""

import collections
import dataclasses
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxcritique.analysis.levels import has_levels


@dataclasses.dataclass(frozen=True)
class Style:
    """How a series is told from others."""

    color: str
    marker: str  # Of matplotlib's.
    hatch: str


# Okabe and Ito's colours that are visible on white and on black, and a grey.
STYLES = (
    Style("#0072B2", "s", ""),
    Style("#D55E00", "o", "///"),
    Style("#009E73", "^", "..."),
    Style("#CC79A7", "D", "xx"),
    Style("#56B4E9", "v", "\\\\\\"),
    Style("#E69F00", "*", "--"),
    Style("#999999", "P", "++"),
)
_INK = "#010203"  # Used for nothing else, so that it can be replaced in the SVG's text.
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.alpha": 0.2,
    "grid.color": _INK,
    "legend.frameon": False,
    "svg.fonttype": "none",  # Text stays text: it can be searched and read aloud.
    "svg.hashsalt": "jaxcritique",  # The same results give the same file.
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def curves(
    series: Mapping[str, Sequence[tuple[float, float, float, float]]],
    xlabel: str,
    doubling: bool = True,
    ylabel: str = "",
    styles: Mapping[str, Style] | None = None,
) -> str:
    """Draws shares with their intervals against a quantity.

    Args:
      series: by name, points (x, share, lower bound, upper bound) by x.
      xlabel: what x is.
      doubling: whether x has a logarithmic axis, to base 2.
      ylabel: what the shares are of.
      styles: by name; a series without one gets the next of `STYLES`.
    """
    # Points of equal x are moved apart, or error bars of equal shares would hide each other.
    equal = len({tuple(point[0] for point in points) for points in series.values()}) == 1
    step = 0.02 if equal else 0.0

    def moved(x: float, index: int) -> float:
        places = index - (len(series) - 1) / 2
        return x * (1 + step) ** places if doubling else x + 1.5 * step * places

    def draw(axes: Axes) -> None:
        for index, (name, style) in enumerate(_styled(series, styles)):
            xs, centres, lows, highs = zip(*series[name], strict=True)
            axes.errorbar(
                [moved(x, index) for x in xs],
                centres,
                yerr=[
                    [centre - low for centre, low in zip(centres, lows, strict=True)],
                    [high - centre for centre, high in zip(centres, highs, strict=True)],
                ],
                marker=style.marker,
                linestyle="--" if index % 2 else "-",
                capsize=2,
                linewidth=1.2,
                color=style.color,
                label=name,
            )
        ticks = sorted({point[0] for points in series.values() for point in points})
        if doubling:
            axes.set_xscale("log", base=2)
        if len(ticks) <= 10 and all(float(tick).is_integer() for tick in ticks):
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        else:
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.minorticks_off()
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)

    return _svg(draw, columns=2)


def bars_by_level(
    splits: Mapping[str, Mapping[str, float]],
    ylabel: str,
    styles: Mapping[str, Style] | None = None,
) -> str | None:
    """Draws a group of bars for each level, with one bar for each series.

    Args:
      splits: by series, by level ("1" to "5", or "unknown") a share.
      ylabel: what the shares are of.
      styles: by series; one without gets the next of `STYLES`.

    Returns:
      The figure; None where no level is known.
    """
    if not any(map(has_levels, splits.values())):
        return None
    levels = sorted(set().union(*splits.values()))
    width = 0.84 / len(splits)

    def draw(axes: Axes) -> None:
        for index, (name, style) in enumerate(_styled(splits, styles)):
            shift = (index - (len(splits) - 1) / 2) * width
            bars = axes.bar(
                [position + shift for position in range(len(levels))],
                [splits[name].get(level, 0.0) for level in levels],
                width * 0.92,
                color=style.color,
                label=name,
            )
            if len(splits) <= 3:  # More do not fit.
                axes.bar_label(bars, fmt=lambda share: f"{100 * share:.0f}", fontsize=8, padding=1)
        axes.set_xticks(range(len(levels)), levels)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("Difficulty level (1: easy, 5: hard)")
        axes.set_ylabel(ylabel)

    return _svg(draw, columns=3 if len(splits) <= 3 else 2)


def bars(
    series: Mapping[str, Mapping[str, tuple[float, float, float]]], xlabel: str, ylabel: str
) -> str:
    """Draws groups of bars with their intervals.

    Args:
      series: by name, by group (value, lower bound, upper bound). Groups have the order in which
        they first occur; a series has no bar in a group where it has no value.
      xlabel: what the groups are.
      ylabel: what the values are.
    """
    groups = list(dict.fromkeys(group for by_group in series.values() for group in by_group))
    width = 0.84 / len(series)

    def draw(axes: Axes) -> None:
        for index, (name, style) in enumerate(_styled(series)):
            by_group = series[name]
            shift = (index - (len(series) - 1) / 2) * width
            values = [by_group[group] for group in groups if group in by_group]
            axes.bar(
                [position + shift for position, group in enumerate(groups) if group in by_group],
                [value for value, _, _ in values],
                width * 0.92,
                yerr=[
                    [value - low for value, low, _ in values],
                    [high - value for value, _, high in values],
                ],
                error_kw={"ecolor": _INK, "elinewidth": 0.8, "capsize": 2},
                color=style.color,
                edgecolor=_INK,
                linewidth=0.5,
                hatch=style.hatch,
                label=name,
            )
        axes.axhline(0, color=_INK, linewidth=0.8)
        axes.set_xticks(range(len(groups)), groups)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)

    return _svg(draw, columns=3 if len(series) <= 3 else 2)


def sample_shares(panels: Mapping[str, Sequence[tuple[float, bool]]]) -> str:
    """Draws the share of right samples of each question, sorted, and whether their vote is right.

    Args:
      panels: by name (two), for each question (share, whether the vote is right). Equal questions
        are drawn as one block, so the size of the drawing does not depend on their number.
    """

    def block(axes: Axes, start: float, share: float, many: int, right: bool, label: str) -> None:
        axes.bar(
            start,
            share,
            many,
            align="edge",
            color=STYLES[0 if right else 1].color,
            hatch=None if right else "////",
            edgecolor=_INK,
            linewidth=0.0,
            label=label,
        )

    def draw(axes: Axes) -> None:
        start, middles = 0, []
        gap = max(map(len, panels.values())) // 12 + 1
        for name, questions in panels.items():
            middles.append((start + len(questions) / 2, name))
            blocks = collections.Counter(sorted(questions))
            for (share, right), many in blocks.items():
                block(axes, start, max(share, 0.004), many, right, "")  # A share of 0 is visible.
                start += many
            start += gap
        block(axes, 0, 0, 0, True, "vote is right")
        block(axes, 0, 0, 0, False, "vote is wrong")
        axes.set_xticks([place for place, _ in middles], [name for _, name in middles])
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("Questions, by their share")
        axes.set_ylabel("Right samples")

    return _svg(draw)


def _styled(
    names: Iterable[str], styles: Mapping[str, Style] | None = None
) -> Iterator[tuple[str, Style]]:
    """Yields each name with its style, or with the next of `STYLES`, over and over."""
    for name, style in zip(names, itertools.cycle(STYLES), strict=False):
        yield name, (styles or {}).get(name, style)


def _svg(draw: Callable[[Axes], None], columns: int = 3) -> str:
    # Narrow, so that the text stays readable at a phone's 370 pixels.
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.8, 3.2), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.margins(y=0.1)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        figure.legend(loc="outside upper center", ncols=columns)
        file = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # Every figure numbers its groups from 1, and an id may occur only once in a page.
    return re.sub(r'<g id="[^"]*"', "<g", svg)
