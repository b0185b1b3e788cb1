"""Examples to token batches: masks, packing, and a data order that can be resumed anywhere."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32

from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.records import Messages

_ROLES = ("system", "user", "assistant")
_OPEN_ROWS = 64  # Rows that can still take an example.
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
    """A prompt and the reply to learn, as text. `weight` is beta in equation 2.

    Raises:
      ValueError: a message is no {"role": "system", "user" or "assistant", "content": text}, there
        is nothing to learn, or the weight is negative or not finite.
    """

    messages: Messages
    reply: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Checks the example, which may be anybody's."""
        for message in self.messages:
            text = message.get("content")
            if message.get("role") not in _ROLES or not isinstance(text, str) or len(message) > 2:
                roles = " or ".join(_ROLES)
                raise ValueError(
                    f"a message is {{'role': {roles}, 'content': text}}, not {message}"
                )
        if not self.messages or not self.reply:
            raise ValueError("an example needs a prompt and a reply; one of them is empty.")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"`weight={self.weight}` must be a finite number of at least 0.")


class TokenizedExample(NamedTuple):
    """An example's tokens; the first `prompt_length` of them are never a target."""

    tokens: list[int]
    prompt_length: int
    weight: float


def tokenize(tokenizer: Tokenizer, example: Example) -> TokenizedExample:
    """Renders and tokenises prompt and reply separately."""
    prompt = tokenizer.encode(tokenizer.prompt(example.messages))
    reply = tokenizer.encode(tokenizer.reply(example.messages, example.reply))
    return TokenizedExample(prompt + reply, len(prompt), example.weight)


def drop_too_long(
    examples: Sequence[TokenizedExample], sequence: int
) -> tuple[list[TokenizedExample], int]:
    """Returns the examples that fit into a row, and how many do not. None is truncated."""
    kept = [example for example in examples if len(example.tokens) <= sequence]
    return kept, len(examples) - len(kept)


def check_masks(examples: Sequence[TokenizedExample]) -> None:
    """Checks that every example has a prompt to condition on and a target to learn.

    Raises:
      ValueError: a loss mask is all ones or all zeros, or no example weighs anything.
    """
    if not any(example.weight > 0 for example in examples):
        raise ValueError("every example has weight 0: there is nothing to learn")
    for index, example in enumerate(examples):
        if not 0 < example.prompt_length < len(example.tokens):
            raise ValueError(
                f"example {index}: the loss mask is all "
                + ("zeros: it has no target" if example.prompt_length else "ones: it has no prompt")
            )


def plan_rows(lengths: Sequence[int], sequence: int) -> list[list[int]]:
    """Decides which examples share a row: first fit among the last `_OPEN_ROWS` rows.

    The order of the examples changes only within these.

    Args:
      lengths: of the examples, in order.
      sequence: tokens in a row.

    Returns:
      The indices of each row's examples.

    Raises:
      ValueError: an example is longer than a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index, length in enumerate(lengths):
        if length > sequence:
            raise ValueError(f"an example of {length} tokens does not fit a row of {sequence}")
        start = max(0, len(rows) - _OPEN_ROWS)
        row = next((i for i in range(start, len(rows)) if free[i] >= length), None)
        if row is None:
            rows.append([])
            free.append(sequence)
            row = len(rows) - 1
        rows[row].append(index)
        free[row] -= length
    return rows


def build_rows(rows: Sequence[Sequence[TokenizedExample]], sequence: int) -> Batch:
    """Lays examples out in rows, each with its own segment and positions.

    So packing changes no loss. A row without examples has weight 0.
    """
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


def pack(examples: Sequence[TokenizedExample], sequence: int) -> Batch:
    """Plans and builds the rows of all examples at once.

    Raises:
      ValueError: there are no examples, one is longer than a row, or a mask is all ones or zeros.
    """
    if not examples:
        raise ValueError("there are no examples to pack")
    check_masks(examples)
    plan = plan_rows([len(example.tokens) for example in examples], sequence)
    return build_rows([[examples[i] for i in row] for row in plan], sequence)


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of a run. Each host builds only the rows it feeds to its own devices."""

    rows: int  # In a batch, over all hosts.
    sequence: int  # Tokens in a row.
    build: Callable[[int, slice], Batch]  # (step, rows) -> those rows; a pure function.

    def place(self, step: int, sharding: jax.sharding.Sharding) -> Batch:
        """Returns the batch of a step, sharded over the devices."""
        shape = (self.rows, self.sequence)
        of_devices: Any = sharding
        where = of_devices.addressable_devices_indices_map(shape)
        spans = [index[0].indices(self.rows) for index in where.values() if index is not None]
        first, last = min(start for start, _, _ in spans), max(stop for _, stop, _ in spans)
        mine = self.build(step, slice(first, last))

        def place(array: np.ndarray) -> jax.Array:
            def part(index: Any) -> np.ndarray:
                start, stop, _ = index[0].indices(self.rows)
                return array[start - first : stop - first]

            return jax.make_array_from_callback(shape, sharding, part)

        return Batch(*map(place, mine))


def plan_epochs(
    examples: Sequence[TokenizedExample], sequence: int, rows: int, epochs: int, seed: int
) -> tuple[Batches, int]:
    """Plans several epochs, each packed in an order of its own, its last batch filled up with
    empty rows.

    Returns:
      The batches, a pure function of the examples, the seed and the step, and how many there are.
    """
    plan: list[list[int]] = []
    for epoch in range(epochs):
        order: list[int] = epoch_order(len(examples), seed, epoch).tolist()
        packed = plan_rows([len(examples[i].tokens) for i in order], sequence)
        plan += [[order[i] for i in row] for row in packed]
        plan += [[] for _ in range(-len(packed) % rows)]

    def build(step: int, of_step: slice) -> Batch:
        chosen = plan[step * rows + of_step.start : step * rows + of_step.stop]
        return build_rows([[examples[i] for i in row] for row in chosen], sequence)

    return Batches(rows, sequence, build), len(plan) // rows


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of `count` examples in an epoch: a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(count)
