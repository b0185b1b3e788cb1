"""Critics compared: Table 2 of the paper, and first-error localisation as in ProcessBench."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from jaxcritique.analysis.critic_report import critic_tables
from jaxcritique.analysis.intervals import accuracy, of_block_means, paired_difference
from jaxcritique.analysis.page import as_text
from jaxcritique.config import REQUIRED, setting
from jaxcritique.critiques.annotate import require_checker
from jaxcritique.errors import checking_input
from jaxcritique.grading import Grader
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import Critique, Problem, Solution, digest
from jaxcritique.roles import Context, RolesConfig, Start, costs_of, refine, respond
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.run_folder import Results, about_run, claim
from jaxcritique.store import read_jsonl
from jaxcritique.tasks import TINY_BASE, read_any_problems
from jaxcritique.tasks.task import refuse_doubles
from jaxcritique.testtime.critic_metrics import critique_answers, report_on, table2_scores
from jaxcritique.testtime.critics import CHECKER, critic_model, critic_of
from jaxcritique.testtime.localisation import (
    LabelledSolution,
    harmonic_mean,
    has_steps,
    localisation_report,
    localisation_scores,
    read_labelled,
)
from jaxcritique.testtime.rounds import Critic
from jaxcritique.testtime.scores import score_rows

_COMPARED = ("accuracy_refine_all", "accuracy_refine_flagged", "discriminability")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateCriticConfig(RolesConfig):
    """Settings of a comparison of critics."""

    critic: tuple[str, ...] = setting(
        REQUIRED,
        "Hugging Face folder of a critic; may be given several times. 'checker': the program that "
        "works out every step against the reference solution, the ceiling.",
        repeated=True,
    )
    actor: str = setting(str(TINY_BASE), "Hugging Face folder of the actor, who also refines.")
    data: pathlib.Path = setting(REQUIRED, "JSONL file of problems, or of solutions in steps.")
    limit: int = setting(0, "Rows used, the first ones; 0: all.", low=0)


class CriticResult(TypedDict):
    """What results.json says of one critic."""

    critic: str
    verdicts: dict[str, int]  # Critiques that say correct, wrong, or neither.
    localisation: NotRequired[dict[str, Any]]  # `LocalisationReport` with `ci95` of its figures.
    table2: NotRequired[dict[str, Any]]  # `CriticReport` with `ci95` by column, and the gain.


class CriticComparison(TypedDict):
    """A critic minus the first one, on the same problems."""

    critic: str
    minus: str
    column: str  # Of Table 2.
    difference: float
    ci95: tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticEvaluation(Results):
    """Results of a comparison of critics."""

    actor: str
    data: str
    critics: list[CriticResult]
    comparisons: list[CriticComparison]
    costs: dict[str, dict[str, int]]  # `roles.COSTS` of each stage.

    @property
    def table(self) -> str:
        """Table 2, localisation, and costs."""
        return as_text(critic_tables(self.to_json()))


_Columns = dict[str, dict[str, float]]  # Of Table 2, each with scores by problem id.


def evaluate_critic(
    config: EvaluateCriticConfig,
    run_dir: str | os.PathLike[str],
    engine: EngineConfig = EngineConfig(),
) -> CriticEvaluation:
    """Compares critics on the same solutions.

    Rows of the data are either problems, which the actor answers greedily: GSM8K's {question,
    answer}, MATH's {problem, solution, answer}, or this project's own. Or they are solutions:
    {problem, steps, first_error}, the latter counted from 0, -1 where no step is wrong. Each
    solution is criticised once, and refined once after its critique where the answer to its problem
    is known (`gold` in rows of solutions): Table 2 of the paper. Rows of solutions are also scored
    by localisation (ProcessBench, arXiv 2412.06559).

    Args:
      config: critics, actor and data.
      run_dir: folder for stages, results.json and scores.jsonl. Critics may be added later.
      engine: what samples.

    Raises:
      InvalidInput: a setting, file or folder cannot be used.
    """
    started, run_dir = time.monotonic(), pathlib.Path(run_dir)
    with checking_input():
        actor_model = ModelFolder.named("actor", config.actor)
        models = {name: critic_model("critic", name) for name in config.critic}
        problems, labelled = _read(config)
        if CHECKER in models:
            require_checker(f"critic={CHECKER}", problems)
        settings = config.to_json()
        for name in ("data", "critic"):  # Critics may change: their weights name their stages.
            del settings[name]
        settings["actor model"] = actor_model.key
        settings["rows of the data"] = digest(*(labelled or problems))
        claim(run_dir, "evaluate_critic", settings)
        samplers = engine.start()
    costs: dict[str, dict[str, int]] = {}
    with Context.open(config, actor_model, run_dir, samplers) as context:
        actor = context.sampler(actor_model)
        if labelled:
            solutions = _graded(context.grader, labelled)
        else:
            starts = [Start(problem) for problem in problems]
            responses = respond(context, "respond", actor, starts, 1, 0.0)
            costs["respond"] = costs_of(responses)
            solutions = list(responses)
        critics: list[CriticResult] = []
        scores: dict[str, _Columns] = {}
        for name, model in models.items():
            critic = critic_of(context, model)
            result, scores[name] = _result(context, name, actor, critic, solutions, labelled, costs)
            critics.append(result)
    results = CriticEvaluation(
        **about_run(run_dir, config, started, costs),
        actor=config.actor,
        data=str(config.data),
        critics=critics,
        comparisons=_comparisons(scores, config.seed),
        costs=costs,
    )
    answered = [solution.problem for solution in solutions if solution.problem.answer]
    results.write(_score_rows(answered, scores))
    return results


def _read(config: EvaluateCriticConfig) -> tuple[list[Problem], list[LabelledSolution]]:
    """Reads the data: problems or labelled solutions; the other list is empty.

    Raises:
      ValueError: a row cannot be used, or a problem is there twice.
      FileNotFoundError: there is no such file.
    """
    if not config.data.is_file():
        raise FileNotFoundError(
            f"`data={config.data}`: no such file. experiments.build_critiques leaves one, "
            "test_problems.jsonl, in its run folder."
        )
    rows = (row for _, row in read_jsonl(config.data, dict))
    first = next(rows, None)
    if first is None:
        raise ValueError(f"`data={config.data}`: the file has no rows.")
    if not has_steps(first):
        problems = read_any_problems(config.data)[: config.limit or None]
        refuse_doubles(f"`data={config.data}`", problems)
        return problems, []
    if CHECKER in config.critic:
        raise ValueError(
            f"`critic={CHECKER}` works out steps against reference solutions, and {config.data} "
            "has none. Leave it out, here and in the flagfile, for rows of steps."
        )
    labelled = read_labelled(config.data)[: config.limit or None]
    known = [row.solution.problem for row in labelled if row.solution.problem.answer]
    refuse_doubles(f"`data={config.data}`", known)
    return [], labelled


def _result(
    context: Context,
    name: str,
    actor: Sampler,
    critic: Critic,
    solutions: Sequence[Solution],
    labelled: Sequence[LabelledSolution],
    costs: dict[str, dict[str, int]],
) -> tuple[CriticResult, _Columns]:
    """Returns the results of a critic, and the scores behind Table 2; adds its costs to `costs`."""
    stage = critic(context, "criticise", solutions, 0.0)
    costs[f"criticise: {name}"] = costs_of(stage)
    critiques = list(stage)
    result: CriticResult = {"critic": name, "verdicts": critique_answers(critiques)}
    if labelled:
        result["localisation"] = _localisation(labelled, critiques, context.seed)
    graded = [critique for critique in critiques if critique.solution.problem.answer]
    if not graded:
        return result, {}
    refined = refine(context, "refine", actor, graded, 1, 0.0)
    costs[f"refine: {name}"] = costs_of(refined)
    columns = table2_scores(list(refined))
    gain = paired_difference(
        columns["accuracy_refine_all"], columns["accuracy_without"], context.seed
    )
    result["table2"] = {
        **dataclasses.asdict(report_on(list(refined))),
        "ci95": {
            column: accuracy(scores, context.seed).ci95 if scores else None
            for column, scores in columns.items()
        },
        "gain_refine_all": {"mean": gain.mean, "ci95": gain.ci95},
    }
    return result, columns


def _localisation(
    labelled: Sequence[LabelledSolution], critiques: Sequence[Critique], seed: int
) -> dict[str, Any]:
    """The report with 95% intervals, resampling questions with all their solutions."""
    scores = localisation_scores(labelled, critiques)

    def interval(combine: Callable[..., Any], *columns: str) -> tuple[float, float] | None:
        sides = [scores[column] for column in columns]
        return of_block_means(combine, sides, seed).ci95 if all(sides) else None

    ci95 = {column: interval(lambda mean: mean, column) for column in scores}
    ci95["f1"] = interval(harmonic_mean, *scores)
    return {**dataclasses.asdict(localisation_report(labelled, critiques)), "ci95": ci95}


def _graded(grader: Grader, labelled: Sequence[LabelledSolution]) -> list[Solution]:
    """The solutions with the grader's verdict, where the answer to the problem is known."""
    solutions = [row.solution for row in labelled]
    grades = grader.grade_all((solution.problem.answer, solution.text) for solution in solutions)
    return [
        dataclasses.replace(solution, verdict=grade.verdict, answer=grade.extracted)
        if solution.problem.answer
        else solution
        for solution, grade in zip(solutions, grades, strict=True)
    ]


def _score_rows(
    problems: Sequence[Problem], scores: Mapping[str, _Columns]
) -> Iterator[dict[str, Any]]:
    """Yields every problem's score in every column of Table 2 that it has a part in."""
    for name, columns in scores.items():
        for column, by_problem in columns.items():
            about = {"method": name, "metric": column, "k": 1}
            counted = (problem for problem in problems if problem.id in by_problem)
            yield from score_rows(counted, [(about, by_problem)])


def _comparisons(scores: Mapping[str, _Columns], seed: int) -> list[CriticComparison]:
    """Compares every later critic with the first, on the same problems."""
    rows: list[CriticComparison] = []
    (first, base), *others = scores.items()
    for name, columns in others:
        for column in _COMPARED if columns and base else ():
            difference = paired_difference(columns[column], base[column], seed)
            rows.append(
                {
                    "critic": name,
                    "minus": first,
                    "column": column,
                    "difference": difference.mean,
                    "ci95": difference.ci95,
                }
            )
    return rows
