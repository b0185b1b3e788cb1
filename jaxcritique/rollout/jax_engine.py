"""Our own engine: continuous batching over a slot KV cache, in JAX, on whatever JAX runs on.

A slot is a row of the cache. Its prompt is read in chunks of a fixed size, then all slots are
decoded together, a block of steps at a time. Prompts that begin alike are read once: a
slot that already holds the beginning is copied. What runs on the devices is in `decoding`.

On a mesh the weights lie as in training, the slots are divided over `data` and `fsdp` and the heads
of the cache over `tensor`.
"""

import collections
import dataclasses
import functools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding

from jaxcritique.models.sharding import CACHE, make_mesh
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import Decoder, KVCache
from jaxcritique.rollout import decoding
from jaxcritique.rollout.sampler import (
    Completion,
    Progress,
    Request,
    SamplerError,
    no_progress,
    too_long,
)

_ROWS = 8  # Prompts of which a chunk is read at a time, and slots copied.
# Slots become free a few at a time: of eight rows most were empty, which cost a CPU as much as full
# ones do. Two were fastest of 1, 2, 4 and 8 for the tiny base (docs/log.md).
_CPU_ROWS = 2
_CPU_CACHE_BYTES = 4 * 2**30


@dataclasses.dataclass
class _Sequence:
    """One sample that is being decoded."""

    request: Request
    sample: int
    prompt: np.ndarray
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    broken: bool = False  # The model's logits were not finite.


@dataclasses.dataclass(frozen=True)
class JaxConfig:
    """What the engine may use."""

    slots: int = 64  # Samples decoded at a time; fewer where the cache is too small for them.
    cache_bytes: int | None = None  # Of each device for keys and values; None: by what it has.
    mesh: str = ""  # Such as "data=2,tensor=4"; empty: fsdp over all devices, as in training.

    def devices(self) -> Mesh:
        """Lays out the devices of this host.

        Raises:
          ValueError: the mesh does not fit them.
        """
        return make_mesh(self.mesh, jax.local_devices())


