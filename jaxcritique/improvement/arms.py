"""How exploration's compute is spent: the curves of Figure 6 and the rows of Table 4 (section 5).

Algorithm 1 (`algorithm.py`) is the same for every arm. An arm is one entry of `ARMS`: what it
samples, what it needs, and how reports show it.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from jaxcritique.analysis.figures import STYLES, Style
from jaxcritique.records import Solution

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Feedback:
    """What an arm samples beyond the responses."""

    responses: Sequence[Solution]  # Shown to the critic; one that occurs twice counts twice.
    critiques: int  # Of each of these responses.
    refinements: int  # After each critique.


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to explore."""

    name: str
    label: str  # In figures and tables.
    about: str  # For help texts and reports: what is sampled beyond the N responses.
    style: Style
    # Given an iteration's responses, L (see `LoopConfig.critiques`) and a seed; None: no critic.
    feedback: Callable[[Sequence[Solution], int, int], Feedback] | None = None
    # The arm whose generated tokens this one matches in each iteration, by more than N responses.
    tokens_of: str | None = None
    least_critiques: int = 1  # The least L with which the arm differs from the critique method.


ARMS: dict[str, Arm] = {}


def register(arm: Arm) -> None:
    """Adds an arm to `ARMS`: everything that `SelfImproveConfig.methods` may name.

    Raises:
      ValueError: the name is taken, or `tokens_of` names no arm registered before.
    """
    if arm.name in ARMS:
        raise ValueError(f"There is an arm named {arm.name!r} already.")
    if arm.tokens_of is not None and arm.tokens_of not in ARMS:
        raise ValueError(f"Arm {arm.name!r} matches the tokens of {arm.tokens_of!r}: no such arm.")
    ARMS[arm.name] = arm


def wrong_responses(responses: Sequence[Solution]) -> list[Solution]:
    """Returns the wrong responses: all that the paper's difficulty-aware allocation criticises."""
    return [response for response in responses if not response.correct]


def spread(items: Sequence[T], times: int, seed: int) -> list[T]:
    """Returns `times` items, each equally often; the remainder goes to items drawn by the seed.

    Raises:
      ValueError: there are no items, but `times` is positive.
    """
    if not items and times:
        raise ValueError(f"{times} cannot be spread over no items")
    rounds, rest = divmod(times, len(items)) if items else (0, 0)
    drawn = sorted(random.Random(f"spread/{seed}").sample(range(len(items)), rest))
    return [*items] * rounds + [items[index] for index in drawn]


def samples_beyond(samples: int, tokens: int, budget: int) -> int:
    """Returns how many more samples bring the total number of tokens closest to a budget.

    Args:
      samples: drawn so far.
      tokens: of these samples; a further one is expected to take as many as their average.
      budget: tokens of all samples together.
    """
    if not tokens:  # All samples failed: their cost is unknown.
        return 0
    return max(0, round((budget - tokens) * samples / tokens))


register(
    Arm(
        "vanilla",
        "Vanilla",
        "nothing: no critic",
        STYLES[0],
    )
)
register(
    Arm(
        "critique",
        "Critique-in-the-loop",
        "L critiques of each wrong response, and one refinement after each",
        STYLES[1],
        lambda responses, critiques, seed: Feedback(wrong_responses(responses), critiques, 1),
    )
)
register(
    Arm(
        "no_difficulty_awareness",
        "No difficulty awareness",
        "as many critiques and refinements, spread over all responses, right or wrong",
        STYLES[3],
        lambda responses, critiques, seed: Feedback(
            spread(responses, critiques * len(wrong_responses(responses)), seed), 1, 1
        ),
    )
)
register(
    Arm(
        "more_refinements",
        "More refinements",
        "one critique of each wrong response, and L refinements after it",
        STYLES[4],
        lambda responses, critiques, seed: Feedback(wrong_responses(responses), 1, critiques),
        least_critiques=2,
    )
)
register(
    Arm(
        "vanilla_equal_tokens",
        "Vanilla, equal tokens",
        "further responses, up to the tokens that the critique method generates",
        STYLES[5],
        tokens_of="critique",
    )
)
