"""What `experiments/reproduce.py` found: claims, the paper's tables, and the page with it all."""

import contextlib
import dataclasses
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from experiments.reproduction.claims import ABLATIONS, EQUAL_TOKENS, measure_claims
from experiments.reproduction.evidence import (
    CRITICS,
    CRITICS_LARGE,
    CRITIQUE,
    EVALUATE,
    FILTERS,
    IMPROVE,
    SELF_CORRECTION,
    SELF_TALK,
    TRAINED,
    UNTRAINED,
    VANILLA,
    Evidence,
    NotMeasured,
    Scores,
    common_k,
    last_iteration,
    minus,
)
from experiments.reproduction.figures import Drawn, flips, paper_figures
from experiments.reproduction.measuring import average
from jaxcritique.analysis.methods import ALONE, in_parallel
from jaxcritique.analysis.page import (
    Table,
    csv_text,
    gain_cell,
    marked_lines,
    share_cell,
    write_page,
)
from jaxcritique.analysis.table import markdown, percent
from jaxcritique.improvement import self_talk_report as table5
from jaxcritique.store import write_atomically

Row = tuple[str, ...]
# What a claim's "holds" says to people.
WORDS = {
    "yes": "holds",
    "no": "does not hold",
    "undecided": "undecided",
    "unmeasured": "not measured",
}
_OTHER = {"refine_flagged": "refine_all", "refine_all": "refine_flagged"}


def write_reproduction(
    evidence: Evidence,
    protocol: str,
    command: str,
    settings: Mapping[str, str],
    costs: Sequence[Mapping[str, Any]],
    run_dir: pathlib.Path,
) -> dict[str, Any]:
    """Writes results.json, report.html, results.md, and the figures' numbers to figures/NAME.csv.

    Args:
      evidence: what the parts left.
      protocol: which answers are refined where a critic is used; the claims are measured with the
        other one too.
      command: that made all of it.
      settings: flags by part.
      costs: {part, seed, seconds, generated_tokens, training_steps, failed (samples), command} of
        what is done.
      run_dir: where to write.

    Returns:
      What results.json holds.

    Raises:
      ValueError: records contradict each other.
    """
    measured = measure_claims(evidence, protocol)
    claims = [_claim_cells(claim) for claim in measured]
    otherwise = measure_claims(evidence, _OTHER[protocol])
    tables = [
        *_otherwise(measured, otherwise, _OTHER[protocol]),
        *(_tabulated(title, make, evidence, protocol) for title, make in _TABLES.items()),
    ]
    figures = paper_figures(evidence, protocol)
    commands = {(cost["part"], cost["seed"]): cost["command"] for cost in costs}
    for figure in figures:
        path = run_dir / "figures" / f"{figure.name}.csv"
        if figure.rows:
            write_atomically(path, csv_text(figure.rows))
        else:  # Of another report, if there is one.
            path.unlink(missing_ok=True)
    cost_table = _cost_table(costs)
    results = {
        "command": command,
        "protocol": protocol,
        "seeds": list(evidence.runs),
        "claims": measured,
        "claims_otherwise": {"protocol": _OTHER[protocol], "claims": otherwise},
        "levels_by": _levels_by(evidence),
        "tables": [
            {"title": table.title, "rows": [list(row) for row in table.rows], "note": table.note}
            for table in tables
        ],
        "figures": [{"name": f.name, "caption": f.caption, "why": f.why} for f in figures],
        "settings": dict(settings),
        "cost": [{key: cost[key] for key in cost if key != "command"} for cost in costs],
        "commands": [{key: cost[key] for key in ("part", "seed", "command")} for cost in costs],
    }
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    runs = [run for parts in evidence.runs.values() for run in parts.values()]
    write_page(
        "reproduction.html.jinja",
        {
            **results,
            "failed": sum(cost["failed"] for cost in costs),
            "seed": ", ".join(map(str, evidence.runs)),
            "wall_seconds": sum(cost["seconds"] for cost in costs),
            "peak_rss_bytes": max((r.results.get("peak_rss_bytes", 0) for r in runs), default=0),
        },
        run_dir / "report.html",
        headline=headline(measured),
        claims=claims,
        tables=tables,
        figures=[(figure, _commands(figure, commands)) for figure in figures],
        flips=_flips(evidence, protocol),
        costs=cost_table,
        transcripts=_transcripts(evidence),
        marked_lines=marked_lines,
    )
    write_atomically(run_dir / "results.md", _markdown(results, claims, [*tables, cost_table]))
    return results


