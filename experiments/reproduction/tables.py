"""Tables 1 to 5 of the paper, from the outputs of the parts."""

import contextlib
import dataclasses
from collections.abc import Callable
from functools import partial
from statistics import fmean
from typing import Any

from experiments.reproduction import parts
from experiments.reproduction.claims import ABLATIONS, EQUAL_TOKENS
from experiments.reproduction.evidence import (
    Evidence,
    NotMeasured,
    SeedScores,
    common_k,
    last_iteration,
    minus,
)
from experiments.reproduction.measuring import average
from jaxcritique.analysis.methods import ALONE, Method
from jaxcritique.analysis.page import Table, gain_cell, share_cell
from jaxcritique.analysis.table import percent
from jaxcritique.improvement import self_talk_report as table5

Cells = tuple[str, ...]
_Make = Callable[[Evidence, str], tuple[list[Cells], str]]  # Rows, the header first, and a note.
_TABLES: list[tuple[str, _Make]] = []
_INTERVALS = "In brackets 95% intervals, problems resampled with their scores in all seeds."


def paper_tables(evidence: Evidence, protocol: str) -> list[Table]:
    """Makes all tables; one that cannot be made has no rows, and a note that says why.

    Args:
      evidence: the outputs of the parts.
      protocol: which answers are refined with a critic.
    """
    tables = []
    for title, make in _TABLES:
        try:
            rows, note = make(evidence, protocol)
        except NotMeasured as error:
            rows, note = [], f"Not measured: {error}."
        tables.append(Table(title, rows, note))
    return tables


def _table(title: str) -> Callable[[_Make], None]:
    """Adds a table to those of `paper_tables`."""
    return lambda make: _TABLES.append((title, make))


def _cell(scores: SeedScores) -> str:
    return share_cell(dataclasses.asdict(average(scores)))


def _cell_or_dash(e: Evidence, part: str, **wanted: Any) -> str:
    """A cell, or a dash where it was not measured."""
    try:
        return _cell(e.scores(part, **wanted))
    except NotMeasured:
        return "-"


@_table("Table 1. Statistics of the critique data")
def _table1(e: Evidence, _: str) -> tuple[list[Cells], str]:
    outputs = e.of(parts.CRITIQUES)
    counts: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for output in outputs.values():
        for row in output.results["table1"]:
            key = row["dataset"], row["strategy"]
            counts.setdefault(key, []).append((row["right"], row["wrong"]))
    rows: list[Cells] = [("Dataset", "Strategy", "Correct responses", "Wrong responses")]
    for key, of_seeds in sorted(counts.items()):
        rows.append((*key, *(f"{sum(column):,}" for column in zip(*of_seeds, strict=True))))
    return rows, f"Of {len(outputs)} seeds together." if len(outputs) > 1 else ""


@_table("Section 3.3. What the Monte-Carlo filter keeps")
def _filter_table(e: Evidence, _: str) -> tuple[list[Cells], str]:
    filters = [output.results["filter"] for output in e.of(parts.CRITIQUES).values()]
    rows: list[Cells] = [("Filter", "Kept", "of", "Refined right", "Right alone", "False")]
    for rule in filters[0]:
        effects = [effect[rule] for effect in filters if rule in effect]
        shares = [
            [effect[key] for effect in effects if effect[key] is not None]
            for key in ("refined_right", "alone_right", "false_share")
        ]
        counts = (f"{sum(effect[key] for effect in effects):,}" for key in ("kept", "of"))
        rows.append((rule, *counts, *(percent(fmean(s) if s else None) for s in shares)))
    note = (
        "Critiques of wrong responses, of all seeds together; shares are means over seeds. False: "
        "critiques that a program which works every step out contradicts (the paper's people found "
        "1.2% of low quality). Right alone: what the actor solves without any critique."
    )
    return rows, note


