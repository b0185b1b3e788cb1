"""Requests, completions and the sampler interface, common to all engines."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.records import Messages, digest


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt to sample `n` completions of."""

    messages: Messages  # A chat; the completion is the next reply. Empty: complete `text`.
    n: int
    max_tokens: int  # Of each completion.
    temperature: float  # 0: greedy.
    seed: int  # Samples are a function of the seed and the request's content.
    prefix: str = ""  # The reply begins with this text, which is also part of the completion.
    text: str = ""  # A plain text to complete, without a chat format.
    top_k: int = 0  # Sample from the k most likely tokens; 0: from all.
    top_p: float = 1.0  # Sample from the most likely tokens with this total probability.
    min_tokens: int = 0  # The text does not end before so many tokens.
    stop: tuple[str, ...] = ()  # The text ends before the first of these strings.
    stop_token_ids: tuple[int, ...] = ()  # Beside the tokenizer's own end tokens.
    logprobs: bool = False  # Whether the completion has the log-probability of each token.
    name: str = ""  # The caller's name for the request, which becomes its id.

    @functools.cached_property
    def content(self) -> str:
        """The hash of all fields."""
        return digest(self)

    @property
    def id(self) -> str:
        """Identifies the request: its name, or else the hash of its content."""
        return self.name or self.content

    def sample_seed(self, sample: int) -> int:
        """The seed of one sample: 32 bits, derived from the request's content."""
        return zlib.crc32(f"{self.content}/{sample}".encode())

    def token_ids(self, tokenizer: Tokenizer) -> list[int]:
        """The tokens of the prompt and the prefix."""
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
        """Returns the completion of a sample.

        The text is cut at the first stop string; all sampled tokens are counted.

        Args:
          tokenizer: of the model.
          sample: the sample's number, from 0.
          prompt_tokens: tokens of the prompt and the prefix.
          tokens: the sampled tokens, the end token included.
          logprobs: of the sampled tokens; only used where the request wants them.
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
        """Returns where the first stop string begins that ends after `min_tokens`, or None."""
        if not self.stop:
            return None
        text = self._decode(tokenizer, tokens)
        early = self._decode(tokenizer, tokens[: self.min_tokens])
        # Replacement characters at the end are the first bytes of a character not yet complete.
        end = len(early.rstrip("\ufffd"))
        starts = (text.find(stop, max(end - len(stop) + 1, 0)) for stop in self.stop)
        return min((start for start in starts if start >= 0), default=None)

    def _decode(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
        """Returns the text of sampled tokens.

        A reply to a chat without a prefix is decoded on its own, as training tokenises it.
        """
        return tokenizer.decode(tokens, after=self.text + self.prefix)

    def failure(self, sample: int, error: str, prompt_tokens: int = 0) -> "Completion":
        """Returns an error completion: no text, and the reason."""
        return Completion(self.id, sample, "", "error", prompt_tokens, 0, error)


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample of a request."""

    request: str  # The request's id.
    sample: int  # Which of its n samples, from 0.
    text: str
    finish_reason: Literal["stop", "length", "error"]
    prompt_tokens: int
    completion_tokens: int  # Sampled tokens, the end token included.
    error: str | None = None  # Why there is no text, where finish_reason is "error".
    # Of the sampled tokens, in nats, under the model's own distribution: before temperature, top_k
    # and top_p. None: not wanted.
    logprobs: tuple[float, ...] | None = None


Progress = Callable[[int, int], None]  # Called with new tokens and newly finished samples.


def no_progress(tokens: int, samples: int) -> None:
    """A `Progress` that shows nothing."""


class SamplerError(RuntimeError):
    """An engine cannot continue; the message says why."""


class AllRefused(SamplerError):
    """Every request was rejected; check the model's name and the parameters."""

    def __init__(self, why: str, failures: "list[Completion]"):
        """Takes the message, and an error completion for each sample."""
        super().__init__(why)
        self.failures = failures


def too_long(tokens: int, context: int) -> str:
    """Returns the error of a prompt that leaves no room for a reply in the context."""
    return f"the prompt has {tokens} tokens, the context {context}"


class Sampler(Protocol):
    """An engine with a model."""

    @property
    def key(self) -> str:
        """Identifies the weights; stages that depend on them hash it."""
        ...

    def generate(
        self, requests: Sequence[Request], progress: Progress = no_progress
    ) -> Iterable[Completion]:
        """Yields `n` completions of each request, in the order in which they finish.

        A request that cannot be answered gives completions with the finish_reason "error".

        Args:
          requests: no two of them equal.
          progress: called now and then with the tokens generated and the samples finished since
            the last call.

        Raises:
          SamplerError: the engine cannot continue.
        """
        ...
