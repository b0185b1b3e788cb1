"""AutoMathCritique (section 3): flawed paths, annotated, filtered, into D_critique."""

import collections
import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.critiques.flaws import (
    branch_off,
    distinct,
    insert_mistakes,
    one_correct_each,
    sample_from_scratch,
)
from jaxcritique.prompts.players import Game, refine
from jaxcritique.records import Critique, Problem, Refinement, Solution, digest
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import Dataset


@dataclasses.dataclass(frozen=True)
class CritiqueDataConfig:
    """Settings of AutoMathCritique; the paper's values where it gives them."""

    samples: int  # RG1: samples a problem.
    temperature: float  # RG1 and RG3.
    rg2_temperature: float
    rg2_increase: float
    rg2_rounds: int
    rg3_attempts: int  # Paper: up to 16.
    refinements: int = 10  # Monte-Carlo filter: refinements a critique.
    tau: float = 0.3  # Kept where strictly more than this share of them is right.
    max_flawed: int = 0  # Critiques of flawed paths that go to the filter; 0: all.


def build_critiques(
    game: Game,
    actor: Sampler,
    problems: Sequence[Problem],
    annotator: ArithmeticAnnotator,
    config: CritiqueDataConfig,
) -> Dataset[Critique]:
    """Builds D_critique; the counts of every stage are among the dataset's facts.

    Flawed paths come from RG1, RG2 and RG3; right ones that arose on the way give critiques of
    correct responses, as many as there are of flawed ones. Critiques of flawed responses must pass
    the Monte-Carlo filter (section 3.3); where none does, the dataset is empty.
    """

    def make(_: Any) -> tuple[list[Critique], dict[str, Any]]:
        counts: collections.Counter[str] = collections.Counter()
        scratch, tokens1 = sample_from_scratch(
            game, actor, problems, config.samples, config.temperature
        )
        correct = one_correct_each(scratch)
        branched, tokens2 = branch_off(
            game, actor, correct, config.rg2_temperature, config.rg2_increase, config.rg2_rounds
        )
        spoilt, tokens3 = insert_mistakes(
            game, actor, correct, config.temperature, config.rg3_attempts
        )
        paths = distinct([*scratch, *branched, *spoilt])
        for path in paths:
            counts[f"{path.source}: {'right' if path.correct else 'flawed'} paths"] += 1
        annotated = [annotator.annotate(path) for path in tqdm(paths, "annotate", unit="path")]
        critiques = [critique for critique in annotated if critique is not None]
        counts["discarded by the annotator"] = len(paths) - len(critiques)
        flawed = [c for c in critiques if not c.solution.correct]
        flawed = _some(flawed, config.max_flawed or len(flawed), game)
        counts["critiques of flawed paths"] = len(flawed)
        refined = refine(game, "filter", actor, flawed, config.refinements, config.temperature)
        kept = [critique for critique, rate in success_rates(refined) if rate > config.tau]
        counts["kept by the filter"] = len(kept)
        sound = _some([c for c in critiques if c.solution.correct], len(kept), game)
        counts["critiques of right paths"] = len(sound)
        tokens = tokens1 + tokens2 + tokens3 + refined.facts["generated_tokens"]
        return [*kept, *sound], {"counts": dict(counts), "generated_tokens": tokens}

    key = digest(
        actor.key,
        game.seed,
        list(problems),
        dataclasses.asdict(config),
        dataclasses.asdict(annotator),
    )
    return game.store.dataset("critique_data", Critique, key, make=make)


def success_rates(
    refinements: Sequence[Refinement] | Dataset[Refinement],
) -> list[tuple[Critique, float]]:
    """Returns each critique with the share of its refinements that are right (Monte Carlo)."""
    outcomes: dict[str, list[bool]] = collections.defaultdict(list)
    critiques: dict[str, Critique] = {}
    for refinement in refinements:
        key = digest(refinement.critique)
        critiques[key] = refinement.critique
        outcomes[key].append(refinement.correct)
    return [(critiques[key], sum(right) / len(right)) for key, right in outcomes.items()]


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


def _some(critiques: list[Critique], count: int, game: Game) -> list[Critique]:
    """Returns `count` of the critiques, chosen by the seed, in their old order."""
    if count >= len(critiques):
        return critiques
    rng = random.Random(f"critiques/{game.seed}")
    return [critiques[i] for i in sorted(rng.sample(range(len(critiques)), count))]
