"""AutoMathCritique (section 3): flawed paths, annotated, filtered, into D_critique."""

import collections
import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any, Literal

from absl import logging

from jaxcritique.config import Config, setting
from jaxcritique.critiques import filtering, flaws
from jaxcritique.critiques.annotate import Annotation, Annotator, ArithmeticAnnotator
from jaxcritique.critiques.duplicates import distinct, without_near_duplicates
from jaxcritique.critiques.program_mistakes import PROGRAM_TYPES, flawed_solution
from jaxcritique.prompts.mistakes import ERROR_TYPES
from jaxcritique.records import Critique, Problem, Refinement, Solution, digest
from jaxcritique.roles import Context, total_costs
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import Dataset

STRATEGIES = ("RG1", "RG2", "RG3")
# Changing these does not annotate again: they only choose among annotated paths, and filter them.
CHOSEN_LATER = ("tau", "filter", "max_flawed", "mixture", "filter_refinements", "alone_samples")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CritiqueDataConfig(Config):
    """Settings of AutoMathCritique (section 3)."""

    temperature: float = setting(0.7, "Of all samples but greedy ones (paper: 0.7).", low=0)
    rg1_samples: int = setting(16, "RG1: most samples of a problem.", low=1)
    rg1_right: int = setting(0, "RG1: right samples of a problem that are enough.", low=0)
    rg1_wrong: int = setting(
        0,
        "RG1: wrong samples of a problem that are enough. 0 right and 0 wrong: draw `rg1_samples`.",
        low=0,
    )
    rg2_rounds: int = setting(3, "RG2: steps tried, hotter each time.", low=0)
    rg2_temperature: float = setting(1.0, "RG2: temperature of the first round.", low=0)
    rg2_increase: float = setting(0.2, "RG2: what each round adds to the temperature.", low=0)
    rg3_attempts: int = setting(16, "RG3: attempts at a path (paper: 16).", low=0)
    mistakes: Literal["program", "model"] = setting(
        "program",
        "RG3: what inserts mistakes: a program that changes marked calculations, or the actor.",
    )
    positions: tuple[float, ...] = setting(
        (1.0, 1.0, 1.0),
        "RG2 and RG3: relative weights of the first, middle and last third of a path's steps.",
        low=0,
    )
    error_types: tuple[str, ...] = setting(
        (),
        "RG3: relative weights of the kinds of mistakes, such as calculation=3,operator=1; empty: "
        f"equal. A program can make {', '.join(PROGRAM_TYPES)}; a model also "
        f"{', '.join(sorted(set(ERROR_TYPES) - set(PROGRAM_TYPES)))}.",
    )
    mixture: tuple[str, ...] = setting(
        (),
        "Relative shares of the strategies among critiques of wrong responses, such as "
        "RG1=1,RG2=1,RG3=2; empty: as they come.",
    )
    near_duplicate: float = setting(
        1.0,
        "Jaccard similarity of n-grams from which a response is a duplicate of another of its "
        "problem.",
        low=0.01,
        high=1,
    )
    ngram: int = setting(8, "Words in an n-gram.", low=1)
    max_flawed: int = setting(
        0, "Most critiques of wrong responses that are filtered; 0: all.", low=0
    )
    filter: filtering.Kind = setting(
        "soft", "soft: more than `tau` of the refinements right; hard: at least one."
    )
    filter_refinements: int = setting(10, "Filter: refinements of a critique (paper: 10).", low=1)
    tau: float = setting(
        0.3,
        "Soft filter: a critique is kept if more than this share of its refinements is right "
        "(paper: 0.3).",
        low=0,
    )
    alone_samples: int = setting(
        0, "Filter: solutions without a critique, of each problem, to compare with; 0: none.", low=0
    )

    def __post_init__(self) -> None:
        """Checks what no single field's bounds say."""
        super().__post_init__()
        if not self.tau < 1:
            raise ValueError(
                f"`tau={self.tau}`: more than that share must be right; give 0 to less than 1."
            )
        if len(self.positions) != len(flaws.THIRDS):
            raise ValueError(f"`positions`: give three weights, not {len(self.positions)}.")
        if not any(self.positions):
            raise ValueError("`positions`: no weight is above 0.")
        read_weights("mixture", STRATEGIES, self.mixture)
        _ = self.placement

    @property
    def rule(self) -> filtering.FilterRule:
        """Which critiques of flawed paths are kept."""
        return filtering.FilterRule(self.filter, self.tau)

    @property
    def placement(self) -> flaws.MistakePlacement:
        """Where mistakes go, and of which kinds they are."""
        kinds = PROGRAM_TYPES if self.mistakes == "program" else tuple(ERROR_TYPES)
        weights = read_weights("error_types", kinds, self.error_types)
        weights = weights or dict.fromkeys(kinds, 1.0)
        return flaws.MistakePlacement(self.positions, tuple(weights.items()))

    @property
    def wanted(self) -> tuple[int, int] | None:
        """RG1: right and wrong samples of a problem that are enough; None: all are drawn."""
        return (self.rg1_right, self.rg1_wrong) if self.rg1_right or self.rg1_wrong else None