def headline(measured: Sequence[Mapping[str, Any]]) -> str:
    """Says in words how many claims hold."""
    count = Counter(claim["holds"] for claim in measured)
    unmeasured = [claim["id"] for claim in measured if claim["holds"] == "unmeasured"]
    return (
        f"Of the paper's {len(measured)} claims {count['yes']} hold here by their 95% intervals, "
        f"{count['no']} {'does' if count['no'] == 1 else 'do'} not, and {count['undecided']} "
        f"{'is' if count['undecided'] == 1 else 'are'} undecided"
        + (f"; not measured: {', '.join(unmeasured)}." if unmeasured else ".")
    )


def _markdown(
    results: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], tables: Sequence[Table]
) -> str:
    """The claims and tables of the page, to be read in a repository."""
    head = [
        ("Claim", "Verdict", "First part, points (95% interval)", "By seed", "In the paper", "n")
    ]
    verdicts = [
        (
            f"{claim['id']} {claim['says']}",
            f"{claim['verdict']} ({claim['parts']})" if claim["parts"] else claim["verdict"],
            claim["points"],
            claim["by_seed"],
            f"{claim['where']}: {claim['paper']}",
            _count(claim["n"]),
        )
        for claim in claims
    ]
    aspects = [("Difference", "Verdict", "Points (95% interval)", "By seed", "n")] + [
        (
            f"{claim['id']} {aspect['says']}",
            "supplementary" if aspect["beside"] else aspect["verdict"],
            f"{aspect['points']}{'; ' if aspect['why'] else ''}{aspect['why']}",
            aspect["by_seed"],
            _count(aspect["n"]),
        )
        for claim in claims
        for aspect in claim["aspects"]
    ]
    blocks = [
        "# arXiv 2411.16579, reproduced",
        f"`{results['command']}`",
        f"{headline(results['claims'])} Seeds: {', '.join(map(str, results['seeds']))}. Unless it "
        f"says otherwise, answers are refined by `{results['protocol']}`. Levels of difficulty, 1 "
        f"(easy) to 5: {results['levels_by']}.",
        f"## Claims\n\n{markdown(head + verdicts)}",
        "A claim holds if the interval of each of its parts (below, without what is supplementary) "
        "lies above zero, or begins there where it says at least; it does not hold if one lies "
        "below, and is undecided otherwise. Points and n are those of its first part, n being how "
        "many problems. Intervals are of resampled problems, each with all its scores: they say "
        "what other problems would change, not what further seeds would; the effect in each seed "
        "is therefore given too.",
        f"## What each claim was measured by\n\n{markdown(aspects)}",
    ]
    for table in tables:
        shown = [markdown(table.rows)] if table.rows else []
        blocks.append("\n\n".join([f"## {table.title}", *shown, *filter(None, [table.note])]))
    return "\n\n".join(blocks) + "\n"


def _by_seed(measured: Mapping[str, Any]) -> str:
    """The effect in each seed, of a claim or of one of its aspects."""
    return ", ".join(f"{100 * effect:+.1f}" for effect in (measured["seeds"] or {}).values()) or "-"


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _claim_cells(claim: Mapping[str, Any]) -> dict[str, Any]:
    """A claim as the page shows it: in words, with its aspects."""
    required = [aspect["holds"] for aspect in claim["aspects"] if not aspect["beside"]]
    short = len(required) > 1 and claim["holds"] in ("no", "undecided")
    return {
        **claim,
        "verdict": WORDS[claim["holds"]],
        "parts": f"{required.count('yes')} of {len(required)} parts hold" if short else "",
        "points": _points(claim),
        "by_seed": _by_seed(claim),
        "aspects": [
            {
                **aspect,
                "verdict": WORDS[aspect["holds"]],
                "points": _points(aspect),
                "by_seed": _by_seed(aspect),
            }
            for aspect in claim["aspects"]
        ],
    }


def _points(found: Mapping[str, Any]) -> str:
    if found["effect"] is None:
        return "not measured"
    return gain_cell(found["effect"], found["ci95"])


def _otherwise(
    measured: Sequence[Mapping[str, Any]], otherwise: Sequence[Mapping[str, Any]], protocol: str
) -> list[Table]:
    """What of the claims is another, where it was measured, if answers are refined otherwise."""
    rows: list[Row] = [("Claim", "Verdict", "Points (95% interval)", "By seed")]
    for claim, other in zip(measured, otherwise, strict=True):
        whole = all(a["beside"] or a["effect"] is not None for a in other["aspects"])
        if whole and other["aspects"] != claim["aspects"]:
            rows.append((other["id"], WORDS[other["holds"]], _points(other), _by_seed(other)))
    if len(rows) == 1:
        return []
    note = "The other claims do not depend on it, or were not measured so."
    return [Table(f"The claims, where answers are refined by {protocol}", rows, note)]


