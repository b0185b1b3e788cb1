"""D_critique as a dataset for others: a folder `datasets.load_dataset` reads, and its card."""

import collections
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2

from jaxcritique.critiques.annotate import Annotation, ArithmeticAnnotator, is_false
from jaxcritique.critiques.build import STRATEGIES, Candidate
from jaxcritique.critiques.filtering import FilterRule, leaks_answer
from jaxcritique.critiques.flaws import THIRDS, third
from jaxcritique.prompts.critique import split_steps
from jaxcritique.prompts.templates import PromptSet, critique_messages
from jaxcritique.records import Solution
from jaxcritique.store import replace_folder, write_rows
from jaxcritique.tasks import find_task

NONE = -1  # As ProcessBench: no step.
_TEMPLATE = pathlib.Path(__file__).with_name("card.md.jinja")


def dataset_row(candidate: Candidate) -> dict[str, Any]:
    """Returns a candidate as a flat row; steps are counted from 0, -1 meaning none."""
    critique, refined, alone = candidate.critique, candidate.refined, candidate.alone
    solution = critique.solution
    return {
        "problem_id": solution.problem.id,
        "dataset": solution.problem.task,
        "level": solution.problem.level,
        "query": solution.problem.question,
        "answer": solution.problem.answer,
        "response": solution.text,
        "steps": split_steps(solution.text),
        "correct": solution.correct,
        "critique": critique.text,
        "first_error": NONE if critique.first_error is None else critique.first_error,
        "error_type": solution.error_type,
        "error_step": NONE if solution.error_step is None else solution.error_step,
        "error": solution.error,
        "source_strategy": solution.source,
        "annotator": candidate.annotator,
        "filter_counts": {
            "refinements": refined.answered if refined else 0,
            "right": refined.right if refined else 0,
            "leaked": refined.leaked if refined else 0,
            "alone_samples": alone.answered if alone else 0,
            "alone_right": alone.right if alone else 0,
        },
    }


def write_dataset(
    folder: pathlib.Path,
    kept: Sequence[Candidate],
    rest: Sequence[Candidate],
    statistics: Mapping[str, Any],
    command: str,
) -> None:
    """Writes the dataset: what was kept as the split "train", the rest as "rejected", and a card.

    A folder that is there already is replaced as a whole.
    """
    tasks = sorted({c.critique.solution.problem.task for c in (*kept, *rest)})
    licences = {task: find_task(task).licence for task in tasks}
    card = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        _TEMPLATE.read_text()
    )
    splits = {"train": kept, "rejected": rest}
    with replace_folder(folder) as temporary:
        for name, candidates in splits.items():
            if candidates:
                write_rows(temporary / f"{name}.jsonl", map(dataset_row, candidates))
        text = card.render(
            statistics=statistics,
            command=command,
            licences=licences,
            licence=one.pop() if len(one := set(licences.values())) == 1 else "other",
            splits=[name for name, candidates in splits.items() if candidates],
        )
        (temporary / "README.md").write_text(text, encoding="utf-8")


def training_row(prompts: PromptSet, candidate: Candidate) -> dict[str, Any]:
    """Returns a critique as experiments/sft.py learns it (equation 1)."""
    critique = candidate.critique
    return {"messages": critique_messages(prompts, critique.solution), "target": critique.text}


def discarded_rows(
    annotations: Iterable[Annotation], candidates: Iterable[Candidate]
) -> Iterator[dict[str, Any]]:
    """Yields every annotation that is no candidate, with what was written and why it is none.

    The outcome is the annotator's, or for a critique that was accepted: "leaking", as the leak
    check has it, or "cut", by the maximum or the mixture.
    """
    chosen = {_path(c.critique.solution) for c in candidates}
    for annotation in annotations:
        if _path(annotation.solution) not in chosen:
            critique = annotation.critique
            accepted = "leaking" if critique and leaks_answer(critique) else "cut"
            yield _discarded(annotation, accepted if critique else annotation.outcome)


def _path(solution: Solution) -> tuple[str, str]:
    return solution.problem.id, solution.text


