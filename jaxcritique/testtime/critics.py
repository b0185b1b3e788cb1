"""Who criticises: a model, a program, or nobody."""

from collections.abc import Sequence

from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import Critique, Solution, digest
from jaxcritique.roles import COSTS, Context, criticise, no_critique
from jaxcritique.store import Dataset, Stage
from jaxcritique.testtime.rounds import Critic

# Instead of a critic's folder:
CHECKER = "checker"  # a program criticises;
SELF = "self"  # the actor corrects itself.


def critic_model(setting: str, name: str | None) -> ModelFolder | None:
    """Returns the model that a setting names, or None where it names none.

    Raises:
      ValueError: it names a folder that cannot be used.
    """
    return None if name in (None, CHECKER, SELF) else ModelFolder.named(setting, name)


def critic(context: Context, name: str | None, model: ModelFolder | None) -> Critic | None:
    """Returns the critic that a setting names: a model's, a program, or None for none.

    Args:
      context: of the run.
      name: the setting's value.
      model: what `critic_model` makes of it.
    """
    if model is None:
        return {None: None, CHECKER: _check, SELF: no_critic}[name]
    sampler = context.sampler(model)

    def criticise_once(
        context: Context,
        name: str,
        solutions: Sequence[Solution],
        temperature: float,
        prefixes: Sequence[str] = (),
    ) -> Dataset[Critique]:
        return criticise(context, name, sampler, solutions, 1, temperature, prefixes)

    return criticise_once


def no_critic(
    context: Context,
    name: str,
    solutions: Sequence[Solution],
    temperature: float,
    prefixes: Sequence[str] = (),
) -> Dataset[Critique]:
    """The critic of an actor who corrects itself: says nothing, and costs nothing."""

    def make(stage: Stage) -> tuple[list[Critique], dict[str, int]]:
        return [no_critique(solution) for solution in solutions], dict.fromkeys(COSTS, 0)

    return context.store.dataset(name, Critique, SELF, digest(*solutions), make=make)


def _check(
    context: Context,
    name: str,
    solutions: Sequence[Solution],
    temperature: float,
    prefixes: Sequence[str] = (),
) -> Dataset[Critique]:
    """The program's critiques; what it cannot vouch for gets none, and has no verdict.

    It works out every step again, whatever it said of the first ones.
    """
    annotator = ArithmeticAnnotator.of([solution.problem for solution in solutions])

    def make(stage: Stage) -> tuple[list[Critique], dict[str, int]]:
        found = [annotator.annotate(s) or no_critique(s) for s in solutions]
        return found, dict.fromkeys(COSTS, 0)

    return context.store.dataset(name, Critique, annotator.key, digest(*solutions), make=make)
