"""Algorithm 1: critique-in-the-loop self-improvement, and the vanilla method beside it."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.players import Game, Start, criticise, no_critique, refine, respond
from jaxcritique.prompts.templates import (
    PromptSet,
    critique_messages,
    refine_messages,
    solve_messages,
)
from jaxcritique.records import Critique, Problem, Refinement
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.training.data import Example
from jaxcritique.training.sft import SftConfig


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Settings of Algorithm 1."""

    iterations: int  # T
    samples: int  # N, a problem
    critiques: int  # L, a wrong response; each is followed by one refinement
    temperature: float
    beta: float  # Weight of D_refine in equation 2.


@dataclasses.dataclass(frozen=True)
class Iteration:
    """What one exploration and learning step came to."""

    actor: ModelFolder
    # (problem, solution) pairs the actor was trained on: D_reason and the correct explored ones.
    trained_on: tuple[Problem, ...]
    generated_tokens: int  # By actor and critic, in this iteration's exploration.
    correct_responses: int
    correct_refinements: int


def actor_examples(
    prompts: PromptSet,
    reasoning: Iterable[tuple[Problem, str]],
    refinements: Iterable[Refinement],
    beta: float,
) -> list[Example]:
    """Equation 2's mixture: solutions, and refinements with weight beta."""
    examples = [Example(solve_messages(prompts, problem), text) for problem, text in reasoning]
    for r in refinements:
        examples.append(Example(refine_messages(prompts, r.critique), r.text, beta))
    return examples


def self_correction_data(refinements: Iterable[Refinement]) -> list[Refinement]:
    """D_refine without its critiques: question, old solution, new solution (section 5.3)."""
    return [dataclasses.replace(r, critique=no_critique(r.critique.solution)) for r in refinements]


def critic_examples(prompts: PromptSet, critiques: Iterable[Critique]) -> list[Example]:
    """Equation 1's data."""
    return [Example(critique_messages(prompts, c.solution), c.text) for c in critiques]


def improve(
    game: Game,
    method: str,
    base: ModelFolder,
    actor: ModelFolder,
    critic: Sampler | None,
    reasoning: Sequence[Problem],
    explored: Sequence[Problem],
    refinements: Sequence[Refinement],
    config: LoopConfig,
    sft: SftConfig,
    load: Callable[[ModelFolder], Sampler],
    fine_tune: Callable[..., ModelFolder],
) -> list[Iteration]:
    """Runs the loop.

    Args:
      game: what is played with.
      method: names the stages: "vanilla" or "critique".
      base: what every iteration is fine-tuned from.
      actor: the actor fine-tuned on D_reason and D_refine, who explores first.
      critic: None for vanilla self-improvement.
      reasoning: D_reason, with its annotated solutions.
      explored: the problems responses are sampled for; the paper explores D_reason itself. Of
        these only the answers are used.
      refinements: D_refine.
      config: of the loop.
      sft: of each fine-tuning.
      load: makes a sampler of a model.
      fine_tune: `training.sft.fine_tune`, wherever it is to run.

    Returns:
      One entry per iteration.
    """
    history = []
    annotated = [(problem, problem.rationale) for problem in reasoning]
    for number in range(1, config.iterations + 1):
        player = load(actor)
        # ---- exploration: N responses to each problem; the oracle reward picks the right ones
        starts = [Start(problem) for problem in explored]
        # The seed of an iteration is not the method's: both explore alike where actors are alike.
        turn = dataclasses.replace(game, seed=game.seed * 1000 + number)
        responses = respond(
            turn, f"explore-{number}", player, starts, config.samples, config.temperature
        )
        tokens = responses.facts["generated_tokens"]
        right = [(s.problem, s.text) for s in responses if s.correct]
        refined: list[tuple[Problem, str]] = []
        if critic is not None:
            wrong = [solution for solution in responses if not solution.correct]
            critiques = criticise(
                turn,
                f"criticise-{number}",
                critic,
                wrong,
                config.critiques,
                config.temperature,
            )
            revised = refine(
                turn, f"refine-{number}", player, list(critiques), 1, config.temperature
            )
            tokens += critiques.facts["generated_tokens"] + revised.facts["generated_tokens"]
            refined = [(r.critique.solution.problem, r.text) for r in revised if r.correct]
        # ---- learning: from the original model, on all that is right
        trained_on = _distinct([*annotated, *right, *refined])
        actor = fine_tune(
            game.store,
            f"actor-{method}-{number}",
            base,
            actor_examples(game.prompts, trained_on, refinements, config.beta),
            sft,
            game.seed,
        )
        history.append(
            Iteration(
                actor=actor,
                trained_on=tuple(problem for problem, _ in trained_on),
                generated_tokens=tokens,
                correct_responses=len(right),
                correct_refinements=len(refined),
            )
        )
    return history


def _distinct(pairs: Iterable[tuple[Problem, str]]) -> list[tuple[Problem, str]]:
    """Keeps each solution of a problem once; the released code does not."""
    first: dict[tuple[str, str], tuple[Problem, str]] = {}
    for problem, text in pairs:
        first.setdefault((problem.id, text.strip()), (problem, text.strip()))
    return list(first.values())