def _levels_by(evidence: Evidence) -> str:
    """What tells difficulty, in words: that of test problems, and that of training problems."""
    found = []
    for part, problems in ((EVALUATE, "test problems"), (IMPROVE, "training problems")):
        runs = [parts[part] for parts in evidence.runs.values() if part in parts]
        ways = dict.fromkeys(run.results.get("levels_by", "?") for run in runs)
        found += [f"of {problems} by {way}" for way in ways]
    return "; ".join(found) or "none yet"


# ---- the paper's tables


_Make = Callable[[Evidence, str], tuple[list[Row], str]]  # Rows, the header first, and a note.


def _tabulated(title: str, make: _Make, evidence: Evidence, protocol: str) -> Table:
    """A table, or its title and why it could not be made."""
    try:
        rows, note = make(evidence, protocol)
    except NotMeasured as error:
        return Table(title, [], f"Not measured: {error}.")
    return Table(title, rows, note)


def _cell(scores: Scores) -> str:
    return share_cell(dataclasses.asdict(average(scores)))


def _or_dash(lookup: Callable[[], Scores]) -> str:
    """A cell, or a dash where it was not measured."""
    try:
        return _cell(lookup())
    except NotMeasured:
        return "-"


def _table1(e: Evidence, _: str) -> tuple[list[Row], str]:
    runs = e.of("critiques")
    keys = sorted(
        {
            (row["dataset"], row["strategy"])
            for run in runs.values()
            for row in run.results["table1"]
        }
    )
    found = {
        key: [
            (row["right"], row["wrong"])
            for run in runs.values()
            for row in run.results["table1"]
            if (row["dataset"], row["strategy"]) == key
        ]
        for key in keys
    }
    rows: list[Row] = [("Dataset", "Strategy", "Correct responses", "Wrong responses")]
    for (dataset, strategy), counts in found.items():
        rows.append(
            (dataset, strategy, *(f"{sum(column):,}" for column in zip(*counts, strict=True)))
        )
    seeds = f"Of {len(runs)} seeds together." if len(runs) > 1 else ""
    return rows, seeds


def _filter_table(e: Evidence, _: str) -> tuple[list[Row], str]:
    runs = [run.results["filter"] for run in e.of("critiques").values()]
    rows: list[Row] = [("Filter", "Kept", "of", "Refined right", "Right alone", "False")]
    for rule in runs[0]:
        effects = [run[rule] for run in runs if rule in run]
        shares = [
            [effect[key] for effect in effects if effect[key] is not None]
            for key in ("refined_right", "alone_right", "false_share")
        ]
        rows.append(
            (
                rule,
                *(f"{sum(effect[key] for effect in effects):,}" for key in ("kept", "of")),
                *(percent(fmean(found) if found else None) for found in shares),
            )
        )
    note = (
        "Critiques of wrong responses, of all seeds together; shares are means over seeds. False: "
        "critiques that a program which works every step out contradicts (the paper's people found "
        "1.2% of low quality). Right alone: what the actor solves without any critique."
    )
    return rows, note


def _table2(e: Evidence, _: str) -> tuple[list[Row], str]:
    columns = {
        "accuracy_refine_all": "Acc., all refined",
        "accuracy_refine_flagged": "Acc., flagged refined",
        "accuracy_oracle": "Acc., oracle",
        "discriminability": "Discrimin.",
        "helpfulness": "Helpfulness",
    }
    # Of either critic the same; where no critique passed the filter the trained one is the base.
    alone = _cell(e.scores(CRITICS, method=UNTRAINED, metric="accuracy_without"))
    rows: list[Row] = [("Critic", *columns.values()), ("no critic", alone, alone, alone, "-", "-")]
    parts = [(CRITICS, critic, f"{critic} critic") for critic in (UNTRAINED, TRAINED)]
    with contextlib.suppress(NotMeasured):
        larger = e.values(CRITICS_LARGE, "method")
        parts += [(CRITICS_LARGE, critic, f"{critic} critic") for critic in larger]
    kinds = ("none", "soft", "hard")
    parts += [(FILTERS, kind, f"of data filtered: {kind}") for kind in kinds]
    for part, critic, name in parts:
        cells = [
            _or_dash(
                lambda part=part, critic=critic, column=column: e.scores(
                    part, method=critic, metric=column
                )
            )
            for column in columns
        ]
        if set(cells) != {"-"}:
            rows.append((name, *cells))
    apart = "The critics of filtered data learnt from Table 1's critiques, the trained one did not."
    return rows, f"{_INTERVALS} {apart}"


