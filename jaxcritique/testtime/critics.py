"""Critics: a model, the program that checks calculations, or none (self-correction)."""

from collections.abc import Callable, Sequence

from jaxcritique.critiques.annotate import CHECKER, ArithmeticAnnotator
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import Critique, Solution, digest
from jaxcritique.roles import COSTS, Context, criticise, no_critique
from jaxcritique.store import Dataset, Stage
from jaxcritique.testtime.rounds import Critic

SELF = "self"  # Instead of a critic's folder: none, the actor corrects itself.
_Write = Callable[[Solution], Critique]


def critic_model(setting: str, name: str) -> ModelFolder | None:
    """Returns the model that a setting names, or None where it names the checker.

    Raises:
      ValueError: it names a folder that cannot be used.
    """
    return None if name == CHECKER else ModelFolder.named(setting, name)


def critic_of(context: Context, model: ModelFolder | None) -> Critic:
    """Returns a model as a critic; None: the checker."""
    if model is None:
        return _program(_checker)
    sampler = context.sampler(model)
    return lambda context, name, solutions, temperature, prefixes=(): criticise(
        context, name, sampler, solutions, 1, temperature, prefixes
    )


def _program(program: Callable[[Sequence[Solution]], tuple[str, _Write]]) -> Critic:
    """Returns a program as a critic, which costs nothing.

    Args:
      program: returns, for the solutions, what names it and its settings, and what criticises one.
    """

    def critic(
        context: Context,
        name: str,
        solutions: Sequence[Solution],
        temperature: float,
        prefixes: Sequence[str] = (),
    ) -> Dataset[Critique]:
        key, write = program(solutions)

        def make(stage: Stage) -> tuple[list[Critique], dict[str, int]]:
            return [write(solution) for solution in solutions], dict.fromkeys(COSTS, 0)

        return context.store.dataset(name, Critique, key, digest(*solutions), make=make)

    return critic


def _checker(solutions: Sequence[Solution]) -> tuple[str, _Write]:
    """The checker: what it cannot judge has an empty critique, without a verdict."""
    annotator = ArithmeticAnnotator.of([solution.problem for solution in solutions])
    return annotator.key, lambda solution: annotator.annotate(solution) or no_critique(solution)


# The critic of an actor that corrects itself: empty critiques.
no_critic = _program(lambda solutions: (SELF, no_critique))
