"""Evaluates critics: Table 2 of the paper, and first-error localisation as ProcessBench scores it.

    python -m experiments.evaluate_critic --critic=DIR --actor=DIR --data=FILE --run_dir=DIR

FILE is JSONL. Its rows are either problems: GSM8K's {question, answer}, MATH's {problem, solution,
answer}, or those that experiments/build_critiques.py writes; the actor then answers them. Or they
are {problem, steps, first_error}, given solutions with the first wrong step (from 0, -1: none);
where such rows have `gold`, the answer, Table 2 is made of them too.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags

from experiments import engines, games
from experiments.program import (
    about_this_run,
    claim,
    failed_samples,
    refusing_bad_input,
    run,
    settings_but,
)
from jaxcritique.analysis.evaluation_report import costs_table
from jaxcritique.analysis.intervals import accuracy, of_block_means, paired_difference
from jaxcritique.analysis.table import aligned, percent
from jaxcritique.grading import Grader
from jaxcritique.records import Problem, Solution, digest
from jaxcritique.roles import Context, Start, costs_of, refine, respond
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import read_jsonl, write_atomically, write_rows
from jaxcritique.tasks import TINY_BASE, read_any_problems
from jaxcritique.tasks.task import refuse_doubles
from jaxcritique.testtime.critic_metrics import critique_answers, report_on, table2_scores
from jaxcritique.testtime.localisation import (
    Sample,
    harmonic_mean,
    has_steps,
    localisation_report,
    localisation_scores,
    read_samples,
)
from jaxcritique.testtime.rounds import Critic

FLAGS = flags.FLAGS
games.define_flags(seed="Decides the bootstrap's resamples.")
flags.DEFINE_multi_string(
    "critic",
    None,
    "Hugging Face folder of a critic; may be given several times. 'checker': the program that "
    "works out every step against the reference solution, the ceiling.",
    required=True,
)
flags.DEFINE_string("actor", str(TINY_BASE), "Hugging Face folder: who answers and refines.")
flags.DEFINE_string(
    "data", None, "JSONL file of problems, or of solutions in steps.", required=True
)
flags.DEFINE_integer("limit", 0, "Rows used, the first ones; 0: all.", lower_bound=0)

_COLUMNS = (
    ("accuracy_without", "no critic"),
    ("accuracy_refine_all", "refine all"),
    ("accuracy_refine_flagged", "refine flagged"),
    ("accuracy_oracle", "oracle"),
    ("discriminability", "discrim."),
    ("discriminability_right", "of right"),
    ("discriminability_wrong", "of wrong"),
    ("helpfulness", "helpful"),
    ("helpfulness_flagged", "of flagged"),
)


def main(_: list[str]) -> None:
    """Runs the program."""
    started = time.monotonic()
    run_dir, data = pathlib.Path(FLAGS.run_dir), pathlib.Path(FLAGS.data)
    with refusing_bad_input():
        actor_model = games.model("actor", FLAGS.actor)
        critics = {
            name: None if name == games.CHECKER else games.model("critic", name)
            for name in FLAGS.critic
        }
        if not data.is_file():
            raise FileNotFoundError(
                f"--data={data}: no such file. experiments.build_critiques leaves one, "
                "test_problems.jsonl, in its run folder."
            )
        samples: list[Sample] = []
        problems: list[Problem] = []
        if has_steps(next(read_jsonl(data, dict))[1]):
            samples = read_samples(data)[: FLAGS.limit or None]
            known = [s.solution.problem for s in samples if s.solution.problem.answer]
            refuse_doubles(str(data), known)
        else:
            problems = read_any_problems(data)[: FLAGS.limit or None]
            refuse_doubles(str(data), problems)
        if games.CHECKER in critics and samples:
            raise ValueError(
                f"--critic={games.CHECKER} works steps out against reference solutions; "
                f"{data} has none. Leave it out, here and in the flagfile, for rows of steps."
            )
        if games.CHECKER in critics:
            games.refuse_without_calculations(problems)
        # Stages are of their critic's weights, so that critics may change within a folder.
        asked = {"actor model": actor_model.key, "rows of the data": digest(*(samples or problems))}
        claim(run_dir, settings_but(("run_dir", "data", "critic")) | asked)
        engine = engines.engine()
    actor = engine.sampler(actor_model)
    costs: dict[str, dict[str, int]] = {}
    with Grader() as grader, engine:
        context = games.context(grader)
        if problems:
            starts = [Start(problem) for problem in problems]
            responses = respond(context, "respond", actor, starts, 1, 0.0)
            costs["respond"] = costs_of(responses)
            solutions = list(responses)
        else:
            solutions = _graded(grader, samples)
        reports, scores = [], {}
        for name, model in critics.items():
            critic = games.critic(model, engine)
            report, scores[name] = _evaluate(
                context, name, actor, critic, solutions, samples, costs
            )
            reports.append(report)
    results = {
        **about_this_run(started),
        "actor": FLAGS.actor,
        "data": FLAGS.data,
        "failed": failed_samples(costs.values()),
        "critics": reports,
        "comparisons": _comparisons(scores),
        "costs": costs,
    }
    levels = {solution.problem.id: solution.problem.level for solution in solutions}
    write_rows(run_dir / "scores.jsonl", _score_rows(levels, scores))
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    print(_tables(results))
    print(run_dir / "results.json")


def _evaluate(
    context: Context,
    name: str,
    actor: Sampler,
    critic: Critic,
    solutions: Sequence[Solution],
    samples: Sequence[Sample],
    costs: dict[str, dict[str, int]],
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Returns what results.json says of a critic, and the scores behind Table 2.

    Adds what it cost to `costs`.
    """
    critiques = critic(context, "criticise", solutions, 0.0)
    costs[f"criticise: {name}"] = costs_of(critiques)
    critiques = list(critiques)
    found: dict[str, Any] = {"critic": name, "verdicts": critique_answers(critiques)}
    if samples:
        found["localisation"] = {
            **dataclasses.asdict(localisation_report(samples, critiques)),
            "ci95": _localisation_intervals(localisation_scores(samples, critiques)),
        }
    judged = [c for c in critiques if c.solution.problem.answer]
    columns: dict[str, dict[str, float]] = {}
    if judged:
        refined = refine(context, "refine", actor, judged, 1, 0.0)
        costs[f"refine: {name}"] = costs_of(refined)
        refinements = list(refined)
        columns = table2_scores(refinements)
        report = dataclasses.asdict(report_on(refinements))
        intervals = {
            column: accuracy(scores, FLAGS.seed).ci95 if scores else None
            for column, scores in columns.items()
        }
        gain = paired_difference(
            columns["accuracy_refine_all"], columns["accuracy_without"], FLAGS.seed
        )
        found["table2"] = {
            **report,
            "ci95": intervals,
            "gain_refine_all": {"mean": gain.mean, "ci95": gain.ci95},
        }
    return found, columns


