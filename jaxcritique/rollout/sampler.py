"""What is asked of a model and what comes back, whichever engine answers."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.records import Messages, digest


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to be answered `n` times."""

    messages: Messages  # A chat to be replied to; empty where there is a `text` instead.
    n: int
    max_tokens: int
    temperature: float  # 0: greedy.
    seed: int  # With the request's content it decides the text.
    prefix: str = ""  # The reply begins with this; the completion's text holds it too.
    text: str = ""  # To be gone on from as it stands, without a chat format.
    top_k: int = 0  # Only the k likeliest tokens are drawn; 0: all.
    top_p: float = 1.0  # Only the likeliest tokens that have this much mass together.
    min_tokens: int = 0  # Nothing ends the text before there are so many.
    stop: tuple[str, ...] = ()  # The text ends before the first of these.
    stop_token_ids: tuple[int, ...] = ()  # Beside those that always end a reply.
    logprobs: bool = False  # Whether the completion says how likely each token was.
    name: str = ""  # What whoever asks calls it.

    @functools.cached_property
    def content(self) -> str:
        """The hash of all that is said above."""
        return digest(self)

    @property
    def id(self) -> str:
        """What a completion is known by: the name, or else the content; never a row number."""
        return self.name or self.content

    def sample_seed(self, sample: int) -> int:
        """The seed of one of the samples, 32 bits of the content's hash."""
        return zlib.crc32(f"{self.content}/{sample}".encode())

    def token_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The prompt's tokens, the prefix's included."""
        text = tokenizer.prompt(self.messages) if self.messages else self.text
        return tokenizer.encode(text) + tokenizer.encode(self.prefix)

    def completion(
        self,
        tokenizer: Tokenizer,
        sample: int,
        prompt_tokens: int,
        tokens: Sequence[int],
        logprobs: Sequence[float],
    ) -> "Completion":
        """Makes the completion of a sample from the tokens that were drawn, the last one included.

        The text is cut where a stop string begins; the tokens are counted as they were drawn.
        """
        ends = tokenizer.stop_ids.union(self.stop_token_ids)
        stopped = bool(tokens) and tokens[-1] in ends
        tokens_shown = tokens[:-1] if stopped else tokens
        text = self._decode(tokenizer, tokens_shown)
        if (cut := self.stop_at(tokenizer, tokens_shown)) is not None:
            text, stopped = text[:cut], True
        return Completion(
            request=self.id,
            sample=sample,
            text=self.prefix + text,
            finish_reason="stop" if stopped else "length",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens),
            logprobs=tuple(logprobs) if self.logprobs else None,
        )

    def stop_at(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> int | None:
        """Where in the text the first stop string begins that ends behind `min_tokens`."""
        if not self.stop:
            return None
        text = self._decode(tokenizer, tokens)
        early = self._decode(tokenizer, tokens[: self.min_tokens])
        # Replacement characters at its end are a character whose last bytes come later.
        end = len(early.rstrip("\ufffd"))
        found = (text.find(stop, max(end - len(stop) + 1, 0)) for stop in self.stop)
        return min((at for at in found if at >= 0), default=None)

    def _decode(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
        """Returns the text of drawn tokens. A reply to a chat, without a prefix, is a text of its
        own: its tokens are those that training makes of it."""
        return tokenizer.decode(tokens, after=self.text + self.prefix)

    def failure(self, sample: int, error: str, prompt_tokens: int = 0) -> "Completion":
        """Makes the completion of a sample that there is none of, with the reason."""
        return Completion(self.id, sample, "", "error", prompt_tokens, 0, error)


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
    # Of the tokens drawn, under the model's own distribution: before temperature, top_k and top_p.
    logprobs: tuple[float, ...] | None = None


class SamplerError(RuntimeError):
    """An engine cannot go on; the message says why, to whoever started the program."""


class AllRefused(SamplerError):
    """Nothing was answered and many requests were refused: what they have in common seems wrong."""

    def __init__(self, why: str, failures: "list[Completion]"):
        """Takes the message, and the completions of all that was asked."""
        super().__init__(why)
        self.failures = failures


def too_long(tokens: int, context: int) -> str:
    """The reason where a prompt of so many tokens leaves no room for a reply."""
    return f"the prompt has {tokens} tokens, the context {context}"


class Sampler(Protocol):
    """An engine with a model."""

    @property
    def key(self) -> str:
        """Names the weights, for the stages that depend on them."""
        ...

    def generate(
        self, requests: Sequence[Request], progress: Callable[[int, int], None]
    ) -> Iterable[Completion]:
        """Answers all requests: every sample of each, in any order, as they are finished.

        What cannot be answered becomes a completion with finish_reason "error", never a gap.

        Args:
          requests: what is asked; no two are the same.
          progress: called now and then with the tokens generated and the samples finished since
            the last call.
        """
        ...
