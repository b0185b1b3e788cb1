"""Figures 1 and 5 to 12 of the paper, from what the parts of a reproduction left."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from experiments.reproduction.evidence import (
    EVALUATE,
    IMPROVE,
    IMPROVE_SMALL,
    SCALING,
    Evidence,
    Levels,
    NotMeasured,
    Scores,
    actors_by_size,
    last_iteration,
    level_in,
    levels_of_test_problems,
    minus,
    scores_of_actor,
    training_rows,
    with_levels,
)
from experiments.reproduction.measuring import average, estimate_of, share_contrast
from jaxcritique.analysis import figures
from jaxcritique.analysis.methods import (
    ALONE,
    MULTIPLES,
    SHARE,
    VOTE,
    Method,
    in_parallel,
    in_sequence,
    multiple,
)

_LEVEL = "Difficulty level (1: easy, 5: hard)"


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure of the paper, the rows it was drawn from, or why it could not be drawn."""

    name: str
    caption: str
    parts: tuple[str, ...]  # Whose commands made it.
    svg: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    why: str = ""


Rows = list[dict[str, Any]]


def paper_figures(evidence: Evidence, protocol: str) -> list[Drawn]:
    """Draws all figures that can be; the others say what is missing.

    Args:
      evidence: what the parts left.
      protocol: which answers are refined where a critic is used.
    """
    found = []
    for name, caption, parts, draw in _FIGURES:
        try:
            svg, rows = draw(evidence, protocol)
            found.append(Drawn(name, caption, parts, svg, rows))
        except NotMeasured as error:
            found.append(Drawn(name, caption, parts, why=str(error)))
    return found


# ---- rows: {series, x or group, mean, ci95}


def _row(series: str, scores: Scores, **at: Any) -> dict[str, Any]:
    estimate = average(scores)
    return {"series": series, **at, "mean": estimate.mean, "ci95": estimate.ci95}


def _curves(rows: Rows, x: str, xlabel: str, doubling: bool = True) -> tuple[str, Rows]:
    series: dict[str, list[tuple[float, float, float, float]]] = {}
    for row in sorted(rows, key=lambda row: row[x]):
        series.setdefault(row["series"], []).append((row[x], row["mean"], *row["ci95"]))
    ordered = {name: series[name] for name in dict.fromkeys(row["series"] for row in rows)}
    return figures.curves(ordered, xlabel, doubling), rows


def _bars(rows: Rows, group: str, xlabel: str, ylabel: str) -> tuple[str, Rows]:
    series: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row in rows:
        found = series.setdefault(row["series"], {})
        found[str(row[group])] = (row["mean"], *row["ci95"])
    return figures.bars(series, xlabel, ylabel), rows


def _at_level(scores: Scores, levels: Levels, level: int) -> Scores:
    """The scores of the problems of a level."""
    return {
        seed: {p: score for p, score in found.items() if level_in(levels, seed, p) == level}
        for seed, found in with_levels(scores, levels).items()
    }


def _by_level(series: Mapping[str, Scores], levels: Levels) -> Rows:
    known = sorted({level for found in levels.values() for level in found.values()})
    rows = []
    for name, scores in series.items():
        for level in known:
            here = _at_level(scores, levels, level)
            if any(here.values()):
                rows.append(_row(name, here, level=level, problems=len(_problems(here))))
    return rows


def _problems(scores: Scores) -> set[str]:
    return set().union(*scores.values())


# ---- the figures


def _sampled(e: Evidence, methods: Mapping[str, tuple[Method, str]]) -> Rows:
    """A row for each method (by name: method and metric) and K."""
    rows = []
    for name, (method, metric) in methods.items():
        for k in e.values(EVALUATE, "k", method=method, metric=metric):
            scores = e.scores(EVALUATE, method=method, metric=metric, k=k)
            points = [
                point
                for run in e.of(EVALUATE).values()
                for point in run.results.get("points", ())
                if (point["method"], point["metric"], point["k"]) == (str(method), metric, k)
            ]
            costs = {key: fmean(p[key] for p in points) for key in ("samples", "tokens") if points}
            rows.append(_row(name, scores, k=k, **costs))
    return rows


