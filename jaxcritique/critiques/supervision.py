"""What actor and critic are fine-tuned on: the actor by equation 2, the critic by equation 1."""

import dataclasses
from collections.abc import Iterable, Sequence

from absl import logging

from jaxcritique.config import setting
from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.critiques.pipeline import made_refinements
from jaxcritique.prompts.templates import PromptSet
from jaxcritique.records import Critique, Problem, Refinement
from jaxcritique.roles import no_critique
from jaxcritique.training.data import Example
from jaxcritique.training.sft import SftConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorConfig(SftConfig):
    """What an actor is fine-tuned on, and how."""

    train_problems: int = setting(0, "Size of D_reason; 0: all of a file.", low=0)
    refine_examples: int = setting(8000, "Size of D_refine (paper: 8,000).", low=0)
    beta: float = setting(1.0, "Weight of D_refine in equation 2.", low=0)
    # Sampled solutions and critiques may be longer than a row.
    too_long: str = setting("drop", "Examples longer than a row.", choices=("error", "drop"))


def actor_examples(
    prompts: PromptSet,
    solutions: Iterable[tuple[Problem, str]],
    refinements: Iterable[Refinement],
    beta: float,
) -> list[Example]:
    """Returns equation 2's mixture: solutions, and refinements with weight beta."""
    examples = [Example(prompts.to_solve(problem), text) for problem, text in solutions]
    for r in refinements:
        examples.append(Example(prompts.to_refine(r.critique), r.text, beta))
    return examples


def critic_examples(prompts: PromptSet, critiques: Iterable[Critique]) -> list[Example]:
    """Returns equation 1's data: critiques of solutions."""
    return [Example(prompts.to_critique(c.solution), c.text) for c in critiques]


def refine_set(
    problems: Sequence[Problem], annotator: ArithmeticAnnotator, config: ActorConfig, seed: int
) -> list[Refinement]:
    """Returns D_refine; fewer examples than configured if no more mistakes can be put in."""
    refinements = made_refinements(problems, annotator, config.refine_examples, seed)
    if len(refinements) < config.refine_examples:
        logging.warning(
            "D_refine has %d examples: no more mistakes could be made.", len(refinements)
        )
    return refinements


def self_correction_data(refinements: Iterable[Refinement]) -> list[Refinement]:
    """Returns D_refine without critiques: question, old and new solution (section 5.3)."""
    return [dataclasses.replace(r, critique=no_critique(r.critique.solution)) for r in refinements]
