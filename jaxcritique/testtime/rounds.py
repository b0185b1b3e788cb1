"""Rounds of critique and refinement (sections 2 and 6.3).

The prompt of a round holds the question and the latest answer only; the actor's also the critique
of it. Test-time compute scales in parallel (K responses with a round each) or in sequence (K rounds
after one response).
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from jaxcritique.records import Critique, Refinement, Solution
from jaxcritique.roles import Context, costs_of, refine
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import Dataset
from jaxcritique.testtime.voting import Answer


class Critic(Protocol):
    """Writes one critique of each solution, as a stage; an empty one means self-correction."""

    def __call__(
        self,
        context: Context,
        name: str,
        solutions: Sequence[Solution],
        temperature: float,
        prefixes: Sequence[str] = (),
    ) -> Dataset[Critique]:
        """Returns the critiques in the order of the solutions; COSTS are among its facts.

        A model continues `prefixes`, one a solution, where they are given; a program may ignore
        them.
        """
        ...


@dataclasses.dataclass(frozen=True)
class RefineProtocol:
    """Which answers are criticised, and after which critiques the actor refines.

    Where either is false the answer is final.
    """

    asks: Callable[[Answer], bool]
    refines: Callable[[Critique], bool]


PROTOCOLS = {
    "refine_all": RefineProtocol(lambda answer: True, lambda critique: True),
    # A critique without a verdict flags its answer.
    "refine_flagged": RefineProtocol(lambda answer: True, lambda c: c.says_correct is not True),
    # An oracle knows which answers are right (section 6.1); only the others are criticised.
    "oracle": RefineProtocol(lambda answer: not answer.correct, lambda critique: True),
}


@dataclasses.dataclass(frozen=True)
class Chain:
    """A response and the rounds after it."""

    response: Solution
    critiques: tuple[Critique, ...] = ()  # Each of the answer before it.
    refinements: tuple[Refinement, ...] = ()  # As many, or one fewer where a critique ended it.

    @property
    def problem(self) -> str:
        """The id of the problem."""
        return self.response.problem.id

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The response and all refinements."""
        return self.response, *self.refinements

    @property
    def tokens(self) -> int:
        """Generated in all, by actor and critic."""
        return sum(r.tokens for r in (self.response, *self.critiques, *self.refinements))

    def cut(self, protocol: RefineProtocol, rounds: int) -> "Chain":
        """Returns the part of this chain that `protocol` would have sampled in so many rounds.

        Raises:
          ValueError: the protocol needs more than this chain has; the problem is named.
        """
        critiques: list[Critique] = []
        refinements: list[Refinement] = []
        for number in range(rounds):
            if not protocol.asks((self.response, *refinements)[-1]):
                break
            self._require(len(self.critiques) > number, "critique", number)
            critiques.append(self.critiques[number])
            if not protocol.refines(critiques[-1]):
                break
            self._require(len(self.refinements) > number, "refinement", number)
            refinements.append(self.refinements[number])
        return Chain(self.response, tuple(critiques), tuple(refinements))

    def _require(self, present: bool, what: str, number: int) -> None:
        if not present:
            raise ValueError(f"problem {self.problem} has no {what} in round {number + 1}.")


def run_rounds(
    context: Context,
    name: str,
    actor: Sampler,
    critic: Critic,
    responses: Sequence[Solution],
    protocols: Collection[RefineProtocol],
    rounds: int,
    temperature: float,
) -> tuple[list[Chain], dict[str, dict[str, int]]]:
    """Samples rounds after each response, as many as any of the protocols needs.

    `Chain.cut` then gives the chain of each of them.

    Args:
      context: of the run.
      name: prefix of the stages' names.
      actor: refines.
      critic: criticises.
      responses: the answers to begin with; one may occur more than once.
      protocols: that the chains must suffice for.
      rounds: the most of them.
      temperature: of critiques and refinements.

    Returns:
      The chains, and the cost of each stage.
    """
    chains = [Chain(response) for response in responses]
    costs: dict[str, dict[str, int]] = {}
    for number in range(rounds):
        # Seeds differ between rounds, so that an unchanged answer may get another critique.
        turn = context.reseeded(number)
        alive = [  # The protocols that have not ended each chain.
            [p for p in protocols if len(chain.cut(p, number).refinements) == number]
            for chain in chains
        ]
        criticised = [
            index
            for index, chain in enumerate(chains)
            if any(protocol.asks(chain.answers[-1]) for protocol in alive[index])
        ]
        latest = [as_solution(chains[index].answers[-1]) for index in criticised]
        stage = f"{name}-criticise-{number + 1}"
        critiques = critic(turn, stage, latest, temperature)
        costs[stage] = costs_of(critiques)
        flagged: list[int] = []
        for index, critique in zip(criticised, critiques, strict=True):
            chain, answer = chains[index], chains[index].answers[-1]
            chains[index] = dataclasses.replace(chain, critiques=(*chain.critiques, critique))
            if any(p.asks(answer) and p.refines(critique) for p in alive[index]):
                flagged.append(index)
        subjects = [chains[index].critiques[-1] for index in flagged]
        stage = f"{name}-refine-{number + 1}"
        refined = refine(turn, stage, actor, subjects, 1, temperature)
        costs[stage] = costs_of(refined)
        for index, refinement in zip(flagged, refined, strict=True):
            chain = chains[index]
            chains[index] = dataclasses.replace(chain, refinements=(*chain.refinements, refinement))
    return chains, costs


def as_solution(answer: Answer) -> Solution:
    """Returns a refinement as the response that the next round is about."""
    if isinstance(answer, Solution):
        return answer
    problem = answer.critique.solution.problem
    return Solution(problem, answer.text, answer.verdict, answer.answer, tokens=answer.tokens)
