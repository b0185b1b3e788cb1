"""The report's figures, as SVG to be put into an HTML page.

Series are told apart by the Okabe-Ito palette, which colour-blind readers can tell apart, and by
marker or order besides. Text and axes take the colour of the text around them, so one drawing
serves light and dark pages.
"""

import collections
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxcritique.analysis.levels import has_levels
from jaxcritique.analysis.table import method_rows, methods_of

# Okabe and Ito's colours that can be seen on white and on black, a grey, and a marker for each.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
_MARKERS = "so^Dv*P"
_HATCHES = ("", "///", "...", "xx", "\\\\\\", "--", "++")
# The methods of a self-improvement run: what they are called, and their place in these.
_METHODS = {
    "sft": ("SFT actor", 2),
    "vanilla": ("Vanilla", 0),
    "critique": ("Critique-in-the-loop", 1),
    "no_difficulty_awareness": ("No difficulty awareness", 3),
    "more_refinements": ("More refinements", 4),
    "vanilla_equal_tokens": ("Vanilla, equal tokens", 5),
}
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


def accuracy_by_iteration(results: Mapping[str, Any]) -> str:
    """Draws the methods' accuracy with its 95% interval against the iteration."""
    methods = methods_of(results)

    def draw(axes: Axes) -> None:
        # Moved apart a little, or the error bars of equal points would hide each other.
        for index, method in enumerate(methods):
            label, place = _METHODS[method]
            shift = 0.06 * (index - (len(methods) - 1) / 2)
            rows = method_rows(results, method)
            centres = [row["accuracy"] for row in rows]
            below = [row["accuracy"] - row["ci95"][0] for row in rows]
            above = [row["ci95"][1] - row["accuracy"] for row in rows]
            axes.errorbar(
                [row["iteration"] + shift for row in rows],
                centres,
                yerr=[below, above],
                marker=_MARKERS[place],
                capsize=3,
                color=_PALETTE[place],
                label=label,
            )
        axes.set_xticks(sorted({row["iteration"] for row in results["iterations"]}))
        axes.set_xlabel("Iteration (0: the SFT actor)")
        axes.set_ylabel("Accuracy on the test set")

    return _svg(draw, columns=3 if len(methods) <= 3 else 2)


def accuracy_by_level(results: Mapping[str, Any]) -> str | None:
    """Draws accuracy by level of the SFT actor and of the last iteration of the two main methods.

    Returns None where the test problems have no levels.
    """
    splits = {
        "sft": method_rows(results, "vanilla")[0]["accuracy_by_level"],
        "vanilla": method_rows(results, "vanilla")[-1]["accuracy_by_level"],
        "critique": method_rows(results, "critique")[-1]["accuracy_by_level"],
    }
    return bars_by_level(splits, "Accuracy on the test set")


def training_by_level(results: Mapping[str, Any]) -> str | None:
    """Draws the share of each level in the last training data of the two main methods.

    Returns None where the training problems have no levels.
    """
    splits = {
        method: method_rows(results, method)[-1]["train_share_by_level"]
        for method in ("vanilla", "critique")
    }
    return bars_by_level(splits, "Share of the training data")