def _figure1(e: Evidence, protocol: str) -> tuple[str, Rows]:
    methods = {str(multiple(times)): (multiple(times), "maj") for times in MULTIPLES}
    methods["with critic"] = (in_parallel(protocol), "maj")
    return _curves(_sampled(e, methods), "k", "K")


def _figure1_tokens(e: Evidence, protocol: str) -> tuple[str, Rows]:
    alone = {str(multiple(times)): (multiple(times), "maj") for times in MULTIPLES}
    rows = [{**row, "series": str(ALONE)} for row in _sampled(e, alone)]
    rows = list({row["samples"]: row for row in rows if "samples" in row}.values())
    for name, method in (("parallel", in_parallel), ("sequential", in_sequence)):
        with contextlib.suppress(NotMeasured):
            found = _sampled(e, {f"{name}, with critic": (method(protocol), "maj")})
            rows += [row for row in found if "tokens" in row]
    if not rows:
        raise NotMeasured("evaluate's results do not say how many tokens its points took")
    return _curves(rows, "tokens", "Generated tokens a problem")


def _figure5(e: Evidence, protocol: str) -> tuple[str, Rows]:
    levels = e.levels(EVALUATE)
    series = {
        name: e.scores(EVALUATE, method=method, metric="greedy", k=1)
        for name, method in ((str(ALONE), ALONE), ("with critic", protocol))
    }
    return _bars(_by_level(series, levels), "level", _LEVEL, "Accuracy")


def _figure6(e: Evidence, _: str) -> tuple[str, Rows]:
    rows = []
    for part, size in ((IMPROVE_SMALL, "smaller N"), (IMPROVE, "larger N")):
        try:
            runs = e.of(part).values()
        except NotMeasured:
            continue
        sizes = {run.results.get("settings", {}).get("samples") for run in runs}
        said = f"N={sizes.pop()}" if len(sizes) == 1 and None not in sizes else size
        for method, name in (("vanilla", "vanilla"), ("critique", "critique-in-the-loop")):
            for iteration in e.values(part, "iteration", method=method):
                scores = e.scores(part, method=method, iteration=iteration)
                rows.append(_row(f"{name}, {said}", scores, iteration=iteration))
    if not rows:
        raise NotMeasured(f"{IMPROVE} has not been run")
    return _curves(rows, "iteration", "Iteration (0: the fine-tuned actor)", doubling=False)


def _figure7(e: Evidence, _: str) -> tuple[str, Rows]:
    """Shares of levels in the training data, critique-in-the-loop less vanilla."""
    shares = {
        method: _level_shares(
            (row["level"], row["rows"])
            for found in training_rows(e, method).values()
            for row in found
        )
        for method in ("critique", "vanilla")
    }
    levels = sorted(shares["critique"].keys() | shares["vanilla"].keys())
    rows = []
    for level in levels:
        estimate = estimate_of(share_contrast(e, (level,)))
        rows.append(
            {
                "series": "critique-in-the-loop - vanilla",
                "level": level,
                "mean": estimate.mean,
                "ci95": estimate.ci95,
                **{method: found.get(level, 0.0) for method, found in shares.items()},
            }
        )
    return _bars(rows, "level", _LEVEL, "Share of the training data, difference")


def _level_shares(rows: Iterable[tuple[int, int]]) -> dict[int, float]:
    counts: Counter[int] = Counter()
    for level, many in rows:
        counts[level] += many
    return {level: many / counts.total() for level, many in counts.items()}


def _figure8(e: Evidence, _: str) -> tuple[str, Rows]:
    gain = minus(*(last_iteration(e, IMPROVE, m) for m in ("critique", "vanilla")))
    rows = _by_level({"critique-in-the-loop - vanilla": gain}, levels_of_test_problems(e))
    return _bars(rows, "level", _LEVEL, "Test accuracy, difference")


