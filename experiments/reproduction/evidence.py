"""The outputs of a reproduction's parts, and how scores are looked up in them.

All lookups raise `NotMeasured` if they find nothing, and say what is missing: a claim may then be
undecided, but no score is ever made up.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from experiments.reproduction.parts import EVALUATE, IMPROVE, SCALING
from jaxcritique.analysis.methods import Method
from jaxcritique.store import read_jsonl, read_object

Row = Mapping[str, Any]  # Of a JSONL file.
SeedScores = Mapping[int, Mapping[str, float]]  # Seed, then problem id, to the problem's score.
Levels = Mapping[int, Mapping[str, int]]  # Seed, then problem id, to its level, 1 (easy) to 5.


class NotMeasured(Exception):
    """A score that a claim needs is missing; the message says which."""


@dataclasses.dataclass(frozen=True)
class PartCost:
    """The cost of a part with one seed."""

    part: str
    seed: int
    seconds: float
    generated_tokens: int
    training_steps: int
    failed: int  # Samples.
    command: str


@dataclasses.dataclass(frozen=True)
class PartOutput:
    """What a part's program wrote into its run folder."""

    results: Mapping[str, Any]
    scores: Sequence[Row] = ()  # Rows of scores.jsonl: {problem, level, score} and what is scored.
    training: Sequence[Row] = ()  # Of training.jsonl: {problem, level, method, iteration, rows}.

    @functools.cached_property
    def scored(self) -> list[tuple[dict[str, Any], list[Row]]]:
        """The rows of `scores`, grouped by what is scored: all their other fields."""
        groups: dict[tuple[Any, ...], tuple[dict[str, Any], list[Row]]] = {}
        for row in self.scores:
            what = {key: row[key] for key in row if key not in ("problem", "level", "score")}
            groups.setdefault(tuple(what.items()), (what, []))[1].append(row)
        return list(groups.values())


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The outputs of parts, by seed and part."""

    outputs: Mapping[int, Mapping[str, PartOutput]]

    def of(self, part: str) -> dict[int, PartOutput]:
        """Returns the outputs of a part, by seed."""
        outputs = {seed: parts[part] for seed, parts in self.outputs.items() if part in parts}
        if not outputs:
            raise NotMeasured(f"{part} has not been run")
        return outputs

    def scores(self, part: str, **wanted: Any) -> SeedScores:
        """Returns the scores of a part's rows with the wanted values, by seed and problem.

        Raises:
          ValueError: a problem has several such rows.
        """
        scores: dict[int, dict[str, float]] = {}
        for seed, output in self.of(part).items():
            rows = [row for what, rows in output.scored if _has(what, wanted) for row in rows]
            if not rows:
                raise NotMeasured(f"{part}, seed {seed}, has no scores of {_in_words(wanted)}")
            scores[seed] = {row["problem"]: float(row["score"]) for row in rows}
            if len(scores[seed]) != len(rows):
                raise ValueError(
                    f"{part}, seed {seed}: {len(rows)} scores of {_in_words(wanted)} "
                    f"for {len(scores[seed])} problems."
                )
        return scores

    def values(self, part: str, field: str, **wanted: Any) -> list[Any]:
        """Returns the values of a field among a part's rows with the wanted values, sorted."""
        scored = [what for output in self.of(part).values() for what, _ in output.scored]
        values = {what[field] for what in scored if field in what and _has(what, wanted)}
        if not values:
            raise NotMeasured(f"{part} has no {field} of {_in_words(wanted)}")
        return sorted(values)

    def levels(self, part: str) -> Levels:
        """Returns the difficulty of a part's problems."""
        levels = {
            seed: {row["problem"]: row["level"] for row in output.scores}
            for seed, output in self.of(part).items()
        }
        if any(level is None for of_seed in levels.values() for level in of_seed.values()):
            raise NotMeasured(f"the problems of {part} have no difficulty levels")
        return levels


def levels_of_test_problems(e: Evidence) -> Levels:
    """Returns the levels of the test problems: evaluate's, without it those that improve has."""
    try:
        return e.levels(EVALUATE)
    except NotMeasured:
        return e.levels(IMPROVE)


def at_levels(
    scores: SeedScores, levels: Levels, wanted: Callable[[int], bool]
) -> dict[int, dict[str, float]]:
    """Returns the scores of problems with wanted levels, of the seeds that have levels."""
    seeds = [seed for seed in scores if seed in levels]
    if not seeds:
        raise NotMeasured("no seed has both scores and difficulty levels")
    for seed in seeds:
        if without := [problem for problem in scores[seed] if problem not in levels[seed]]:
            raise NotMeasured(f"seed {seed}: problem {without[0]} has no difficulty level")
    return {
        seed: {p: score for p, score in scores[seed].items() if wanted(levels[seed][p])}
        for seed in seeds
    }