class JaxSampler:
    """The `jax` engine; see `Sampler`.

    Attributes:
      shapes: the different programs that this model has needed so far. JAX compiles each once a
        process: those that a model of the same config and dtype needed before are there.
      seconds: what the time went into: "prefill", "decode" and "host".
    """

    def __init__(
        self,
        key: str,
        model: Decoder,
        tokenizer: Tokenizer,
        settings: JaxConfig,
        mesh: Mesh,
    ):
        """Holds a model ready.

        Args:
          key: names the weights.
          model: the weights, sharded over `mesh` as `models.sharding` says.
          tokenizer: with the chat format the model was trained on.
          settings: what it may use.
          mesh: the devices.
        """
        self.key = key
        self.shapes: set[tuple[Any, ...]] = set()
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self._config = model.config
        self._model: Decoder | None = model
        self._dtype = model.embedding.dtype
        self._tokenizer = tokenizer
        self._settings = settings
        self._mesh = mesh
        self._ways = mesh.shape["data"] * mesh.shape["fsdp"]  # The slots are divided.

    def generate(
        self, requests: Sequence[Request], progress: Progress = no_progress
    ) -> Iterator[Completion]:
        """Answers all requests; see `Sampler.generate`.

        Raises:
          SamplerError: not even one sample's keys and values fit into the budget.
        """
        waiting: list[_Sequence] = []
        context = self._config.max_positions
        for request in requests:
            prompt, error = np.zeros(0, np.int32), None
            try:
                prompt = np.array(request.token_ids(self._tokenizer), np.int32)
            except ValueError as refused:
                error = str(refused)
            if len(prompt) >= context:
                error = too_long(len(prompt), context)
            elif not len(prompt):
                error = error or "the prompt has no tokens"
            for sample in range(request.n):
                if error is None:
                    waiting.append(_Sequence(request, sample, prompt))
                else:
                    progress(0, 1)
                    yield request.failure(sample, error, len(prompt))
        if not waiting:
            return
        # Prompts of like length go together, the cache being as long as the longest needs, and of
        # these the ones that begin alike, whose beginning is read once.
        waiting.sort(
            key=lambda s: (decoding.round_up(len(s.prompt), decoding.CHUNK), s.prompt.tolist())
        )
        count = self._fit_slots(waiting)
        known = len(self.shapes)
        for sequence in _Run(self, waiting, count).finished_sequences(progress):
            request, sample, length = sequence.request, sequence.sample, len(sequence.prompt)
            if sequence.broken:
                yield request.failure(sample, "the model's logits are not finite", length)
            else:
                yield request.completion(
                    self._tokenizer, sample, length, sequence.tokens, sequence.logprobs
                )
        if len(self.shapes) > known:
            logging.info("jax engine: compiled for %d shapes so far", len(self.shapes))

    def close(self) -> None:
        """Frees the weights."""
        self._model = None

    def _fit_slots(self, waiting: Sequence[_Sequence]) -> int:
        """How many slots there are work and memory for, at the greatest length ever needed."""
        c = self._config
        longest = max(
            min(len(sequence.prompt) + sequence.request.max_tokens, c.max_positions)
            for sequence in waiting
        )
        itemsize = self._dtype.itemsize
        heads = c.num_kv_heads // self._mesh.shape["tensor"]
        position = 2 * c.num_layers * heads * c.head_dim * itemsize
        slot = position * decoding.cache_length(longest + decoding.BLOCK, c.max_positions)
        # While the cache grows, one layer of it is there twice.
        budget = self._budget() * c.num_layers // (c.num_layers + 1)
        if slot > budget:
            raise SamplerError(
                f"the keys and values of one sample of {longest} tokens need {slot} bytes, the "
                f"budget is {budget}. Raise `cache_gib` or ask for fewer tokens."
            )
        # The next power of two: for each number of slots everything is compiled anew.
        wanted = min(self._settings.slots, max(_ROWS, 1 << (len(waiting) - 1).bit_length()))
        return self._ways * min(-(-wanted // self._ways), budget // slot)

    def _budget(self) -> int:
        if self._settings.cache_bytes is not None:
            return self._settings.cache_bytes
        memory = self._mesh.devices.flat[0].memory_stats() or {}
        if "bytes_limit" not in memory:
            return _CPU_CACHE_BYTES
        return (memory["bytes_limit"] - memory["bytes_in_use"]) // 2


class _Run:
    """One call of `generate`: the slots, the cache, and which sequence is in which slot."""

    def __init__(self, sampler: JaxSampler, waiting: Sequence[_Sequence], count: int):
        self._sampler = sampler
        self._mesh = sampler._mesh
        on_cpu = self._mesh.devices.flat[0].platform == "cpu"
        self._rows = decoding.round_up(_CPU_ROWS if on_cpu else _ROWS, sampler._ways)
        self._context = sampler._config.max_positions
        self._waiting = deque(waiting)
        self._count = count
        requests = [sequence.request for sequence in waiting]
        self._wanted = decoding.Wanted(
            filters=any(r.top_k > 0 or r.top_p < 1 for r in requests),
            logprobs=any(r.logprobs for r in requests),
        )
        self._ends = sampler._tokenizer.stop_ids
        most_ends = max(len(self._ends.union(r.stop_token_ids)) for r in requests)
        self._slots = decoding.free_slots(count, most_ends, sampler._config.vocab_size)
        self._sequences: list[_Sequence | None] = [None] * count
        # The prompt whose keys and values each slot still holds, its own or a former one's. Not the
        # text after it: what decoding makes of a token is rounded otherwise than what reading does.
        self._held = [np.zeros(0, np.int32)] * count
        self._cache: KVCache = self._new_cache(decoding.cache_length(1, self._context))

    def finished_sequences(self, progress: Progress) -> Iterator[_Sequence]:
        """Yields sequences as they are completed."""
        clock = _Clock(self._sampler.seconds)
        while self._waiting or any(self._sequences):
            with jax.set_mesh(self._mesh):
                self._admit()
                jax.block_until_ready(self._cache)
                clock.lap("prefill")
                self._resize()
                self._note("decode", *dataclasses.astuple(self._wanted), self._slots.stops.shape[1])
                self._slots, self._cache, drawn, likely = decoding.decode_block(
                    self._wanted,
                    self._sampler._model,
                    self._slots,
                    self._cache,
                )
            self._slots = jax.tree.map(np.array, self._slots)  # Writable copies on the host.
            drawn = np.asarray(drawn)
            likely = None if likely is None else np.asarray(likely)
            clock.lap("decode")
            kept, finished = self._collect(drawn, likely)
            progress(kept, len(finished))
            clock.lap("host")
            yield from finished
            clock.lap("consumer")

    def _collect(self, drawn: np.ndarray, likely: np.ndarray | None) -> tuple[int, list[_Sequence]]:
        """Gives each sequence what was drawn for it.

        Returns:
          How many tokens were kept, and the sequences that are finished.
        """
        kept = 0
        finished = []
        broken = np.zeros(self._count, bool)
        for slot, sequence in enumerate(self._sequences):
            if sequence is None:
                continue
            before = len(sequence.tokens)
            count = int((drawn[:, slot] >= 0).sum())
            sequence.broken = bool((drawn[:, slot] == decoding.BAD_LOGITS).any())
            sequence.tokens += drawn[:count, slot].tolist()
            if likely is not None:
                sequence.logprobs += likely[:count, slot].tolist()
            if self._at_stop_string(sequence, count):
                self._slots.active[slot] = False
            kept += len(sequence.tokens) - before
            if not self._slots.active[slot]:
                self._sequences[slot] = None
                finished.append(sequence)
                if sequence.broken:
                    broken[slot] = True
                    self._held[slot] = np.zeros(0, np.int32)
        if broken.any():
            with jax.set_mesh(self._mesh):
                self._cache = decoding.clear_slots(self._cache, broken)
        return kept, finished

    def _at_stop_string(self, sequence: _Sequence, new: int) -> bool:
        """Whether the text holds a stop string; if so, drops the tokens after its first end.

        So the tokens kept do not depend on when we looked.
        """
        tokens, tokenizer = sequence.tokens, self._sampler._tokenizer
        if sequence.request.stop_at(tokenizer, tokens) is None:
            return False
        count = len(tokens) - new + 1
        while sequence.request.stop_at(tokenizer, tokens[:count]) is None:
            count += 1
        del sequence.tokens[count:], sequence.logprobs[count:]
        return True

    def _admit(self) -> None:
        """Assigns waiting sequences to free slots, and has their prompts read."""
        free = [slot for slot, sequence in enumerate(self._sequences) if sequence is None]
        new: list[tuple[int, np.ndarray]] = []
        while free and self._waiting:
            slot, sequence = free.pop(0), self._waiting.popleft()
            self._assign(slot, sequence)
            # The last token is run by the first decoding step, which draws what follows it.
            new.append((slot, sequence.prompt[:-1]))
        if new:
            self._resize()
        while new:
            # What begins like another of the new ones waits until that one is read.
            now: list[tuple[int, np.ndarray]] = []
            later = []
            donors, starts = [], []
            for slot, prompt in new:
                donor, shared = _most_shared(prompt, self._held)
                if _most_shared(prompt, [other for _, other in now])[1] > shared:
                    later.append((slot, prompt))
                else:
                    now.append((slot, prompt))
                    donors.append(donor)
                    starts.append(shared)
            targets = [slot for slot, _ in now]
            copies = [
                (donor, target)
                for donor, target, start in zip(donors, targets, starts, strict=True)
                if start and donor != target
            ]
            self._copy(copies)
            self._read(now, starts)
            for slot, prompt in now:
                self._held[slot] = prompt
            new = later

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        """Copies slots. A slot is read before anything is written to it."""
        # A slot that is both read and written by different copies: all that read it come first.
        targets = {target for _, target in copies}
        copies = sorted(copies, key=lambda copy: copy[0] not in targets)
        while copies:
            batch = copies[:_ROWS]
            written = {target for _, target in batch}
            # Within a batch all is read before anything is written; across batches, not.
            if any(source in written for source, _ in copies[_ROWS:]):
                batch = copies[:]
            copies = copies[len(batch) :]
            size = decoding.round_up(len(batch), _ROWS)
            unused = size - len(batch)
            self._note("copy", size)
            self._cache = decoding.copy_slots(
                self._cache,
                np.array([source for source, _ in batch] + [0] * unused, np.int32),
                np.array([target for _, target in batch] + [self._count] * unused, np.int32),
            )

    def _read(self, prompts: list[tuple[int, np.ndarray]], starts: list[int]) -> None:
        """Reads prompts from where they start to differ, some of them at a time."""
        todo = deque(
            (slot, prompt, start)
            for (slot, prompt), start in zip(prompts, starts, strict=True)
            if start < len(prompt)
        )
        self._note("read")
        while todo:
            tokens = np.zeros((self._rows, decoding.CHUNK), np.int32)
            start = np.zeros(self._rows, np.int32)
            slots = np.full(self._rows, self._count, np.int32)
            batch = [todo.popleft() for _ in range(min(self._rows, len(todo)))]
            for row, (slot, prompt, begin) in enumerate(batch):
                slots[row], start[row] = slot, begin
                chunk = prompt[begin : begin + decoding.CHUNK]
                tokens[row, : len(chunk)] = chunk
                if begin + decoding.CHUNK < len(prompt):
                    todo.appendleft((slot, prompt, begin + decoding.CHUNK))
            self._cache = decoding.read_chunk(
                self._sampler._model, self._cache, tokens, start, slots
            )

    def _assign(self, slot: int, sequence: _Sequence) -> None:
        request, prompt = sequence.request, sequence.prompt
        vocab_size = self._sampler._config.vocab_size
        last = len(prompt) - 1
        self._sequences[slot] = sequence
        self._slots.token[slot] = prompt[last]
        self._slots.position[slot] = last
        self._slots.end[slot] = min(last + request.max_tokens, self._context - 1)
        self._slots.floor[slot] = last + min(request.min_tokens, self._context)
        self._slots.active[slot] = True
        self._slots.seed[slot] = request.sample_seed(sequence.sample)
        self._slots.temperature[slot] = request.temperature
        self._slots.top_k[slot] = min(request.top_k, vocab_size)
        self._slots.top_p[slot] = request.top_p
        ends = [i for i in self._ends.union(request.stop_token_ids) if i < vocab_size]
        self._slots.stops[slot] = vocab_size
        self._slots.stops[slot, : len(ends)] = ends

    def _new_cache(self, length: int) -> KVCache:
        c = self._sampler._config
        shape = (self._count, c.num_kv_heads, length, c.head_dim)
        dtype = self._sampler._dtype
        zeros = functools.partial(jnp.zeros, shape, dtype, device=NamedSharding(self._mesh, CACHE))
        return tuple((zeros(), zeros()) for _ in range(c.num_layers))

    def _resize(self) -> None:
        """Makes the cache as long as the next block needs, in few different lengths."""
        used = [slot for slot, sequence in enumerate(self._sequences) if sequence]
        longest = int(self._slots.position[used].max())
        size = decoding.cache_length(longest + decoding.BLOCK + 1, self._context)
        have = self._cache[0][0].shape[2]
        if size < have:
            # What a slot holds beyond the new length is no beginning any more.
            self._held = [held[:size] for held in self._held]
        if size != have:
            self._note("resize", size)
            layers = list(self._cache)
            self._cache = ()
            for i, (keys, values) in enumerate(layers):
                # One at a time, so that all of it is never there twice.
                layers[i] = decoding.with_length(keys, size), decoding.with_length(values, size)
            self._cache = tuple(layers)

    def _note(self, *shape: Any) -> None:
        self._sampler.shapes.add((*shape, *self._cache[0][0].shape))


@dataclasses.dataclass
class _Clock:
    """Adds up what time goes into."""

    seconds: dict[str, float]
    last: float = dataclasses.field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now


def _most_shared(prompt: np.ndarray, held: Sequence[np.ndarray]) -> tuple[int, int]:
    """Finds the slot with the longest shared prefix of a prompt.

    Returns:
      Its number, and how many tokens: all of the prompt's, or a multiple of the chunk, so that a
      chunk is always the same tokens at the same positions, whoever reads it.
    """
    best, shared = 0, 0
    for number, tokens in enumerate(held):
        length = min(len(tokens), len(prompt))
        if length <= shared:
            continue
        different = np.flatnonzero(tokens[:length] != prompt[:length])
        same = int(different[0]) if len(different) else length
        if same < len(prompt):
            same -= same % decoding.CHUNK
        if same > shared:
            best, shared = number, same
    return best, shared
