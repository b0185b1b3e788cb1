"""Critics: a model, the program that checks calculations, or none (self-correction)."""

from collections.abc import Callable, Sequence

from jaxcritique.critiques.annotate import CHECKER, ArithmeticAnnotator
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import Critique, Solution, digest
from jaxcritique.roles import COSTS, Context, criticise, no_critique
from jaxcritique.store import Dataset, Stage
from jaxcritique.testtime.rounds import Critic

SELF = "self"  # Instead of a critic's folder: none, the actor corrects itself.


def critic_model(setting: str, name: str) -> ModelFolder | None:
    """Returns the model that a setting names, or None where it names the checker.

    Raises:
      ValueError: it names a folder that cannot be used.
    """
    return None if name == CHECKER else ModelFolder.named(setting, name)


def critic(context: Context, model: ModelFolder | None) -> Critic:
    """Returns a model as a critic; None: the checker."""
    if model is None:
        return _check
    sampler = context.sampler(model)
    return lambda context, name, solutions, temperature, prefixes=(): criticise(
        context, name, sampler, solutions, 1, temperature, prefixes
    )


def no_critic(
    context: Context,
    name: str,
    solutions: Sequence[Solution],
    temperature: float,
    prefixes: Sequence[str] = (),
) -> Dataset[Critique]:
    """The critic of an actor that corrects itself: empty critiques without a cost."""
    return _computed(context, name, SELF, solutions, no_critique)


def _check(
    context: Context,
    name: str,
    solutions: Sequence[Solution],
    temperature: float,
    prefixes: Sequence[str] = (),
) -> Dataset[Critique]:
    """The checker: what it cannot judge has an empty critique, without a verdict."""
    annotator = ArithmeticAnnotator.of([solution.problem for solution in solutions])

    def write(solution: Solution) -> Critique:
        return annotator.annotate(solution) or no_critique(solution)

    return _computed(context, name, annotator.key, solutions, write)


def _computed(
    context: Context,
    name: str,
    key: str,
    solutions: Sequence[Solution],
    write: Callable[[Solution], Critique],
) -> Dataset[Critique]:
    """A stage of critiques that no model writes; `key` names what does."""

    def make(stage: Stage) -> tuple[list[Critique], dict[str, int]]:
        return [write(solution) for solution in solutions], dict.fromkeys(COSTS, 0)

    return context.store.dataset(name, Critique, key, digest(*solutions), make=make)
