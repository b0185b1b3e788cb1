"""What is asked of a model and what comes back, whichever engine answers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from jaxcritique.records import Messages, digest


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to be answered `n` times."""

    messages: Messages
    n: int
    max_tokens: int
    temperature: float  # 0: greedy.
    seed: int  # With the request's content it decides the text.
    prefix: str = ""  # The reply begins with this; the completion's text holds it too.

    @property
    def id(self) -> str:
        """The hash of the content: what a completion is known by, never a row number."""
        return digest(self)


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample of a request."""

    request: str  # The request's id.
    sample: int  # Which of its n samples, from 0.
    text: str
    finish_reason: Literal["stop", "length", "error"]
    prompt_tokens: int
    completion_tokens: int
    error: str | None = None


class Sampler(Protocol):
    """An engine with a model loaded."""

    key: str  # Names the weights, for the stages that depend on them.

    def generate(
        self, requests: Sequence[Request], progress: Callable[[int, int], None]
    ) -> list[Completion]:
        """Answers all requests, in order, sample by sample.

        What cannot be answered becomes a completion with finish_reason "error", never a gap.

        Args:
          requests: what is asked.
          progress: called now and then with the tokens generated and the samples finished since
            the last call.
        """
        ...
