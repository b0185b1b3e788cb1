"""How exploration's compute is spent: the curves of Figure 6 and the rows of Table 4 (section 5).

Algorithm 1 is the same for all of them (`self_improve.py`); an arm says only which responses the
critic sees, how often, and how often the actor refines.
"""

import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from jaxcritique.records import Solution

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to explore."""

    name: str
    # Given the responses and a seed, those that the critic sees; None: there is no critic.
    shown: Callable[[Sequence[Solution], int], list[Solution]] | None = None
    critiques: int = 0  # Of each response shown; one that is shown twice has twice as many.
    refinements: int = 0  # After each critique.
    # The arm whose tokens this one generates too in each iteration, by responses beyond N.
    tokens_of: str | None = None


def arms(critiques: int) -> dict[str, Arm]:
    """Returns all arms by name; one with `tokens_of` comes after the arm named there.

    Args:
      critiques: L, of a wrong response.
    """
    alike = functools.partial(responses_alike, critiques=critiques)
    found = (
        Arm("vanilla"),
        Arm("critique", wrong_responses, critiques, 1),
        # As many critiques and refinements as the method itself would have of these responses.
        Arm("no_difficulty_awareness", alike, 1, 1),
        # As many refinements of each wrong response, L, which is as many tries at a right solution.
        Arm("more_refinements", wrong_responses, 1, critiques),
        Arm("vanilla_equal_tokens", tokens_of="critique"),
    )
    return {arm.name: arm for arm in found}


def wrong_responses(responses: Sequence[Solution], seed: int) -> list[Solution]:
    """The paper's difficulty-aware allocation: what was answered wrongly counts as difficult."""
    del seed  # Nothing is drawn.
    return [response for response in responses if not response.correct]


def responses_alike(responses: Sequence[Solution], seed: int, critiques: int) -> list[Solution]:
    """The same number of critiques as L of each wrong response, over all responses alike."""
    return spread(responses, critiques * len(wrong_responses(responses, seed)), seed)


def spread(items: Sequence[T], times: int, seed: int) -> list[T]:
    """Returns `times` items: all equally often, but that some, drawn by the seed, come once more.

    Raises:
      ValueError: there is nothing to spread over.
    """
    if not items and times:
        raise ValueError(f"{times} cannot be spread over no items")
    rounds, rest = divmod(times, len(items)) if items else (0, 0)
    drawn = sorted(random.Random(f"spread/{seed}").sample(range(len(items)), rest))
    return [*items] * rounds + [items[index] for index in drawn]


def samples_beyond(samples: int, tokens: int, budget: int) -> int:
    """Returns how many further samples bring their tokens nearest to a budget.

    Args:
      samples: drawn so far.
      tokens: that these took; a further sample is taken to cost as many as one of them.
      budget: tokens of all samples together.
    """
    if not tokens:
        return 0  # None could be had, and so no price.
    return max(0, round((budget - tokens) * samples / tokens))
