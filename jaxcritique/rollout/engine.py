"""Our own engine: continuous batching over a slot KV cache, in JAX, on whatever JAX runs on."""

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import KVCache, Params, Structure, join
from jaxcritique.rollout.sampler import Completion, Request

_BLOCK = 8  # Decoding steps between two looks at the results.
_PREFILL_ROWS = 8
_PREFILL_STEP = 64  # Prompts are padded to a multiple of this.


Arrays = Any  # NumPy on the host, JAX in a jitted function.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """What each slot is doing. Every array is [slots]."""

    token: Int[Arrays, " b"]  # The last token, whose keys and values are not in the cache yet.
    position: Int[Arrays, " b"]  # Where it stands.
    end: Int[Arrays, " b"]  # The position no token may be sampled for any more.
    active: Bool[Arrays, " b"]
    seed: Int[Arrays, " b"]
    temperature: Float[Arrays, " b"]


@dataclasses.dataclass
class _Sequence:
    """One sample that is being written."""

    request: int
    sample: int
    prompt: list[int]
    tokens: list[int] = dataclasses.field(default_factory=list)


def sample_tokens(
    logits: Float[Array, "b v"],
    seed: Int[Array, " b"],
    position: Int[Array, " b"],
    temperature: Float[Array, " b"],
) -> Int[Array, " b"]:
    """Draws one token a row; temperature 0 takes the likeliest.

    The draw depends on the row's seed and position alone, so a request's text does not depend on
    what shares its batch. One uniform number a row is inverted through the cumulative sum.
    """

    def draw(row: Array, seed: Array, position: Array, temperature: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), position)
        mass = jnp.cumsum(jax.nn.softmax(row / jnp.maximum(temperature, 1e-6)))
        sampled = jnp.searchsorted(mass, jax.random.uniform(key) * mass[-1], side="right")
        sampled = jnp.minimum(sampled, row.shape[0] - 1)
        return jnp.where(temperature == 0, jnp.argmax(row), sampled)

    return jax.vmap(draw)(logits, seed, position, temperature)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(2, 3))
def _decode_block(
    structure: Structure, params: Params, slots: Slots, cache: KVCache, stops: Int[Array, " s"]
) -> tuple[Slots, KVCache, Int[Array, "block b"]]:
    """Runs _BLOCK steps; returns the tokens drawn, -1 where a slot was not active."""
    model = join(structure, params)

    def step(carry: tuple[Slots, KVCache], _: None) -> tuple[tuple[Slots, KVCache], Array]:
        slots, cache = carry
        hidden, cache = model.decode(slots.token, slots.position, cache)
        drawn = sample_tokens(model.logits(hidden), slots.seed, slots.position, slots.temperature)
        position = jnp.where(slots.active, slots.position + 1, slots.position)
        going_on = slots.active & (position < slots.end) & ~jnp.isin(drawn, stops)
        after = dataclasses.replace(
            slots,
            token=jnp.where(slots.active, drawn, slots.token),
            position=position,
            active=going_on,
        )
        return (after, cache), jnp.where(slots.active, drawn, -1)

    (slots, cache), drawn = jax.lax.scan(step, (slots, cache), length=_BLOCK)
    return slots, cache, drawn


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _prefill(
    structure: Structure,
    params: Params,
    cache: KVCache,
    prompts: Int[Array, "rows s"],
    source: Int[Array, " b"],
    target: Int[Array, " b"],
) -> KVCache:
    """Reads prompts and copies row `source[i]` to slot `target[i]`; a target past the end: none."""
    fresh = join(structure, params).prefill(prompts)
    length = prompts.shape[1]

    def put(old: Array, new: Array) -> Array:
        return old.at[target, :, :length].set(new[source], mode="drop")

    return jax.tree.map(put, cache, fresh)


@dataclasses.dataclass(frozen=True)
class JaxConfig:
    """What the engine may use."""

    slots: int = 64  # Samples written at a time.
    cache_bytes: int | None = None  # For keys and values; None: by what the device has.


class JaxSampler:
    """The `jax` engine; see `Sampler`."""

    def __init__(
        self,
        key: str,
        config: ModelConfig,
        structure: Structure,
        params: Params,
        tokenizer: Tokenizer,
        settings: JaxConfig,
    ):
        """Holds a model ready.

        Args:
          key: names the weights.
          config: the model's.
          structure: the model's.
          params: the weights.
          tokenizer: with the chat format the model was trained on.
          settings: what it may use.
        """
        self.key = key
        self._config, self._structure, self._params = config, structure, params
        self._tokenizer = tokenizer
        self._num_slots = settings.slots
        self._stops = jnp.array(sorted(tokenizer.stop_ids), jnp.int32)

    def generate(
        self, requests: Sequence[Request], progress: Callable[[int, int], None]
    ) -> Iterator[Completion]:
        """Answers all requests; see `Sampler.generate`."""
        waiting: list[tuple[int, list[int]]] = []
        for index, request in enumerate(requests):
            prompt = request.token_ids(self._tokenizer)
            if len(prompt) < self._config.max_positions:
                waiting.append((index, prompt))
                continue
            error = f"the prompt has {len(prompt)} tokens, the context {self._config.max_positions}"
            for sample in range(request.n):
                yield request.failure(sample, error, len(prompt))
        # Prompts of like length go together: the cache is as long as the longest needs.
        waiting.sort(key=lambda entry: len(entry[1]))
        run = _Run(self, requests, deque(waiting))
        for sequence in run.finished_sequences(progress):
            yield requests[sequence.request].completion(
                self._tokenizer, sequence.sample, len(sequence.prompt), sequence.tokens, ()
            )

    def close(self) -> None:
        """Frees the weights."""
        self._params = None