def _figure9(e: Evidence, protocol: str) -> tuple[str, Rows]:
    rows = []
    names = ((str(ALONE), ALONE), ("with critic", protocol), ("with critic, oracle", "oracle"))
    for actor in actors_by_size(e):
        for name, method in names:
            rows.append(_row(name, scores_of_actor(e, actor, str(method)), actor=actor))
    return _bars(rows, "actor", "Actor", "Accuracy")


def _figure10(e: Evidence, protocol: str) -> tuple[str, Rows]:
    panels: dict[str, list[tuple[float, bool]]] = {}
    rows = []
    for name, method in (("without critic", ALONE), ("with critic", in_parallel(protocol))):
        shares = e.scores(EVALUATE, method=method, metric=SHARE)
        votes = e.scores(EVALUATE, method=method, metric=VOTE)
        questions = [
            (seed, problem, share, bool(votes[seed][problem]))
            for seed, found in shares.items()
            for problem, share in found.items()
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
        e.scores(EVALUATE, method=in_parallel(protocol), metric=VOTE),
        e.scores(EVALUATE, method=ALONE, metric=VOTE),
    )
    changes = [change for found in turned.values() for change in found.values()]
    return changes.count(1.0), changes.count(-1.0), len(changes)


def _figure11(e: Evidence, protocol: str) -> tuple[str, Rows]:
    methods = {
        str(ALONE): (ALONE, "pass"),
        "parallel": (in_parallel(protocol), "pass"),
        "sequential": (in_sequence(protocol), "pass"),
    }
    return _curves(_sampled(e, methods), "k", "K")


def _figure12(e: Evidence, protocol: str) -> tuple[str, Rows]:
    methods = {
        "parallel: vote": (in_parallel(protocol), "maj"),
        "sequential: vote": (in_sequence(protocol), "maj"),
        "sequential: final answer": (in_sequence(protocol), "final"),
    }
    return _curves(_sampled(e, methods), "k", "K")


_Draw = Callable[[Evidence, str], tuple[str, Rows]]
_FIGURES: tuple[tuple[str, str, tuple[str, ...], _Draw], ...] = (
    (
        "figure_1",
        "Figure 1. Majority vote against K; 2K and 3K are votes of as many samples",
        (EVALUATE,),
        _figure1,
    ),
    (
        "figure_1_tokens",
        "Figure 1, by compute. Majority vote against the tokens generated for a problem",
        (EVALUATE,),
        _figure1_tokens,
    ),
    (
        "figure_5",
        "Figure 5. Greedy accuracy by difficulty, without and with critic",
        (EVALUATE,),
        _figure5,
    ),
    (
        "figure_6",
        "Figure 6. Self-improvement: greedy test accuracy by iteration",
        (IMPROVE_SMALL, IMPROVE),
        _figure6,
    ),
    (
        "figure_7",
        "Figure 7. Training data of the last iteration by difficulty: critique-in-the-loop's share "
        "less vanilla's",
        (IMPROVE,),
        _figure7,
    ),
    (
        "figure_8",
        "Figure 8. Test accuracy after the last iteration by difficulty: critique-in-the-loop less "
        "vanilla",
        (IMPROVE, EVALUATE),
        _figure8,
    ),
    (
        "figure_9",
        "Figure 9. One critic, actors of several sizes",
        (SCALING,),
        _figure9,
    ),
    (
        "figure_10",
        "Figure 10. Each question's share of right samples, and whether their vote is right",
        (EVALUATE,),
        _figure10,
    ),
    (
        "figure_11",
        "Figure 11. Pass@K, parallel and sequential",
        (EVALUATE,),
        _figure11,
    ),
    (
        "figure_12",
        "Figure 12. Votes and final answers, parallel and sequential",
        (EVALUATE,),
        _figure12,
    ),
)
