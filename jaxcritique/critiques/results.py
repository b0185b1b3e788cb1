"""Results of building critiques: what the dataset holds, and what each filter would do to it."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxcritique.analysis.table import aligned, percent
from jaxcritique.critiques.annotate import ArithmeticAnnotator, is_false
from jaxcritique.critiques.filtering import FilterRule
from jaxcritique.critiques.flaws import THIRDS, third
from jaxcritique.critiques.pipeline import STRATEGIES, Candidate, CritiqueDataConfig, read_weights
from jaxcritique.prompts.critique import split_steps
from jaxcritique.records import Critique
from jaxcritique.roles import COSTS
from jaxcritique.run_folder import Results


@dataclasses.dataclass(frozen=True)
class Table1Row:
    """A row of the paper's Table 1: critiques of right and of wrong responses."""

    dataset: str
    strategy: str
    right: int
    wrong: int


@dataclasses.dataclass(frozen=True)
class Share:
    """A share among the kept critiques of wrong responses, as configured and as obtained."""

    what: str
    configured: float | None  # None: not configured.
    obtained: float


@dataclasses.dataclass(frozen=True)
class FilterEffect:
    """What a filter's rule keeps. Means are over what was measured; None where nothing was."""

    kept: int  # Critiques of wrong responses.
    of: int
    refined_right: float | None  # Share of refinements that are right.
    alone_right: float | None  # The same of solutions without the critique.
    uplift: float | None  # Mean difference of the two.
    solved_alone_anyway: float | None  # Share of critiques whose problem is solved without them.
    checked: int  # Critiques that the checker could judge.
    false: int  # Of these, those that err.
    false_share: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a dataset holds, and what each filter would keep."""

    rows: int
    table1: list[Table1Row]
    # Shares among the kept critiques of wrong responses.
    strategies: dict[str, float]
    error_types: dict[str, float]
    error_positions: dict[str, dict[str, float]]  # By strategy: thirds with the first error.
    located_as_hinted: dict[str, float | None]  # By strategy: the first error is the known one.
    filter: dict[str, FilterEffect]  # By rule.
    distribution: list[Share]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CritiqueData(Statistics, Results):
    """A dataset of critiques, its statistics and its files in the run folder."""

    counts: dict[str, int]  # Of every stage.
    costs: dict[str, dict[str, int]]  # `roles.COSTS` of every stage that asks a model.
    provenance: dict[str, str]  # For the dataset card.
    critiques: list[Critique]  # Those that were kept; not in results.json.

    @property
    def dataset(self) -> pathlib.Path:
        """The folder that `datasets.load_dataset` reads."""
        return self.run_dir / "dataset"

    @property
    def examples(self) -> pathlib.Path:
        """The JSONL file that a critic is fine-tuned on (equation 1)."""
        return self.run_dir / "critic.jsonl"

    def to_json(self) -> dict[str, Any]:
        """See `Results`."""
        fields = dataclasses.replace(self, critiques=[])
        return {k: v for k, v in super(CritiqueData, fields).to_json().items() if k != "critiques"}

    @property
    def table(self) -> str:
        """Counts, Table 1, shares, filters and costs, as text."""
        counts = [("stage", "count"), *((name, f"{n:,}") for name, n in self.counts.items())]
        table1 = [("dataset, strategy", "right", "wrong")]
        table1 += [
            (f"{row.dataset}, {row.strategy}", f"{row.right:,}", f"{row.wrong:,}")
            for row in self.table1
        ]
        shares = [("share", "configured", "obtained")]
        shares += [
            (row.what, percent(row.configured), percent(row.obtained)) for row in self.distribution
        ]
        effects = [("filter", "kept", "of", "refined right", "right alone", "false")]
        effects += [
            (
                rule,
                f"{effect.kept:,}",
                f"{effect.of:,}",
                percent(effect.refined_right),
                percent(effect.alone_right),
                percent(effect.false_share),
            )
            for rule, effect in self.filter.items()
        ]
        costs = [("cost", *COSTS)]
        costs += [(name, *(f"{cost[key]:,}" for key in COSTS)) for name, cost in self.costs.items()]
        return "\n\n".join(map(aligned, (counts, table1, shares, effects, costs)))


def statistics_of(
    candidates: Sequence[Candidate],
    kept: Sequence[Candidate],
    checker: ArithmeticAnnotator | None,
    config: CritiqueDataConfig,
) -> Statistics:
    """Computes the statistics of a dataset.

    Args:
      candidates: all that the filter chose from.
      kept: those that it kept.
      checker: counts false critiques; None where the problems have no calculations.
      config: the settings; the filter's rule is among those compared.
    """
    rule = config.rule
    flawed = [c for c in candidates if c.refined is not None]
    kept_flawed = [c for c in kept if c.refined is not None]
    taus = {0.1, 0.3, 0.5, 0.7} | ({rule.tau} if rule.kind == "soft" else set())
    rules = [FilterRule("none"), FilterRule("hard"), *(FilterRule("soft", t) for t in sorted(taus))]
    strategies = _shares(c.critique.solution.source for c in kept_flawed)
    error_types = _shares(kind for c in kept_flawed if (kind := c.critique.solution.error_type))
    positions = {strategy: _shares(_positions(kept_flawed, strategy)) for strategy in STRATEGIES}
    return Statistics(
        rows=len(kept),
        table1=_table1(kept),
        strategies=strategies,
        error_types=error_types,
        error_positions=positions,
        located_as_hinted=_located(kept_flawed),
        filter={
            rule.kind if rule.kind != "soft" else f"soft, tau={rule.tau:g}": _effect(
                flawed, rule, checker
            )
            for rule in rules
        },
        distribution=_distribution(config, strategies, error_types, positions),
    )


def _distribution(
    config: CritiqueDataConfig,
    strategies: dict[str, float],
    error_types: dict[str, float],
    positions: dict[str, dict[str, float]],
) -> list[Share]:
    def compare(what: str, wanted: Mapping[str, float], got: Mapping[str, float]) -> list[Share]:
        total = sum(wanted.values())
        return [
            Share(
                f"{what}: {name}",
                wanted[name] / total if name in wanted else None,
                got.get(name, 0.0),
            )
            for name in {**wanted, **got}
        ]

    placement = config.placement
    mixture = read_weights("mixture", STRATEGIES, config.mixture)
    shares = compare("strategy", mixture, strategies)
    shares += compare("kind", dict(placement.error_types), error_types)
    thirds: dict[str, float] = dict(zip(THIRDS, placement.positions, strict=True))
    for strategy, got in positions.items():
        in_order = {name: got[name] for name in THIRDS if name in got}
        wanted = thirds if strategy != "RG1" else {}
        shares += compare(f"{strategy}, first error in third", wanted, in_order)
    return shares


def _table1(kept: Sequence[Candidate]) -> list[Table1Row]:
    counts = collections.Counter(
        (c.critique.solution.problem.task, c.critique.solution.source, c.critique.solution.correct)
        for c in kept
    )
    return [
        Table1Row(
            dataset, strategy, counts[dataset, strategy, True], counts[dataset, strategy, False]
        )
        for dataset, strategy in sorted({key[:2] for key in counts})
    ]


def _positions(flawed: Iterable[Candidate], strategy: str) -> list[str]:
    """The third of its steps in which each flawed response first errs, as its critique has it."""
    return [
        THIRDS[third(c.critique.first_error, len(split_steps(c.critique.solution.text)))]
        for c in flawed
        if c.critique.solution.source == strategy and c.critique.first_error is not None
    ]


def _located(flawed: Sequence[Candidate]) -> dict[str, float | None]:
    """Share of critiques whose first error is the step their strategy knew."""
    shares = {}
    for strategy in ("RG2", "RG3"):
        known = [c.critique for c in flawed if c.critique.solution.source == strategy]
        shares[strategy] = _mean([c.first_error == c.solution.error_step for c in known])
    return shares


def _effect(
    flawed: Sequence[Candidate], rule: FilterRule, checker: ArithmeticAnnotator | None
) -> FilterEffect:
    """What a rule would keep of the critiques of flawed paths."""
    kept = [c for c in flawed if c.kept_by(rule)]
    measured = [(c, c.refined.rate) for c in kept if c.refined and c.refined.rate is not None]
    both = [
        (refined, c.alone.rate) for c, refined in measured if c.alone and c.alone.rate is not None
    ]
    judged = [
        false for c in kept if checker and (false := is_false(c.critique, checker)) is not None
    ]
    return FilterEffect(
        kept=len(kept),
        of=len(flawed),
        refined_right=_mean([refined for _, refined in measured]),
        alone_right=_mean([alone for _, alone in both]),
        uplift=_mean([refined - alone for refined, alone in both]),
        solved_alone_anyway=_mean([alone > rule.tau for _, alone in both]),
        checked=len(judged),
        false=sum(judged),
        false_share=_mean(judged),
    )


def _shares(values: Iterable[str]) -> dict[str, float]:
    counts = collections.Counter(values)
    return {value: counts[value] / counts.total() for value in sorted(counts)}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