@_table("Table 2. What critics are worth at test time")
def _table2(e: Evidence, _: str) -> tuple[list[Cells], str]:
    columns = {
        "accuracy_refine_all": "Acc., all refined",
        "accuracy_refine_flagged": "Acc., flagged refined",
        "accuracy_oracle": "Acc., oracle",
        "discriminability": "Discrimin.",
        "helpfulness": "Helpfulness",
    }
    # The same for both critics; where no critique passed the filter the trained one is the base.
    alone = _cell(e.scores(parts.CRITICS, method=parts.UNTRAINED, metric="accuracy_without"))
    rows: list[Cells] = [("Critic", *columns.values()), ("no critic", *[alone] * 3, "-", "-")]
    critics = [(parts.CRITICS, name, f"{name} critic") for name in (parts.UNTRAINED, parts.TRAINED)]
    with contextlib.suppress(NotMeasured):
        larger = e.values(parts.CRITICS_LARGE, "method")
        critics += [(parts.CRITICS_LARGE, critic, f"{critic} critic") for critic in larger]
    critics += [(parts.FILTERS, kind, f"of data filtered: {kind}") for kind in parts.KINDS]
    for part, critic, name in critics:
        cells = [_cell_or_dash(e, part, method=critic, metric=column) for column in columns]
        if set(cells) != {"-"}:
            rows.append((name, *cells))
    apart = "The critics of filtered data learnt from Table 1's critiques, the trained one did not."
    return rows, f"{_INTERVALS} {apart}"


@_table("Table 3. Training-time and test-time methods combined")
def _table3(e: Evidence, protocol: str) -> tuple[list[Cells], str]:
    k = common_k(e, (parts.EVALUATE,))
    with contextlib.suppress(NotMeasured):  # Otherwise it is of the rows that there are.
        k = common_k(e, (parts.EVALUATE, parts.VANILLA, parts.CRITIQUE, parts.SELF_CORRECTION))
    with_critic = (Method("one round", protocol), Method("parallel", protocol), "with critic")
    alone = (ALONE, ALONE, "response only")
    corrected = (
        Method("one round", "refine_all"),
        Method("parallel", "refine_all"),
        "self-correction",
    )
    lines = (
        ("Supervised fine-tuning", parts.EVALUATE, (alone, with_critic)),
        ("Self-correction fine-tuning", parts.SELF_CORRECTION, (alone, corrected)),
        ("Vanilla self-improvement", parts.VANILLA, (alone, with_critic)),
        ("Critique-in-the-loop", parts.CRITIQUE, (alone, with_critic)),
    )
    rows: list[Cells] = [("Training", "Test time", "Acc.", f"Pass@{k}", f"MV@{k}")]
    for training, part, methods in lines:
        cell = partial(_cell_or_dash, e, part)
        for greedy, sampled, name in methods:
            accuracy = cell(method=greedy, metric="greedy", k=1)
            votes = (cell(method=sampled, metric=metric, k=k) for metric in ("pass", "maj"))
            rows.append((training, name, accuracy, *votes))
    return rows, f"{_INTERVALS} Acc. is of greedy answers, the others are of samples."


@_table("Table 4. Ablations of critique-in-the-loop self-improvement")
def _table4(e: Evidence, _: str) -> tuple[list[Cells], str]:
    whole = last_iteration(e, parts.IMPROVE, "critique")
    rows: list[Cells] = [("Method", "Acc.", "Minus the whole method, points")]
    rows.append(("Critique-in-the-loop", _cell(whole), ""))
    for method, name in (*ABLATIONS.items(), (EQUAL_TOKENS, "vanilla, of as many tokens")):
        try:
            scores = last_iteration(e, parts.IMPROVE, method)
        except NotMeasured:
            if method in ABLATIONS:
                rows.append((name, "-", "-"))
            continue
        change = average(minus(scores, whole))
        rows.append((name, _cell(scores), gain_cell(change.mean, change.ci95)))
    return rows, _INTERVALS


@_table("Table 5. Self-talk via critique")
def _table5(e: Evidence, protocol: str) -> tuple[list[Cells], str]:
    names = {
        table5.SELF_CORRECTION: "Self-correction",
        table5.SELF_TALK: "Self-talk via critique",
        protocol: "Fine-tuning, with critic at test time",
    }
    rows: list[Cells] = [("Method", "Acc.")]
    for method, name in names.items():
        rows.append((name, _cell(e.scores(parts.SELF_TALK, method=method, metric="greedy"))))
    return rows, f"{_INTERVALS} Self-correction is a fine-tuning of this part's own, not Table 3's."