def minus(first: SeedScores, second: SeedScores) -> dict[int, dict[str, float]]:
    """Returns the paired difference, of the seeds that both have.

    Raises:
      ValueError: within a seed the two do not score the same problems.
    """
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        raise NotMeasured("no seed has both sides of the comparison")
    for seed in seeds:
        if unpaired := first[seed].keys() ^ second[seed].keys():
            raise ValueError(f"seed {seed}: {len(unpaired)} problems are scored by one side only.")
    return {
        seed: {problem: score - second[seed][problem] for problem, score in first[seed].items()}
        for seed in seeds
    }


def last_iteration(e: Evidence, part: str, method: str) -> SeedScores:
    """Returns the scores of the last actor of a method of self-improvement."""
    last = max(e.values(part, "iteration", method=method))
    return e.scores(part, method=method, iteration=last)


def training_rows(e: Evidence, method: str) -> dict[int, list[Row]]:
    """Returns, by seed, what the last actor of a method of self-improvement was trained on."""
    last_rows = {}
    for seed, output in e.of(IMPROVE).items():
        rows = [row for row in output.training if row["method"] == method]
        if not rows:
            raise NotMeasured(f"{IMPROVE}, seed {seed}, has no training data of {method}")
        last = max(row["iteration"] for row in rows)
        last_rows[seed] = [row for row in rows if row["iteration"] == last]
        if any(row["level"] is None for row in last_rows[seed]):
            raise NotMeasured("the training problems have no difficulty levels")
    return last_rows


def common_k(evidence: Evidence, parts: Iterable[str]) -> int:
    """Returns the largest K at which all of these evaluations vote: that of Table 3."""
    common = set.intersection(*(set(evidence.values(p, "k", metric="maj")) for p in parts))
    if not common:
        raise NotMeasured("the evaluations have no K in common")
    return max(common)


def actors_by_size(e: Evidence) -> list[str]:
    """Returns the names of the actors of Figure 9, the smallest first."""
    sizes = e.values(SCALING, "parameters")
    return [name for size in sizes for name in e.values(SCALING, "actor", parameters=size)]


def scores_of_actor(e: Evidence, actor: str, method: Method) -> SeedScores:
    """Returns the scores of one of Figure 9's actors, each of a greedy answer."""
    for seed, output in e.of(SCALING).items():
        scored = (what for what, _ in output.scored if what["method"] == str(method))
        critics = {what.get("critic") for what in scored}
        if len(critics) > 1:
            raise NotMeasured(
                f"cannot be judged: {SCALING}, seed {seed}, has {len(critics)} critics "
                f"({', '.join(sorted(map(str, critics)))}), and this is about one"
            )
    return e.scores(SCALING, actor=actor, method=method, metric="greedy")


def mean_over_actors(e: Evidence, method: Method) -> SeedScores:
    """Returns each problem's mean score over Figure 9's actors."""
    scores = {actor: scores_of_actor(e, actor, method) for actor in actors_by_size(e)}
    scored = {
        actor: {(seed, problem) for seed, problems in of.items() for problem in problems}
        for actor, of in scores.items()
    }
    every = set().union(*scored.values())
    for actor, pairs in scored.items():
        if lacking := every - pairs:
            seed, problem = min(lacking)
            raise NotMeasured(
                f"cannot be judged: {SCALING}, seed {seed}, has no score of actor {actor} with "
                f"{method} for problem {problem}, which others have"
            )
    return {
        seed: {problem: fmean(of[seed][problem] for of in scores.values()) for problem in problems}
        for seed, problems in next(iter(scores.values())).items()
    }


def read_output(folder: pathlib.Path) -> PartOutput:
    """Reads what a program wrote into its run folder.

    Raises:
      FileNotFoundError: it has no results yet.
      InvalidInput: a file is damaged; its name and line are given.
    """
    results = read_object(folder / "results.json")
    return PartOutput(results, _rows(folder / "scores.jsonl"), _rows(folder / "training.jsonl"))


def _rows(path: pathlib.Path) -> list[Row]:
    if not path.is_file():
        return []
    remedy = "Delete results.json beside it, and the same command makes both anew."
    return [row for _, row in read_jsonl(path, dict, remedy)]


def _has(what: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether fields have the wanted values; rows hold the names of methods."""
    return all(
        what.get(key) == (str(value) if isinstance(value, Method) else value)
        for key, value in wanted.items()
    )


def _in_words(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in wanted.items())