def curves(
    series: Mapping[str, Sequence[tuple[float, float, float, float]]],
    xlabel: str,
    doubling: bool = True,
) -> str:
    """Draws shares with their intervals against a quantity.

    Args:
      series: by name (at most seven), points (x, share, lower bound, upper bound) by x.
      xlabel: what x is.
      doubling: whether x is drawn so that doubling it is always as far.
    """
    # At equal x they are moved apart a little, or error bars of equal points would hide each other.
    equal = len({tuple(point[0] for point in points) for points in series.values()}) == 1
    step = 0.02 if equal else 0.0

    def moved(x: float, index: int) -> float:
        places = index - (len(series) - 1) / 2
        return x * (1 + step) ** places if doubling else x + 1.5 * step * places

    def draw(axes: Axes) -> None:
        for index, (name, points) in enumerate(series.items()):
            xs, centres, lows, highs = zip(*points, strict=True)
            axes.errorbar(
                [moved(x, index) for x in xs],
                centres,
                yerr=[
                    [centre - low for centre, low in zip(centres, lows, strict=True)],
                    [high - centre for centre, high in zip(centres, highs, strict=True)],
                ],
                marker=_MARKERS[index],
                linestyle="--" if index % 2 else "-",
                capsize=2,
                linewidth=1.2,
                color=_PALETTE[index],
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

    return _svg(draw, columns=2)


def bars_by_level(splits: Mapping[str, Mapping[str, float]], ylabel: str) -> str | None:
    """Draws groups of bars, one group a level and in it one bar a series, few of them with values.

    Returns None where no level is known.
    """
    if not any(map(has_levels, splits.values())):
        return None
    levels = sorted(set().union(*splits.values()))
    width = 0.84 / len(splits)

    def draw(axes: Axes) -> None:
        for index, (series, split) in enumerate(splits.items()):
            label, place = _METHODS.get(series, (series, index % len(_PALETTE)))
            shift = (index - (len(splits) - 1) / 2) * width
            bars = axes.bar(
                [position + shift for position in range(len(levels))],
                [split.get(level, 0.0) for level in levels],
                width * 0.92,
                color=_PALETTE[place],
                label=label,
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
      series: by name (at most seven), by group (value, lower bound, upper bound); the groups of
        the first are the order of all. One without a value has no bar.
      xlabel: what the groups are.
      ylabel: what the values are.
    """
    groups = list(dict.fromkeys(group for found in series.values() for group in found))
    width = 0.84 / len(series)

    def draw(axes: Axes) -> None:
        for index, (name, found) in enumerate(series.items()):
            shift = (index - (len(series) - 1) / 2) * width
            values = [found[group] for group in groups if group in found]
            axes.bar(
                [position + shift for position, group in enumerate(groups) if group in found],
                [value for value, _, _ in values],
                width * 0.92,
                yerr=[
                    [value - low for value, low, _ in values],
                    [high - value for value, _, high in values],
                ],
                error_kw={"ecolor": _INK, "elinewidth": 0.8, "capsize": 2},
                color=_PALETTE[index],
                edgecolor=_INK,
                linewidth=0.5,
                hatch=_HATCHES[index],
                label=name,
            )
        axes.axhline(0, color=_INK, linewidth=0.8)
        axes.set_xticks(range(len(groups)), groups)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)

    return _svg(draw, columns=3 if len(series) <= 3 else 2)


def sample_shares(panels: Mapping[str, Sequence[tuple[float, bool]]]) -> str:
    """Draws each question's share of right samples, by size, and whether the vote is right.

    Args:
      panels: by name (two), one (share, whether the vote is right) a question. Questions that are
        equal in both are one block, so the drawing does not grow with them.
    """

    def draw(axes: Axes) -> None:
        start, middles = 0, []
        gap = max(map(len, panels.values())) // 12 + 1
        for name, questions in panels.items():
            middles.append((start + len(questions) / 2, name))
            blocks = collections.Counter(sorted((share, right) for share, right in questions))
            for (share, right), many in blocks.items():
                axes.bar(
                    start,
                    max(share, 0.004),  # What is at zero is to be seen, too.
                    many,
                    align="edge",
                    color=_PALETTE[0 if right else 1],
                    hatch=None if right else "////",
                    edgecolor=_INK,
                    linewidth=0.0,
                )
                start += many
            start += gap
        for right, label in ((True, "vote is right"), (False, "vote is wrong")):
            axes.bar(
                0,
                0,
                color=_PALETTE[0 if right else 1],
                hatch=None if right else "////",
                edgecolor=_INK,
                linewidth=0.0,
                label=label,
            )
        axes.set_xticks([place for place, _ in middles], [name for _, name in middles])
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("Questions, by their share")
        axes.set_ylabel("Right samples")

    return _svg(draw)


def _svg(draw: Callable[[Axes], None], columns: int = 3) -> str:
    # Narrow, because a phone shows it at some 370 pixels and its text must stay readable there.
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
    # Every figure numbers its groups alike, and a page must not hold an id twice.
    return re.sub(r'<g id="[^"]*"', "<g", svg)
