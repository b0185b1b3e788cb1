"""The results of a reproduction: claims, tables and figures, and the pages that show them."""

import dataclasses
import json
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.reproduction import parts
from experiments.reproduction.claims import measure_claims
from experiments.reproduction.evidence import Evidence, NotMeasured, PartCost
from experiments.reproduction.figures import PaperFigure, flips, paper_figures
from experiments.reproduction.measuring import VERDICTS, MeasuredAspect, MeasuredClaim
from experiments.reproduction.tables import Cells, paper_tables
from jaxcritique.analysis.page import Table, gain_cell, marked_lines, write_numbers, write_page
from jaxcritique.analysis.table import markdown
from jaxcritique.store import write_atomically

_OTHER = {"refine_flagged": "refine_all", "refine_all": "refine_flagged"}


@dataclasses.dataclass(frozen=True)
class ReproductionResults:
    """What a reproduction found."""

    command: str
    protocol: str  # Which answers are refined with a critic.
    seeds: list[int]
    claims: list[MeasuredClaim]
    claims_otherwise: list[MeasuredClaim]  # By the other protocol.
    levels_by: str  # What tells difficulty, in words.
    tables: list[Table]
    figures: list[PaperFigure]
    settings: Mapping[str, str]  # Flags by part.
    costs: Sequence[PartCost]
    peak_rss_bytes: int  # Of the part that needed the most.

    @property
    def failed(self) -> int:
        """Samples of all parts that failed."""
        return sum(cost.failed for cost in self.costs)

    @property
    def wall_seconds(self) -> float:
        """Of all parts, added up."""
        return sum(cost.seconds for cost in self.costs)

    @property
    def headline(self) -> str:
        """How many claims hold, in words."""
        count = Counter(claim.holds for claim in self.claims)
        unmeasured = [claim.claim.id for claim in self.claims if claim.holds == "unmeasured"]
        return (
            f"Of the paper's {len(self.claims)} claims {count['yes']} hold here by their 95% "
            f"intervals, {count['no']} {'does' if count['no'] == 1 else 'do'} not, and "
            f"{count['undecided']} {'is' if count['undecided'] == 1 else 'are'} undecided"
            + (f"; not measured: {', '.join(unmeasured)}." if unmeasured else ".")
        )

    @property
    def cost_table(self) -> Table:
        """What each part cost, all seeds together."""
        rows: list[Cells] = [
            ("Part", "Seeds", "Minutes", "Generated tokens", "Training steps", "Failed samples")
        ]
        for name in (*dict.fromkeys(cost.part for cost in self.costs), "all"):
            costs = [cost for cost in self.costs if name in (cost.part, "all")]
            counts = (
                sum(cost.generated_tokens for cost in costs),
                sum(cost.training_steps for cost in costs),
                sum(cost.failed for cost in costs),
            )
            seeds = str(len({cost.seed for cost in costs}))
            minutes = f"{sum(cost.seconds for cost in costs) / 60:.1f}"
            rows.append((name, seeds, minutes, *(f"{count:,}" for count in counts)))
        return Table("What it cost", rows)

    def commands(self, figure: PaperFigure) -> list[str]:
        """Returns the commands that made a figure, of the first seed that has the most of them."""
        commands = {(cost.part, cost.seed): cost.command for cost in self.costs}
        by_seed = [
            [commands[part, seed] for part in figure.parts if (part, seed) in commands]
            for seed in sorted({cost.seed for cost in self.costs})
        ]
        return max(by_seed, key=len, default=[])

    def to_json(self) -> dict[str, Any]:
        """Returns what results.json holds."""
        costs = [dataclasses.asdict(cost) for cost in self.costs]
        command = ("part", "seed", "command")
        return {
            "command": self.command,
            "protocol": self.protocol,
            "seeds": self.seeds,
            "claims": [claim.to_json() for claim in self.claims],
            "claims_otherwise": {
                "protocol": _OTHER[self.protocol],
                "claims": [claim.to_json() for claim in self.claims_otherwise],
            },
            "levels_by": self.levels_by,
            "tables": [dataclasses.asdict(table) for table in self.tables],
            "figures": [{"name": f.name, "caption": f.caption, "why": f.why} for f in self.figures],
            "settings": dict(self.settings),
            "cost": [{key: cost[key] for key in cost if key != "command"} for cost in costs],
            "commands": [{key: cost[key] for key in command} for cost in costs],
        }


def write_reproduction(
    evidence: Evidence,
    protocol: str,
    command: str,
    settings: Mapping[str, str],
    costs: Sequence[PartCost],
    run_dir: pathlib.Path,
) -> ReproductionResults:
    """Writes results.json, the figures' numbers to figures/NAME.csv, results.md and report.html.

    Args:
      evidence: the outputs of the parts.
      protocol: which answers are refined with a critic; the claims are measured by the other
        one too.
      command: that made all of it.
      settings: flags by part.
      costs: of what is done.
      run_dir: where to write.

    Raises:
      ValueError: records contradict each other.
    """
    claims = measure_claims(evidence, protocol)
    otherwise = measure_claims(evidence, _OTHER[protocol])
    changed = _otherwise_table(claims, otherwise, _OTHER[protocol])
    outputs = [output for parts in evidence.outputs.values() for output in parts.values()]
    results = ReproductionResults(
        command=command,
        protocol=protocol,
        seeds=list(evidence.outputs),
        claims=claims,
        claims_otherwise=otherwise,
        levels_by=_levels_by(evidence),
        tables=[*changed, *paper_tables(evidence, protocol)],
        figures=paper_figures(evidence, protocol),
        settings=settings,
        costs=costs,
        peak_rss_bytes=max((o.results.get("peak_rss_bytes", 0) for o in outputs), default=0),
    )
    write_atomically(run_dir / "results.json", json.dumps(results.to_json(), indent=2) + "\n")
    write_numbers([figure for figure in results.figures if figure.rows], run_dir)
    write_atomically(run_dir / "results.md", _markdown(results))
    write_page(
        "reproduction.html.jinja",
        results,
        run_dir / "report.html",
        templates="experiments.reproduction",
        verdicts=VERDICTS,
        points=points,
        by_seed=by_seed,
        parts_that_hold=parts_that_hold,
        flips=_flips(evidence, protocol),
        transcripts=_transcripts(evidence),
        marked_lines=marked_lines,
    )
    return results


