"""Figures 1 and 5 to 12 of the paper, from the outputs of the parts."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from experiments.reproduction import parts
from experiments.reproduction.evidence import (
    Evidence,
    Levels,
    NotMeasured,
    SeedScores,
    actors_by_size,
    at_levels,
    last_iteration,
    levels_of_test_problems,
    minus,
    scores_of_actor,
    training_rows,
)
from experiments.reproduction.measuring import average, estimate_of, share_contrast
from jaxcritique.analysis import figures, page
from jaxcritique.analysis.methods import ALONE, BASELINES, SHARE, VOTE, Method

_LEVEL = "Difficulty level (1: easy, 5: hard)"
_BASELINES = {str(baseline): (baseline, "maj") for baseline in BASELINES}
_DIFFERENCE = "critique-in-the-loop - vanilla"

Numbers = list[dict[str, Any]]  # Rows: {series, x or group, mean, ci95}.
_Draw = Callable[[Evidence, str], tuple[str, Numbers]]  # The SVG, and what it shows.
_FIGURES: list[tuple[str, str, tuple[str, ...], _Draw]] = []


@dataclasses.dataclass(frozen=True)
class PaperFigure(page.Figure):
    """A figure of the paper."""

    parts: tuple[str, ...]  # Whose commands made it.
    why: str = ""  # It could not be drawn.


def paper_figures(evidence: Evidence, protocol: str) -> list[PaperFigure]:
    """Draws all figures that can be; the others say what is missing.

    Args:
      evidence: the outputs of the parts.
      protocol: which answers are refined with a critic.
    """
    drawn = []
    for name, caption, made_by, draw in _FIGURES:
        try:
            svg, rows = draw(evidence, protocol)
            drawn.append(PaperFigure(name, caption, svg, rows, made_by))
        except NotMeasured as error:
            drawn.append(PaperFigure(name, caption, "", [], made_by, str(error)))
    return drawn


def _figure(name: str, caption: str, *made_by: str) -> Callable[[_Draw], None]:
    """Adds a figure that is made by some parts to those of `paper_figures`."""
    return lambda draw: _FIGURES.append((name, caption, made_by, draw))


# ---- rows, and drawings of them


def _row(series: str, scores: SeedScores, **at: Any) -> dict[str, Any]:
    estimate = average(scores)
    return {"series": series, **at, "mean": estimate.mean, "ci95": estimate.ci95}


def _sampled(e: Evidence, methods: Mapping[str, tuple[Method, str]]) -> Numbers:
    """A row for each method (by name: method and metric) and K."""
    rows = []
    for name, (method, metric) in methods.items():
        for k in e.values(parts.EVALUATE, "k", method=method, metric=metric):
            scores = e.scores(parts.EVALUATE, method=method, metric=metric, k=k)
            points = [
                point
                for output in e.of(parts.EVALUATE).values()
                for point in output.results.get("points", ())
                if (point["method"], point["metric"], point["k"]) == (str(method), metric, k)
            ]
            costs = {key: fmean(p[key] for p in points) for key in ("samples", "tokens") if points}
            rows.append(_row(name, scores, k=k, **costs))
    return rows


def _by_level(series: Mapping[str, SeedScores], levels: Levels) -> Numbers:
    known = sorted({level for problems in levels.values() for level in problems.values()})
    rows = []
    for name, scores in series.items():
        for level in known:
            here = at_levels(scores, levels, level.__eq__)
            if problems := set().union(*here.values()):
                rows.append(_row(name, here, level=level, problems=len(problems)))
    return rows


def _curves(rows: Numbers, x: str, xlabel: str, doubling: bool = True) -> tuple[str, Numbers]:
    return page.curves(rows, x, xlabel, doubling), rows


def _bars(rows: Numbers, group: str, xlabel: str, ylabel: str) -> tuple[str, Numbers]:
    series: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row in rows:
        bars = series.setdefault(row["series"], {})
        bars[str(row[group])] = (row["mean"], *row["ci95"])
    return figures.bars(series, xlabel, ylabel), rows


# ---- the figures


@_figure(
    "figure_1",
    "Figure 1. Majority vote against K; 2K and 3K are votes of as many samples",
    parts.EVALUATE,
)
def _figure1(e: Evidence, protocol: str) -> tuple[str, Numbers]:
    with_critic = {"with critic": (Method("parallel", protocol), "maj")}
    return _curves(_sampled(e, _BASELINES | with_critic), "k", "K")


@_figure(
    "figure_1_tokens",
    "Figure 1, by compute. Majority vote against the tokens generated for a problem",
    parts.EVALUATE,
)
def _figure1_tokens(e: Evidence, protocol: str) -> tuple[str, Numbers]:
    rows = [{**row, "series": str(ALONE)} for row in _sampled(e, _BASELINES)]
    rows = list({row["samples"]: row for row in rows if "samples" in row}.values())
    for way in ("parallel", "sequential"):
        with contextlib.suppress(NotMeasured):
            with_critic = _sampled(e, {f"{way}, with critic": (Method(way, protocol), "maj")})
            rows += [row for row in with_critic if "tokens" in row]
    if not rows:
        raise NotMeasured("evaluate's results do not say how many tokens its points took")
    return _curves(rows, "tokens", "Generated tokens a problem")


@_figure(
    "figure_5", "Figure 5. Greedy accuracy by difficulty, without and with critic", parts.EVALUATE
)
def _figure5(e: Evidence, protocol: str) -> tuple[str, Numbers]:
    levels = e.levels(parts.EVALUATE)
    series = {
        name: e.scores(parts.EVALUATE, method=method, metric="greedy", k=1)
        for name, method in ((str(ALONE), ALONE), ("with critic", Method("one round", protocol)))
    }
    return _bars(_by_level(series, levels), "level", _LEVEL, "Accuracy")


@_figure(
    "figure_6",
    "Figure 6. Self-improvement: greedy test accuracy by iteration",
    parts.IMPROVE_SMALL,
    parts.IMPROVE,
)
def _figure6(e: Evidence, _: str) -> tuple[str, Numbers]:
    rows = []
    for part, size in ((parts.IMPROVE_SMALL, "smaller N"), (parts.IMPROVE, "larger N")):
        try:
            outputs = e.of(part).values()
        except NotMeasured:
            continue
        sizes = {output.results.get("settings", {}).get("samples") for output in outputs}
        n = f"N={sizes.pop()}" if len(sizes) == 1 and None not in sizes else size
        for method, name in (("vanilla", "vanilla"), ("critique", "critique-in-the-loop")):
            for iteration in e.values(part, "iteration", method=method):
                scores = e.scores(part, method=method, iteration=iteration)
                rows.append(_row(f"{name}, {n}", scores, iteration=iteration))
    if not rows:
        raise NotMeasured(f"{parts.IMPROVE} has not been run")
    return _curves(rows, "iteration", "Iteration (0: the fine-tuned actor)", doubling=False)


@_figure(
    "figure_7",
    "Figure 7. Training data of the last iteration by difficulty: critique-in-the-loop's share "
    "less vanilla's",
    parts.IMPROVE,
)
def _figure7(e: Evidence, _: str) -> tuple[str, Numbers]:
    shares: dict[str, dict[int, float]] = {}
    for method in ("critique", "vanilla"):
        counts: Counter[int] = Counter()
        for rows in training_rows(e, method).values():
            for row in rows:
                counts[row["level"]] += row["rows"]
        shares[method] = {level: many / counts.total() for level, many in counts.items()}
    numbers = []
    for level in sorted(set().union(*shares.values())):
        estimate = estimate_of(share_contrast(e, (level,)))
        at_level = {method: of.get(level, 0.0) for method, of in shares.items()}
        about = {"series": _DIFFERENCE, "level": level}
        numbers.append({**about, "mean": estimate.mean, "ci95": estimate.ci95, **at_level})
    return _bars(numbers, "level", _LEVEL, "Share of the training data, difference")


@_figure(
    "figure_8",
    "Figure 8. Test accuracy after the last iteration by difficulty: critique-in-the-loop less "
    "vanilla",
    parts.IMPROVE,
    parts.EVALUATE,
)
def _figure8(e: Evidence, _: str) -> tuple[str, Numbers]:
    gain = minus(*(last_iteration(e, parts.IMPROVE, m) for m in ("critique", "vanilla")))
    rows = _by_level({_DIFFERENCE: gain}, levels_of_test_problems(e))
    return _bars(rows, "level", _LEVEL, "Test accuracy, difference")


@_figure("figure_9", "Figure 9. One critic, actors of several sizes", parts.SCALING)
def _figure9(e: Evidence, protocol: str) -> tuple[str, Numbers]:
    methods = {
        str(ALONE): ALONE,
        "with critic": Method("one round", protocol),
        "with critic, oracle": Method("one round", "oracle"),
    }
    rows = [
        _row(name, scores_of_actor(e, actor, method), actor=actor)
        for actor in actors_by_size(e)
        for name, method in methods.items()
    ]
    return _bars(rows, "actor", "Actor", "Accuracy")


@_figure(
    "figure_10",
    "Figure 10. Each question's share of right samples, and whether their vote is right",
    parts.EVALUATE,
)
def _figure10(e: Evidence, protocol: str) -> tuple[str, Numbers]:
    panels: dict[str, list[tuple[float, bool]]] = {}
    rows = []
    for name, method in (("without critic", ALONE), ("with critic", Method("parallel", protocol))):
        shares = e.scores(parts.EVALUATE, method=method, metric=SHARE)
        votes = e.scores(parts.EVALUATE, method=method, metric=VOTE)
        questions = [
            (seed, problem, share, bool(votes[seed][problem]))
            for seed, problems in shares.items()
            for problem, share in problems.items()
        ]
        panels[name] = sorted((share, right) for _, _, share, right in questions)
        rows += [
            {"series": name, "seed": seed, "problem": problem, "right": share, "vote_right": right}
            for seed, problem, share, right in questions
        ]
    return figures.sample_shares(panels), rows


def flips(e: Evidence, protocol: str) -> tuple[int, int, int]:
    """Returns how many votes the critic turned right, how many wrong, and of how many.

    Raises:
      NotMeasured: the votes before and after are not there.
    """
    turned = minus(
        e.scores(parts.EVALUATE, method=Method("parallel", protocol), metric=VOTE),
        e.scores(parts.EVALUATE, method=ALONE, metric=VOTE),
    )
    changes = [change for problems in turned.values() for change in problems.values()]
    return changes.count(1.0), changes.count(-1.0), len(changes)


@_figure("figure_11", "Figure 11. Pass@K, parallel and sequential", parts.EVALUATE)
def _figure11(e: Evidence, protocol: str) -> tuple[str, Numbers]:
    methods = {
        str(ALONE): (ALONE, "pass"),
        "parallel": (Method("parallel", protocol), "pass"),
        "sequential": (Method("sequential", protocol), "pass"),
    }
    return _curves(_sampled(e, methods), "k", "K")


@_figure("figure_12", "Figure 12. Votes and final answers, parallel and sequential", parts.EVALUATE)
def _figure12(e: Evidence, protocol: str) -> tuple[str, Numbers]:
    methods = {
        "parallel: vote": (Method("parallel", protocol), "maj"),
        "sequential: vote": (Method("sequential", protocol), "maj"),
        "sequential: final answer": (Method("sequential", protocol), "final"),
    }
    return _curves(_sampled(e, methods), "k", "K")
