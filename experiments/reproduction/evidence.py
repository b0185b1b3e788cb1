"""What the programs of a reproduction left behind, and how scores are looked up in it.

A lookup that finds nothing raises `NotMeasured` with what is missing: a claim may then be
undecided, but no score is ever made up.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from jaxcritique.analysis.methods import Method
from jaxcritique.store import DamagedFile, read_object

Row = Mapping[str, Any]
Scores = Mapping[int, Mapping[str, float]]  # Seed, then problem id, to the problem's score.
Levels = Mapping[int, Mapping[str, int]]  # Seed, then problem id, to its level, 1 (easy) to 5.

# The parts of a reproduction that are looked in, as experiments/parts.py names them.
IMPROVE, IMPROVE_SMALL = "improve", "improve-small"  # self_improve with the larger and smaller N.
EVALUATE = "evaluate"  # evaluate: the SFT actor and the critic.
VANILLA, CRITIQUE = "evaluate-vanilla", "evaluate-critique"  # The same of the improved actors.
SELF_CORRECTION = "evaluate-self-correction"  # The self-correcting actor, without a critic.
CRITICS = "critics"  # evaluate_critic: UNTRAINED and TRAINED.
CRITICS_LARGE = "critics-large"  # The same of a larger one.
FILTERS = "filters"  # evaluate_critic: critics of data filtered in each of three ways.
SCALING, SELF_TALK = "scaling", "self-talk"
UNTRAINED, TRAINED = "untrained", "trained"


class NotMeasured(Exception):
    """A score that a claim needs is not there; the message says which."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What one program left in its run folder."""

    results: Mapping[str, Any]
    scores: Sequence[Row] = ()  # Rows of scores.jsonl: {problem, level, score} and what is scored.
    training: Sequence[
        Row
    ] = ()  # Rows of training.jsonl: {problem, level, method, iteration, rows}.

    @functools.cached_property
    def scored(self) -> list[tuple[dict[str, Any], list[Row]]]:
        """The rows of `scores`, all that have the same of what is scored together."""
        groups: dict[tuple[Any, ...], tuple[dict[str, Any], list[Row]]] = {}
        for row in self.scores:
            what = {key: row[key] for key in row if key not in ("problem", "level", "score")}
            groups.setdefault(tuple(what.items()), (what, []))[1].append(row)
        return list(groups.values())


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Runs by seed and by the name of the part that each is."""

    runs: Mapping[int, Mapping[str, Run]]

    def of(self, part: str) -> dict[int, Run]:
        """Returns a part's runs by seed.

        Raises:
          NotMeasured: no seed has it.
        """
        found = {seed: runs[part] for seed, runs in self.runs.items() if part in runs}
        if not found:
            raise NotMeasured(f"{part} has not been run")
        return found

    def scores(self, part: str, **wanted: Any) -> Scores:
        """Returns the scores of a part's rows with the wanted values, by seed and problem.

        Raises:
          NotMeasured: the part, or such rows of one of its seeds, are missing.
          ValueError: a problem has several such rows.
        """
        found: dict[int, dict[str, float]] = {}
        for seed, run in self.of(part).items():
            rows = [row for what, rows in run.scored if _has(what, wanted) for row in rows]
            if not rows:
                raise NotMeasured(f"{part}, seed {seed}, has no scores of {_said(wanted)}")
            found[seed] = {row["problem"]: float(row["score"]) for row in rows}
            if len(found[seed]) != len(rows):
                raise ValueError(
                    f"{part}, seed {seed}: {len(rows)} scores of {_said(wanted)} "
                    f"for {len(found[seed])} problems."
                )
        return found

    def values(self, part: str, field: str, **wanted: Any) -> list[Any]:
        """Returns which values a field of the part's rows has, in order; of all its seeds.

        Raises:
          NotMeasured: the part has no row with the wanted values.
        """
        groups = [what for run in self.of(part).values() for what, _ in run.scored]
        found = {what[field] for what in groups if field in what and _has(what, wanted)}
        if not found:
            raise NotMeasured(f"{part} has no {field} of {_said(wanted)}")
        return sorted(found)

    def levels(self, part: str) -> Levels:
        """Returns the difficulty of a part's problems.

        Raises:
          NotMeasured: a problem has no level.
        """
        found = {
            seed: {row["problem"]: row["level"] for row in run.scores}
            for seed, run in self.of(part).items()
        }
        if any(level is None for levels in found.values() for level in levels.values()):
            raise NotMeasured(f"the problems of {part} have no difficulty levels")
        return found


def levels_of_test_problems(e: Evidence) -> Levels:
    """Returns the levels of the test problems: evaluate's, without it those that improve has.

    Raises:
      NotMeasured: neither has any.
    """
    try:
        return e.levels(EVALUATE)
    except NotMeasured:
        return e.levels(IMPROVE)


def with_levels(scores: Scores, levels: Levels) -> Scores:
    """Returns the scores of the seeds that have levels.

    Raises:
      NotMeasured: none has.
    """
    found = {seed: of for seed, of in scores.items() if seed in levels}
    if not found:
        raise NotMeasured("no seed has both scores and difficulty levels")
    return found


def level_in(levels: Levels, seed: int, problem: str) -> int:
    """Returns a problem's level.

    Raises:
      NotMeasured: it has none there.
    """
    try:
        return levels[seed][problem]
    except KeyError:
        raise NotMeasured(f"seed {seed}: problem {problem} has no difficulty level") from None


def minus(first: Scores, second: Scores) -> dict[int, dict[str, float]]:
    """Returns the paired difference, of the seeds that both have.

    Raises:
      NotMeasured: no seed has both.
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