def read_weights(setting: str, names: Sequence[str], entries: Sequence[str]) -> dict[str, float]:
    """Reads NAME=WEIGHT entries of a setting; none give none.

    Raises:
      ValueError: an entry is not of that form, names nothing known, or all weigh nothing.
    """
    weights: dict[str, float] = {}
    for entry in entries:
        name, _, number = entry.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if name.strip() not in names or not 0 <= weight < math.inf:
            raise ValueError(
                f"`{setting}`: {entry!r} is not NAME=WEIGHT with a name of {', '.join(names)}."
            )
        weights[name.strip()] = weight
    if entries and not any(weights.values()):
        raise ValueError(f"`{setting}`: no weight is above 0.")
    return weights


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A critique with all that is known of its worth, kept or not."""

    critique: Critique
    annotator: str
    refined: filtering.Tally | None  # The actor after it; None: a right path's is not filtered.
    alone: filtering.Tally | None  # The actor on the problem without it, where measured.

    def kept_by(self, rule: filtering.FilterRule) -> bool:
        """Whether the filter lets it pass; critiques of right paths always do."""
        return self.refined is None or rule.keeps(self.refined)


def critique_dataset(
    context: Context,
    actor: Sampler,
    problems: Sequence[Problem],
    annotator: Annotator,
    config: CritiqueDataConfig,
) -> Dataset[Critique]:
    """Builds D_critique; "counts" and "costs" of every stage are among its facts.

    Flawed paths come from RG1, RG2 and RG3; right ones that arose on the way give critiques of
    correct responses, as many as there are of flawed ones. Critiques of flawed responses must pass
    the Monte-Carlo filter (section 3.3); where none does, the dataset is empty.
    """
    annotations = annotate_paths(context, actor, problems, annotator, config)
    candidates = build_candidates(context, actor, annotations, annotator.name, config)
    kept, counts = keep(candidates, config.rule, context.seed)
    return Dataset(
        digest(candidates.key, dataclasses.asdict(config.rule)),
        [candidate.critique for candidate in kept],
        {"counts": {**candidates.facts["counts"], **counts}, "costs": candidates.facts["costs"]},
    )


def annotate_paths(
    context: Context,
    actor: Sampler,
    problems: Sequence[Problem],
    annotator: Annotator,
    config: CritiqueDataConfig,
) -> Dataset[Annotation]:
    """The paths of all strategies, each annotated once; what was rejected is there with its text.

    Paths that came out right although RG3 put a mistake in are dropped. Where there are more right
    paths than flawed ones the rest are put aside: no more will be used.
    """
    inserter: flaws.Inserter = flaws.ProgramInserter()
    if config.mistakes == "model":
        inserter = flaws.ModelInserter(actor, config.temperature)

    def make(_: Any) -> tuple[list[Annotation], dict[str, Any]]:
        counts: collections.Counter[str] = collections.Counter()
        scratch = flaws.sample_from_scratch(
            context, actor, problems, config.rg1_samples, config.temperature, config.wanted
        )
        correct = flaws.one_correct_each(scratch.solutions)
        branched = flaws.branch_off(
            context,
            actor,
            correct,
            config.placement,
            config.rg2_temperature,
            config.rg2_increase,
            config.rg2_rounds,
        )
        spoilt = flaws.insert_mistakes(
            context,
            actor,
            correct,
            inserter,
            config.placement,
            config.temperature,
            config.rg3_attempts,
        )
        made = dict(zip(STRATEGIES, (scratch, branched, spoilt), strict=True))
        # A right answer does not make every step right where a mistake is known to be in one.
        erring = [path for path in spoilt.solutions if not path.correct]
        counts["RG3: right in spite of its mistake"] = len(spoilt.solutions) - len(erring)
        paths = [*scratch.solutions, *branched.solutions, *erring]
        written = [path for path in paths if path.text.strip()]
        different = distinct(written)
        kept = without_near_duplicates(different, config.ngram, config.near_duplicate)
        for path in kept:
            counts[f"{path.source}: {'right' if path.correct else 'flawed'} paths"] += 1
        counts["paths without text"] = len(paths) - len(written)
        counts["duplicates"] = len(written) - len(different)
        counts["near duplicates"] = len(different) - len(kept)
        flawed = [path for path in kept if not path.correct]
        right = _some([path for path in kept if path.correct], len(flawed), context.seed)
        counts["right paths put aside"] = len(kept) - len(flawed) - len(right)
        annotated = annotator.annotate_all(context, [*flawed, *right])
        outcomes = collections.Counter(a.outcome for a in annotated.annotations)
        for outcome in sorted(outcomes.keys() - {"accepted"}):
            counts[f"annotator: {outcome}"] = outcomes[outcome]
        counts["discarded by the annotator"] = outcomes.total() - outcomes["accepted"]
        costs = {name: total_costs(part.stages) for name, part in made.items()}
        costs["annotate"] = total_costs(annotated.stages)
        return annotated.annotations, {"counts": dict(counts), "costs": costs}

    settings = _settings_but(config, *CHOSEN_LATER)
    inputs = actor.key, context.seed, digest(*problems), settings, annotator.key, inserter.key
    return context.store.dataset("annotations", Annotation, *inputs, make=make)


def build_candidates(
    context: Context,
    actor: Sampler,
    annotations: Dataset[Annotation],
    annotator: str,
    config: CritiqueDataConfig,
) -> Dataset[Candidate]:
    """Tallies every critique there is to choose from; the filter's rule plays no part yet.

    Args:
      context: of the run.
      actor: the model that made the paths, and refines.
      annotations: as `annotate_paths` returns them.
      annotator: what the dataset calls it.
      config: all settings.

    Returns:
      The candidates; among the facts are "counts" of every stage and "costs" of those that asked a
      model.
    """

    def make(_: Any) -> tuple[list[Candidate], dict[str, Any]]:
        critiques = [c for annotation in annotations if (c := annotation.critique)]
        flawed = [c for c in critiques if not c.solution.correct]
        honest = [c for c in flawed if not filtering.leaks_answer(c)]
        chosen = _mixed(honest, config, context.seed)
        refined = filtering.tally_refinements(
            context, actor, chosen, config.filter_refinements, config.temperature
        )
        stages = {"filter": refined}
        alone: dict[str, filtering.Tally] = {}
        if config.alone_samples:
            asked = list({c.solution.problem.id: c.solution.problem for c in chosen}.values())
            stages["alone"] = filtering.tally_alone(
                context, actor, asked, config.alone_samples, config.temperature
            )
            alone = {p.id: tally for p, tally in zip(asked, stages["alone"], strict=True)}
        candidates = [
            Candidate(c, annotator, tally, alone.get(c.solution.problem.id))
            for c, tally in zip(chosen, refined, strict=True)
        ]
        candidates += [Candidate(c, annotator, None, None) for c in critiques if c.solution.correct]
        counts = {
            **annotations.facts["counts"],
            "leaking critiques": len(flawed) - len(honest),
            "critiques cut by maximum or mixture": len(honest) - len(chosen),
            "critiques of flawed paths": len(chosen),
            "critiques without a refinement": sum(not tally.answered for tally in refined),
            "refinements with a bare answer": sum(tally.leaked for tally in refined),
        }
        costs = {name: total_costs([stage]) for name, stage in stages.items()}
        return candidates, {"counts": counts, "costs": {**annotations.facts["costs"], **costs}}

    settings = _settings_but(config, "tau", "filter")
    return context.store.dataset(
        "candidates", Candidate, annotations.key, annotator, settings, make=make
    )


def keep(
    candidates: Sequence[Candidate] | Dataset[Candidate], rule: filtering.FilterRule, seed: int
) -> tuple[list[Candidate], dict[str, int]]:
    """Applies the filter, and takes as many critiques of right paths as of flawed ones it keeps."""
    flawed = [c for c in candidates if c.refined is not None]
    kept = [c for c in flawed if c.kept_by(rule)]
    right = _some([c for c in candidates if c.refined is None], len(kept), seed)
    counts = {"kept by the filter": len(kept), "critiques of right paths": len(right)}
    return [*kept, *right], counts


def refinement_data(
    solutions: Sequence[Solution], annotator: ArithmeticAnnotator
) -> list[Refinement]:
    """D_refine where no stronger model writes it: flawed solutions, criticised, then the reference.

    The refinement is the problem's own annotated solution, so its answer is right.
    """
    critiques = [annotator.annotate(solution) for solution in solutions]
    return [
        Refinement(c, c.solution.problem.rationale, "correct", c.solution.problem.answer)
        for c in critiques
        if c is not None
    ]


def made_refinements(
    problems: Sequence[Problem], annotator: ArithmeticAnnotator, count: int, seed: int
) -> list[Refinement]:
    """D_refine of mistakes put in by program: `count` different ones, or as many as can be made."""
    rng = random.Random(f"refine/{seed}")
    found: dict[str, Refinement] = {}
    for attempt in range(20 * count):
        if len(found) == count:
            break
        solution = flawed_solution(problems[attempt % len(problems)], rng)
        if solution is not None:
            for refinement in refinement_data([solution], annotator):
                found[solution.text] = refinement
    return list(found.values())


def _mixed(critiques: list[Critique], config: CritiqueDataConfig, seed: int) -> list[Critique]:
    """At most `max_flawed` critiques, their strategies in the shares of the mixture.

    The scarcest strategy decides how many there are: shares are kept to, not filled up. One that
    gave nothing at all is left out of the mixture.
    """
    most = config.max_flawed or len(critiques)
    mixture = read_weights("mixture", STRATEGIES, config.mixture)
    if not mixture:
        return _some(critiques, most, seed)
    available: dict[str, list[Critique]] = {}
    for strategy, weight in mixture.items():
        available[strategy] = [c for c in critiques if c.solution.source == strategy and weight]
        if weight and not available[strategy]:
            logging.warning("%s gave no critique of a wrong response: left out", strategy)
    weights = {strategy: weight for strategy, weight in mixture.items() if available[strategy]}
    shares = {strategy: weight / sum(weights.values()) for strategy, weight in weights.items()}
    size = min([most, *(len(available[strategy]) / share for strategy, share in shares.items())])
    return [
        critique
        for strategy, share in shares.items()
        for critique in _some(available[strategy], int(size * share + 1e-9), seed)
    ]


def _settings_but(config: CritiqueDataConfig, *names: str) -> dict[str, Any]:
    settings = dataclasses.asdict(config.part(CritiqueDataConfig))
    return {name: value for name, value in settings.items() if name not in names}


def _some(items: list[Any], count: int, seed: int) -> list[Any]:
    """Returns `count` of the items, chosen by the seed, in their old order."""
    if count >= len(items):
        return items
    rng = random.Random(f"critiques/{seed}")
    return [items[i] for i in sorted(rng.sample(range(len(items)), count))]