def _table3(e: Evidence, protocol: str) -> tuple[list[Row], str]:
    k = common_k(e, (EVALUATE,))
    with contextlib.suppress(NotMeasured):  # Otherwise it is of the rows that there are.
        k = common_k(e, (EVALUATE, VANILLA, CRITIQUE, SELF_CORRECTION))
    with_critic = (protocol, in_parallel(protocol), "with critic")
    alone = (ALONE, ALONE, "response only")
    corrected = ("refine_all", in_parallel("refine_all"), "self-correction")
    lines = (
        ("Supervised fine-tuning", EVALUATE, (alone, with_critic)),
        ("Self-correction fine-tuning", SELF_CORRECTION, (alone, corrected)),
        ("Vanilla self-improvement", VANILLA, (alone, with_critic)),
        ("Critique-in-the-loop", CRITIQUE, (alone, with_critic)),
    )
    rows: list[Row] = [("Training", "Test time", "Acc.", f"Pass@{k}", f"MV@{k}")]
    for training, part, methods in lines:
        for greedy, sampled, name in methods:
            wanted = ((greedy, "greedy", 1), (sampled, "pass", k), (sampled, "maj", k))
            cells = [
                _or_dash(
                    lambda part=part, method=method, metric=metric, at=at: e.scores(
                        part, method=method, metric=metric, k=at
                    )
                )
                for method, metric, at in wanted
            ]
            rows.append((training, name, *cells))
    return rows, f"{_INTERVALS} Acc. is of greedy answers, the others are of samples."


def _table4(e: Evidence, _: str) -> tuple[list[Row], str]:
    whole = last_iteration(e, IMPROVE, "critique")
    rows: list[Row] = [("Method", "Acc.", "Minus the whole method, points")]
    rows.append(("Critique-in-the-loop", _cell(whole), ""))
    for method, name in (*ABLATIONS.items(), (EQUAL_TOKENS, "vanilla, of as many tokens")):
        try:
            scores = last_iteration(e, IMPROVE, method)
        except NotMeasured:
            if method in ABLATIONS:
                rows.append((name, "-", "-"))
            continue
        change = average(minus(scores, whole))
        rows.append((name, _cell(scores), gain_cell(change.mean, change.ci95)))
    return rows, _INTERVALS


def _table5(e: Evidence, protocol: str) -> tuple[list[Row], str]:
    names = {
        table5.SELF_CORRECTION: "Self-correction",
        table5.SELF_TALK: "Self-talk via critique",
        protocol: "Fine-tuning, with critic at test time",
    }
    rows: list[Row] = [("Method", "Acc.")]
    for method, name in names.items():
        rows.append((name, _cell(e.scores(SELF_TALK, method=method, metric="greedy"))))
    return rows, f"{_INTERVALS} Self-correction is a fine-tuning of this part's own, not Table 3's."


_INTERVALS = "In brackets 95% intervals, problems resampled with their scores in all seeds."
_TABLES: dict[str, _Make] = {
    "Table 1. Statistics of the critique data": _table1,
    "Section 3.3. What the Monte-Carlo filter keeps": _filter_table,
    "Table 2. What critics are worth at test time": _table2,
    "Table 3. Training-time and test-time methods combined": _table3,
    "Table 4. Ablations of critique-in-the-loop self-improvement": _table4,
    "Table 5. Self-talk via critique": _table5,
}


# ---- the rest of the page


def _commands(figure: Drawn, commands: Mapping[tuple[str, int], str]) -> list[str]:
    """The commands that made a figure, of the first seed that has the most of them."""
    seeds = sorted({seed for _, seed in commands})
    found = [
        [commands[part, seed] for part in figure.parts if (part, seed) in commands]
        for seed in seeds
    ]
    return max(found, key=len, default=[])


def _flips(evidence: Evidence, protocol: str) -> str:
    """Figure 10 in words."""
    try:
        gained, lost, votes = flips(evidence, protocol)
    except NotMeasured:
        return ""
    return (
        f"Of {votes:,} majority votes (each question in each seed) the critic turned {gained:,} "
        f"from wrong to right and {lost:,} from right to wrong."
    )


def _cost_table(costs: Sequence[Mapping[str, Any]]) -> Table:
    """What each part cost, all seeds together."""
    rows: list[Row] = [
        ("Part", "Seeds", "Minutes", "Generated tokens", "Training steps", "Failed samples")
    ]
    names = list(dict.fromkeys(cost["part"] for cost in costs))
    for name in (*names, "all"):
        found = [cost for cost in costs if name in (cost["part"], "all")]
        rows.append(
            (
                name,
                str(len({cost["seed"] for cost in found})),
                f"{sum(cost['seconds'] for cost in found) / 60:.1f}",
                *(
                    f"{sum(cost[what] for cost in found):,}"
                    for what in ("generated_tokens", "training_steps", "failed")
                ),
            )
        )
    return Table("What it cost", rows)


def _transcripts(evidence: Evidence) -> Sequence[Mapping[str, Any]]:
    """Those of the first seed that has some."""
    for runs in evidence.runs.values():
        if IMPROVE in runs and (found := runs[IMPROVE].results.get("transcripts")):
            return found
    return []