def _discarded(annotation: Annotation, outcome: str) -> dict[str, Any]:
    solution = annotation.solution
    return {
        "problem_id": solution.problem.id,
        "query": solution.problem.question,
        "response": solution.text,
        "correct": solution.correct,
        "source_strategy": solution.source,
        "outcome": outcome,
        "text": annotation.text,
    }


def statistics_of(
    candidates: Sequence[Candidate],
    kept: Sequence[Candidate],
    checker: ArithmeticAnnotator | None,
    rule: FilterRule,
) -> dict[str, Any]:
    """Returns what card and results.json say of a dataset.

    Args:
      candidates: all that the filter chose from.
      kept: those that it kept.
      checker: counts false critiques; None where the problems have no calculations.
      rule: by which they were kept; it is among those compared.
    """
    flawed = [c for c in candidates if c.refined is not None]
    kept_flawed = [c for c in kept if c.refined is not None]
    taus = {0.1, 0.3, 0.5, 0.7} | ({rule.tau} if rule.kind == "soft" else set())
    found: dict[str, Any] = {
        "rows": len(kept),
        "table1": _table1(kept),
        "strategies": _shares(c.critique.solution.source for c in kept_flawed),
        "error_types": _shares(
            kind for c in kept_flawed if (kind := c.critique.solution.error_type)
        ),
        "error_positions": {
            strategy: _shares(_positions(kept_flawed, strategy)) for strategy in STRATEGIES
        },
        "located_as_hinted": _located(kept_flawed),
        "filter": {
            rule.kind if rule.kind != "soft" else f"soft, tau={rule.tau:g}": _effect(
                flawed, rule, checker
            )
            for rule in (
                FilterRule("none"),
                FilterRule("hard"),
                *(FilterRule("soft", tau) for tau in sorted(taus)),
            )
        },
    }
    return found


def _table1(kept: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Table 1: critiques by dataset and strategy, of right and of wrong responses."""
    counts = collections.Counter(
        (c.critique.solution.problem.task, c.critique.solution.source, c.critique.solution.correct)
        for c in kept
    )
    return [
        {
            "dataset": dataset,
            "strategy": strategy,
            "right": counts[dataset, strategy, True],
            "wrong": counts[dataset, strategy, False],
        }
        for dataset, strategy in sorted({key[:2] for key in counts})
    ]


def _positions(flawed: Iterable[Candidate], strategy: str) -> list[str]:
    """The third of its steps in which each flawed response first errs, as its critique has it."""
    return [
        THIRDS[third(c.critique.first_error, len(split_steps(c.critique.solution.text)))]
        for c in flawed
        if c.critique.solution.source == strategy and c.critique.first_error is not None
    ]


def _located(flawed: Iterable[Candidate]) -> dict[str, float | None]:
    """Share of critiques whose first error is the step their strategy knew."""
    found = {}
    for strategy in ("RG2", "RG3"):
        known = [c.critique for c in flawed if c.critique.solution.source == strategy]
        found[strategy] = _mean([c.first_error == c.solution.error_step for c in known])
    return found


def _effect(
    flawed: Sequence[Candidate], rule: FilterRule, checker: ArithmeticAnnotator | None
) -> dict[str, Any]:
    """What a rule would keep of the critiques of flawed paths; means are over what came back."""
    kept = [c for c in flawed if c.kept_by(rule)]
    measured = [(c, c.refined.rate) for c in kept if c.refined and c.refined.rate is not None]
    both = [
        (refined, c.alone.rate) for c, refined in measured if c.alone and c.alone.rate is not None
    ]
    judged = [
        false for c in kept if checker and (false := is_false(c.critique, checker)) is not None
    ]
    return {
        "kept": len(kept),
        "of": len(flawed),
        "refined_right": _mean([refined for _, refined in measured]),
        "alone_right": _mean([alone for _, alone in both]),
        "uplift": _mean([refined - alone for refined, alone in both]),
        "solved_alone_anyway": _mean([alone > rule.tau for _, alone in both]),
        "checked": len(judged),
        "false": sum(judged),
        "false_share": _mean(judged),
    }


def _shares(values: Iterable[str]) -> dict[str, float]:
    counts = collections.Counter(values)
    return {value: counts[value] / counts.total() for value in sorted(counts)}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