def _localisation_intervals(
    scores: dict[str, dict[str, list[float]]],
) -> dict[str, tuple[float, float] | None]:
    """95% intervals of both accuracies and of F1, resampling questions with all their samples."""

    def interval(combine: Callable[..., Any], *columns: str) -> tuple[float, float] | None:
        sides = [scores[column] for column in columns]
        return of_block_means(combine, sides, FLAGS.seed).ci95 if all(sides) else None

    found = {column: interval(lambda mean: mean, column) for column in scores}
    return found | {"f1": interval(harmonic_mean, *scores)}


def _graded(grader: Grader, samples: Sequence[Sample]) -> list[Solution]:
    """Given solutions with the grader's verdict, where the answer is known."""
    grades = grader.grade_all((s.solution.problem.answer, s.solution.text) for s in samples)
    return [
        dataclasses.replace(s.solution, verdict=grade.verdict, answer=grade.extracted)
        if s.solution.problem.answer
        else s.solution
        for s, grade in zip(samples, grades, strict=True)
    ]


def _score_rows(
    levels: dict[str, int | None], scores: dict[str, dict[str, dict[str, float]]]
) -> Iterator[dict[str, Any]]:
    """Every problem's score in every column of Table 2 that it has a part in."""
    for name, columns in scores.items():
        for column, found in columns.items():
            for problem, score in found.items():
                row = {"problem": problem, "level": levels[problem], "method": name}
                yield {**row, "metric": column, "k": 1, "score": score}


def _comparisons(scores: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Every later critic against the first, on the same problems."""
    found = []
    (first, base), *others = scores.items()
    for name, columns in others:
        for column in ("accuracy_refine_all", "accuracy_refine_flagged", "discriminability"):
            if columns and base:
                difference = paired_difference(columns[column], base[column], FLAGS.seed)
                found.append(
                    {
                        "critic": name,
                        "minus": first,
                        "column": column,
                        "difference": difference.mean,
                        "ci95": difference.ci95,
                    }
                )
    return found


def _tables(results: dict[str, Any]) -> str:
    tables = []
    with_table2 = [found for found in results["critics"] if "table2" in found]
    if with_table2:
        head = ("critic", *(title for _, title in _COLUMNS), "unparsable")
        rows: list[Sequence[str]] = [head]
        for found in with_table2:
            report = found["table2"]
            unparsable = f"{report['unparsable']} of {report['n']}"
            rows.append((found["critic"], *(percent(report[c]) for c, _ in _COLUMNS), unparsable))
            rows.append(("", *(_interval(report["ci95"][c]) for c, _ in _COLUMNS), ""))
        tables.append(aligned(rows))
        flows: list[Sequence[str]] = [
            ("critic", "stay right", "right to wrong", "wrong to right", "stay wrong")
        ]
        for found in with_table2:
            counts = (found["table2"][flow] for flow in ("c2c", "c2i", "i2c", "i2i"))
            flows.append((found["critic"], *map(str, counts)))
        tables.append(aligned(flows))
    located = [found for found in results["critics"] if "localisation" in found]
    if located:
        rows = [("critic", "samples", "erroneous found", "correct passed", "F1", "unparsable")]
        for found in located:
            report = found["localisation"]
            shares = (report["accuracy_erroneous"], report["accuracy_correct"], report["f1"])
            unparsable = f"{report['unparsable']} of {report['n']}"
            rows.append((found["critic"], str(report["n"]), *map(percent, shares), unparsable))
            ci95 = report["ci95"]
            bounds = (ci95["accuracy_erroneous"], ci95["accuracy_correct"], ci95["f1"])
            rows.append(("", "", *map(_interval, bounds), ""))
        tables.append(aligned(rows))
    tables.append(aligned(costs_table(results).rows))
    return "\n\n".join(tables)


def _interval(bounds: Sequence[float] | None) -> str:
    return "{:.1f}-{:.1f}".format(*(100 * bound for bound in bounds)) if bounds else ""


if __name__ == "__main__":
    run(main)
