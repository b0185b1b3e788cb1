"""D_critique as a dataset for others: a folder `datasets.load_dataset` reads, and its card."""

import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jinja2

from jaxcritique.critiques.annotate import Annotation
from jaxcritique.critiques.filtering import leaks_answer
from jaxcritique.critiques.pipeline import Candidate
from jaxcritique.critiques.results import CritiqueData
from jaxcritique.prompts.critique import split_steps
from jaxcritique.prompts.templates import PromptSet
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
    kept: Sequence[Candidate], rest: Sequence[Candidate], results: CritiqueData
) -> None:
    """Writes the folder `results.dataset`, in place of the one that is there.

    Args:
      kept: the split "train".
      rest: the split "rejected".
      results: what the dataset card says.
    """
    tasks = sorted({c.critique.solution.problem.task for c in (*kept, *rest)})
    licences = {task: find_task(task).licence for task in tasks}
    card = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        _TEMPLATE.read_text()
    )
    splits = {"train": kept, "rejected": rest}
    with replace_folder(results.dataset) as temporary:
        for name, candidates in splits.items():
            if candidates:
                write_rows(temporary / f"{name}.jsonl", map(dataset_row, candidates))
        text = card.render(
            results=results,
            licences=licences,
            licence=one.pop() if len(one := set(licences.values())) == 1 else "other",
            splits=[name for name, candidates in splits.items() if candidates],
        )
        (temporary / "README.md").write_text(text, encoding="utf-8")


def training_row(prompts: PromptSet, candidate: Candidate) -> dict[str, Any]:
    """Returns a critique as experiments/sft.py learns it (equation 1)."""
    critique = candidate.critique
    return {"messages": prompts.to_critique(critique.solution), "target": critique.text}


def discarded_rows(
    annotations: Iterable[Annotation], candidates: Iterable[Candidate]
) -> Iterator[dict[str, Any]]:
    """Yields every annotation that is no candidate, with what was written and why it is none.

    The outcome is the annotator's, or for a critique that was accepted: "leaking", as the leak
    check has it, or "cut", by the maximum or the mixture.
    """
    chosen = {_path(c.critique.solution) for c in candidates}
    for annotation in annotations:
        solution, critique = annotation.solution, annotation.critique
        if _path(solution) in chosen:
            continue
        accepted = "leaking" if critique and leaks_answer(critique) else "cut"
        yield {
            "problem_id": solution.problem.id,
            "query": solution.problem.question,
            "response": solution.text,
            "correct": solution.correct,
            "source_strategy": solution.source,
            "outcome": accepted if critique else annotation.outcome,
            "text": annotation.text,
        }


def _path(solution: Solution) -> tuple[str, str]:
    return solution.problem.id, solution.text