def last_iteration(e: Evidence, part: str, method: str) -> Scores:
    """Returns the scores of the last actor of a method of self-improvement.

    Raises:
      NotMeasured: the part has not been run, or without this method.
    """
    last = max(e.values(part, "iteration", method=method))
    return e.scores(part, method=method, iteration=last)


def training_rows(e: Evidence, method: str) -> dict[int, list[Row]]:
    """Returns, by seed, what the last actor of a method of self-improvement was trained on.

    Raises:
      NotMeasured: there are no such rows, or their problems have no levels.
    """
    found = {}
    for seed, run in e.of(IMPROVE).items():
        rows = [row for row in run.training if row["method"] == method]
        if not rows:
            raise NotMeasured(f"{IMPROVE}, seed {seed}, has no training data of {method}")
        last = max(row["iteration"] for row in rows)
        found[seed] = [row for row in rows if row["iteration"] == last]
        if any(row["level"] is None for row in found[seed]):
            raise NotMeasured("the training problems have no difficulty levels")
    return found


def common_k(evidence: Evidence, parts: Iterable[str]) -> int:
    """Returns the largest K that all of these evaluations vote at: Table 3's.

    Raises:
      NotMeasured: an evaluation is missing, or no K is common to them.
    """
    common = set.intersection(*(set(evidence.values(p, "k", metric="maj")) for p in parts))
    if not common:
        raise NotMeasured("the evaluations have no K in common")
    return max(common)


def actors_by_size(e: Evidence) -> list[str]:
    """Returns the names of the actors of Figure 9, the smallest first.

    Raises:
      NotMeasured: there are none.
    """
    sizes = e.values(SCALING, "parameters")
    return [name for size in sizes for name in e.values(SCALING, "actor", parameters=size)]


def scores_of_actor(e: Evidence, actor: str, method: str) -> Scores:
    """Returns the scores of one of Figure 9's actors, each of a greedy answer.

    Raises:
      NotMeasured: there are none, or they are of several critics in one run.
    """
    for seed, run in e.of(SCALING).items():
        critics = {what.get("critic") for what, _ in run.scored if what["method"] == method}
        if len(critics) > 1:
            raise NotMeasured(
                f"cannot be judged: {SCALING}, seed {seed}, has {len(critics)} critics "
                f"({', '.join(sorted(map(str, critics)))}), and this is about one"
            )
    return e.scores(SCALING, actor=actor, method=method, metric="greedy")


def mean_over_actors(e: Evidence, method: str) -> Scores:
    """Returns each problem's mean score over Figure 9's actors.

    Raises:
      NotMeasured: see `scores_of_actor`; or an actor lacks a seed or a problem that another has.
    """
    found = {actor: scores_of_actor(e, actor, method) for actor in actors_by_size(e)}
    pairs = {
        actor: {(seed, problem) for seed, of in scores.items() for problem in of}
        for actor, scores in found.items()
    }
    for actor, has in pairs.items():
        if lacking := set().union(*pairs.values()) - has:
            seed, problem = min(lacking)
            raise NotMeasured(
                f"cannot be judged: {SCALING}, seed {seed}, has no score of actor {actor} with "
                f"{method} for problem {problem}, which others have"
            )
    first = next(iter(found.values()))
    return {
        seed: {problem: fmean(scores[seed][problem] for scores in found.values()) for problem in of}
        for seed, of in first.items()
    }


def read_run(folder: pathlib.Path) -> Run:
    """Reads what a program left in its run folder.

    Raises:
      FileNotFoundError: it has not come to its results.
      DamagedFile: a file is not what it should be; its name and line are given.
    """
    results = read_object(folder / "results.json")
    return Run(results, _rows(folder / "scores.jsonl"), _rows(folder / "training.jsonl"))


def _rows(path: pathlib.Path) -> list[Row]:
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line:
            row = None
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line)
            if not isinstance(row, dict):
                raise DamagedFile(
                    f"{path}, line {number}: not a JSON object. Delete results.json beside it, and "
                    "the same command makes both anew."
                )
            rows.append(row)
    return rows


def _has(what: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(
        what.get(key) == (str(value) if isinstance(value, Method) else value)
        for key, value in wanted.items()
    )


def _said(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in wanted.items())