class _Run:
    """One call of `generate`: the slots, the cache, and who sits where."""

    def __init__(
        self,
        sampler: JaxSampler,
        requests: Sequence[Request],
        waiting: deque[tuple[int, list[int]]],
    ):
        self._sampler = sampler
        self._requests = requests
        self._config = sampler._config
        # A sample of each request at a time, its samples one after the other: they share a prompt.
        self._waiting = deque(
            _Sequence(index, sample, prompt)
            for index, prompt in waiting
            for sample in range(requests[index].n)
        )
        count = sampler._num_slots
        self._seated: list[_Sequence | None] = [None] * count
        self._slots = Slots(
            token=np.zeros(count, np.int32),
            position=np.zeros(count, np.int32),
            end=np.zeros(count, np.int32),
            active=np.zeros(count, bool),
            seed=np.zeros(count, np.uint32),
            temperature=np.zeros(count, np.float32),
        )
        self._cache = self._new_cache(_PREFILL_STEP)

    def finished_sequences(self, progress: Callable[[int, int], None]) -> Iterator[_Sequence]:
        """Yields sequences as they are completed."""
        while self._waiting or any(self._seated):
            self._admit()
            longest = max(
                int(position)
                for position, seat in zip(self._slots.position, self._seated, strict=True)
                if seat
            )
            self._resize(longest + _BLOCK + 1)
            self._slots, self._cache, drawn = _decode_block(
                self._sampler._structure,
                self._sampler._params,
                self._slots,
                self._cache,
                self._sampler._stops,
            )
            self._slots = jax.tree.map(np.array, self._slots)  # Writable copies on the host.
            drawn = np.asarray(drawn)
            finished = sum(map(bool, self._seated)) - int(self._slots.active.sum())
            progress(int((drawn >= 0).sum()), finished)
            for slot, sequence in enumerate(self._seated):
                if sequence is None:
                    continue
                sequence.tokens.extend(int(token) for token in drawn[:, slot] if token >= 0)
                if not self._slots.active[slot]:
                    self._seated[slot] = None
                    yield sequence

    def _admit(self) -> None:
        """Seats waiting sequences, a batch of prompts at a time, as long as there are seats."""
        free = [slot for slot, seat in enumerate(self._seated) if seat is None]
        while free and self._waiting:
            prompts: dict[int, list[int]] = {}
            source, target = [], []
            while free and self._waiting:
                sequence = self._waiting[0]
                if sequence.request not in prompts and len(prompts) == _PREFILL_ROWS:
                    break
                prompts.setdefault(sequence.request, sequence.prompt)
                source.append(list(prompts).index(sequence.request))
                target.append(free.pop(0))
                self._seat(target[-1], self._waiting.popleft())
            length = _round_up(max(map(len, prompts.values())), _PREFILL_STEP)
            self._resize(length)
            padded = np.zeros((_PREFILL_ROWS, length), np.int32)
            for row, prompt in enumerate(prompts.values()):
                padded[row, : len(prompt)] = prompt
            count = self._sampler._num_slots
            unused = count - len(source)
            self._cache = _prefill(
                self._sampler._structure,
                self._sampler._params,
                self._cache,
                padded,
                np.array(source + [0] * unused, np.int32),
                np.array(target + [count] * unused, np.int32),
            )

    def _seat(self, slot: int, sequence: _Sequence) -> None:
        request = self._requests[sequence.request]
        last = len(sequence.prompt) - 1
        self._seated[slot] = sequence
        # The last prompt token is run by the first decoding step, which draws what follows it.
        self._slots.token[slot] = sequence.prompt[last]
        self._slots.position[slot] = last
        self._slots.end[slot] = min(last + request.max_tokens, self._config.max_positions - 1)
        self._slots.active[slot] = True
        self._slots.seed[slot] = request.sample_seed(sequence.sample)
        self._slots.temperature[slot] = request.temperature

    def _new_cache(self, length: int) -> KVCache:
        c = self._config
        shape = (self._sampler._num_slots, c.num_kv_heads, length, c.head_dim)
        dtype = jax.tree.leaves(self._sampler._params)[0].dtype
        return tuple(
            (jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(c.num_layers)
        )

    def _resize(self, needed: int) -> None:
        """Makes the cache as long as needed, in few different sizes: each is compiled once."""
        size = 128
        while size < needed:
            size += 64 if size < 256 else size // 2 if size & (size - 1) == 0 else size // 3
        size = min(size, _round_up(self._config.max_positions, _PREFILL_STEP))
        have = self._cache[0][0].shape[2]
        if size > have:
            grow = ((0, 0), (0, 0), (0, size - have), (0, 0))
            self._cache = jax.tree.map(lambda x: jnp.pad(x, grow), self._cache)
        elif size < have and size >= max(self._slots.position) + 1:
            self._cache = jax.tree.map(lambda x: x[:, :, :size], self._cache)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
