"""Examples to token batches: masks, packing, and a data order that can be resumed anywhere."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.records import Messages

Arrays = Any  # NumPy on the host, JAX in a jitted function.


class Batch(NamedTuple):
    """Rows of packed examples. Every array is [rows, sequence]."""

    tokens: Int32[Arrays, "rows seq"]
    targets: Int32[Arrays, "rows seq"]  # The next token.
    weights: Float32[Arrays, "rows seq"]  # The target's weight in the loss; 0: no target.
    segments: Int32[Arrays, "rows seq"]  # Which example of the row, from 1; 0: padding.
    positions: Int32[Arrays, "rows seq"]  # From 0 within each example.


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt and the reply to learn, as text. `weight` is beta in equation 2."""

    messages: Messages
    reply: str
    weight: float = 1.0


class TokenizedExample(NamedTuple):
    """An example's tokens; the first `prompt_length` of them are never a target."""

    tokens: list[int]
    prompt_length: int
    weight: float


def tokenize(tokenizer: Tokenizer, example: Example) -> TokenizedExample:
    """Renders and tokenises prompt and reply, each apart."""
    prompt = tokenizer.encode(tokenizer.prompt(example.messages))
    reply = tokenizer.encode(tokenizer.reply(example.messages, example.reply))
    return TokenizedExample(prompt + reply, len(prompt), example.weight)


def drop_too_long(
    examples: Iterable[TokenizedExample], sequence: int
) -> tuple[list[TokenizedExample], int]:
    """Returns the examples that fit into a row whole, and how many do not. None is ever cut."""
    examples = list(examples)
    kept = [example for example in examples if len(example.tokens) <= sequence]
    return kept, len(examples) - len(kept)


def pack(examples: Sequence[TokenizedExample], sequence: int, window: int = 64) -> Batch:
    """Packs examples into rows, first fit among the last `window` rows that are still open.

    Keeps the order of the examples but for that window. Each example keeps its own segment and
    positions, so packing changes no loss.

    Raises:
      ValueError: there are no examples, one is longer than a row, or one has no target.
    """
    if not examples:
        raise ValueError("there are no examples to pack")
    rows: list[list[TokenizedExample]] = []
    free: list[int] = []
    for example in examples:
        length = len(example.tokens)
        if length > sequence:
            raise ValueError(f"an example of {length} tokens does not fit a row of {sequence}")
        if not 0 < example.prompt_length < length:
            raise ValueError(
                "the loss mask is all "
                + ("zeros: an example has no target" if example.prompt_length else "ones")
            )
        start = max(0, len(rows) - window)
        index = next((i for i in range(start, len(rows)) if free[i] >= length), None)
        if index is None:
            rows.append([])
            free.append(sequence)
            index = len(rows) - 1
        rows[index].append(example)
        free[index] -= length
    shape = (len(rows), sequence)
    batch = Batch(
        tokens=np.zeros(shape, np.int32),
        targets=np.zeros(shape, np.int32),
        weights=np.zeros(shape, np.float32),
        segments=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
    )
    for row, row_examples in enumerate(rows):
        start = 0
        for segment, example in enumerate(row_examples, start=1):
            length = len(example.tokens)
            here = slice(start, start + length)
            batch.tokens[row, here] = example.tokens
            batch.targets[row, start : start + length - 1] = example.tokens[1:]
            # Position i predicts token i + 1, so the first target sits on the prompt's last token.
            first = start + example.prompt_length - 1
            batch.weights[row, first : start + length - 1] = example.weight
            batch.segments[row, here] = segment
            batch.positions[row, here] = np.arange(length)
            start += length
    return batch


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of `count` examples in an epoch: a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(count)