# ---- cells


def points(aspect: MeasuredAspect) -> str:
    """Writes an effect with its interval in percentage points."""
    if aspect.effect is None or aspect.ci95 is None:
        return "not measured"
    return gain_cell(aspect.effect, aspect.ci95)


def by_seed(aspect: MeasuredAspect) -> str:
    """Writes the effect in each seed in percentage points."""
    return ", ".join(f"{100 * effect:+.1f}" for effect in (aspect.seeds or {}).values()) or "-"


def parts_that_hold(claim: MeasuredClaim) -> str:
    """Says how many parts of a claim hold, where some do not."""
    holds = [aspect.holds for aspect in claim.required]
    if len(holds) == 1 or claim.holds not in ("no", "undecided"):
        return ""
    return f"{holds.count('yes')} of {len(holds)} parts hold"


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


# ---- what the pages say


def _markdown(results: ReproductionResults) -> str:
    """The claims and tables of the page, to be read in a repository."""
    claims: list[Cells] = [
        ("Claim", "Verdict", "First part, points (95% interval)", "By seed", "In the paper", "n")
    ]
    aspects: list[Cells] = [("Difference", "Verdict", "Points (95% interval)", "By seed", "n")]
    for claim in results.claims:
        about, first, holding = claim.claim, claim.first, parts_that_hold(claim)
        claims.append(
            (
                f"{about.id} {about.says}",
                f"{VERDICTS[claim.holds]}{holding and f' ({holding})'}",
                points(first),
                by_seed(first),
                f"{about.where}: {about.paper}",
                _count(first.n),
            )
        )
        aspects += [
            (
                f"{about.id} {aspect.says}",
                "supplementary" if aspect.beside else VERDICTS[aspect.holds],
                f"{points(aspect)}{aspect.why and f'; {aspect.why}'}",
                by_seed(aspect),
                _count(aspect.n),
            )
            for aspect in claim.aspects
        ]
    blocks = [
        "# arXiv 2411.16579, reproduced",
        f"`{results.command}`",
        f"{results.headline} Seeds: {', '.join(map(str, results.seeds))}. Unless it "
        f"says otherwise, answers are refined by `{results.protocol}`. Levels of difficulty, 1 "
        f"(easy) to 5: {results.levels_by}.",
        f"## Claims\n\n{markdown(claims)}",
        "A claim holds if the interval of each of its parts (below, without what is supplementary) "
        "lies above zero, or begins there where it says at least; it does not hold if one lies "
        "below, and is undecided otherwise. Points and n are those of its first part, n being how "
        "many problems. Intervals are of resampled problems, each with all its scores: they say "
        "what other problems would change, not what further seeds would; the effect in each seed "
        "is therefore given too.",
        f"## What each claim was measured by\n\n{markdown(aspects)}",
    ]
    for table in (*results.tables, results.cost_table):
        rows = [markdown(table.rows)] if table.rows else []
        blocks.append("\n\n".join([f"## {table.title}", *rows, *filter(None, [table.note])]))
    return "\n\n".join(blocks) + "\n"


def _otherwise_table(
    claims: Sequence[MeasuredClaim], otherwise: Sequence[MeasuredClaim], protocol: str
) -> list[Table]:
    """The claims that change, where they were measured, if answers are refined otherwise."""
    rows: list[Cells] = [("Claim", "Verdict", "Points (95% interval)", "By seed")]
    for claim, other in zip(claims, otherwise, strict=True):
        measured = all(aspect.effect is not None for aspect in other.required)
        if measured and other.aspects != claim.aspects:
            first = other.first
            rows.append((other.claim.id, VERDICTS[other.holds], points(first), by_seed(first)))
    if len(rows) == 1:
        return []
    note = "The other claims do not depend on it, or were not measured so."
    return [Table(f"The claims, where answers are refined by {protocol}", rows, note)]


def _levels_by(evidence: Evidence) -> str:
    """What tells difficulty, in words: that of test problems, and that of training problems."""
    found = []
    for part, problems in ((parts.EVALUATE, "test"), (parts.IMPROVE, "training")):
        outputs = [outputs[part] for outputs in evidence.outputs.values() if part in outputs]
        ways = dict.fromkeys(output.results.get("levels_by", "?") for output in outputs)
        found += [f"of {problems} problems by {way}" for way in ways]
    return "; ".join(found) or "none yet"


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


def _transcripts(evidence: Evidence) -> Sequence[Mapping[str, Any]]:
    """Those of the first seed that has some."""
    improved = [
        outputs[parts.IMPROVE] for outputs in evidence.outputs.values() if parts.IMPROVE in outputs
    ]
    return next((t for o in improved if (t := o.results.get("transcripts"))), [])
