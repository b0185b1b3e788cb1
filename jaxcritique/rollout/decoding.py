"""What the JAX engine runs on the devices.

A slot's keys and values are a row of the KV cache. All shapes are fixed but the cache's length,
which takes few values; each is compiled once.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int, UInt

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.sharding import CACHE, ROWS, abstract_arrays, constrain
from jaxcritique.models.transformer import Decoder, KVCache, abstract
from jaxcritique.rollout.sampling import draw_tokens, log_probabilities

BLOCK = 8  # Decoding steps between two looks at the results.
CHUNK = 64  # Tokens of a prompt that are read at a time.
# On a CPU, XLA sums in another order for fewer rows. Sums may still round differently with more
# rows or a longer cache, which can flip a draw that lies exactly between two tokens.
FEWEST_ROWS = 8
NO_TOKEN, BAD_LOGITS = -1, -2  # Instead of a token: inactive slot, non-finite logits.

Arrays = Any  # NumPy on the host, JAX in a jitted function.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """The state of each slot."""

    token: Int[Arrays, " b"]  # The last token, whose keys and values are not in the cache yet.
    position: Int[Arrays, " b"]  # Of that token.
    end: Int[Arrays, " b"]  # The first position for which no token may be sampled.
    floor: Int[Arrays, " b"]  # The first position after which a stop token may be drawn.
    active: Bool[Arrays, " b"]
    seed: UInt[Arrays, " b"]
    temperature: Float[Arrays, " b"]
    top_k: Int[Arrays, " b"]
    top_p: Float[Arrays, " b"]
    stops: Int[Arrays, "b s"]  # Its stop tokens, padded with ids past the vocabulary.


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a step computes beside tokens; static."""

    filters: bool  # top_k and top_p
    logprobs: bool


def free_slots(count: int, stops: int, vocab_size: int) -> Slots:
    """Returns inactive slots, each with room for so many stop tokens."""
    ints = lambda: np.zeros(count, np.int32)  # noqa: E731
    return Slots(
        token=ints(),
        position=ints(),
        end=ints(),
        floor=ints(),
        active=np.zeros(count, bool),
        seed=np.zeros(count, np.uint32),
        temperature=np.zeros(count, np.float32),
        top_k=ints(),
        top_p=np.ones(count, np.float32),
        stops=np.full((count, round_up(stops, 4)), vocab_size, np.int32),
    )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def decode_block(
    wanted: Wanted, model: Decoder, slots: Slots, cache: KVCache
) -> tuple[Slots, KVCache, Int[Array, "block b"], Float[Array, "block b"] | None]:
    """Runs BLOCK steps.

    Returns:
      The slots, the cache, the tokens and, if wanted, their log-probabilities. A token is NO_TOKEN
      where its slot was inactive, and BAD_LOGITS, its slot's last, where logits were not finite.
    """
    # Few slots are padded with inactive ones, for which the cache has no rows.
    count = len(slots.token)
    filled = count * -(-FEWEST_ROWS // count)
    rows = jnp.arange(filled) if filled > count else None
    fill = lambda x: jnp.pad(x, [(0, filled - count)] + [(0, 0)] * (x.ndim - 1))  # noqa: E731
    slots = jax.tree.map(lambda x: constrain(fill(x), ROWS), slots)

    def step(carry: tuple[Slots, KVCache], _: None) -> tuple[tuple[Slots, KVCache], Any]:
        slots, cache = carry
        hidden, cache = model.extend(slots.token[:, None], slots.position[:, None], cache, rows)
        logits = constrain(model.logits(hidden[:, 0]), ROWS)
        # A stop token gets no probability before `floor`.
        most = jnp.where(slots.position < slots.floor, -1e30, jnp.inf)[:, None]
        allowed = logits.at[jnp.arange(filled)[:, None], slots.stops].min(most, mode="drop")
        rest = slots.seed, slots.position, slots.temperature
        filters = (slots.top_k, slots.top_p) if wanted.filters else ()
        drawn = draw_tokens(allowed, *rest, *filters)
        sound = jnp.isfinite(allowed.max(axis=1))
        position = jnp.where(slots.active, slots.position + 1, slots.position)
        stopped = (drawn[:, None] == slots.stops).any(axis=1)
        after = dataclasses.replace(
            slots,
            token=jnp.where(slots.active, drawn, slots.token),
            position=position,
            active=slots.active & (position < slots.end) & ~stopped & sound,
        )
        likely = log_probabilities(logits, drawn) if wanted.logprobs else None
        drawn = jnp.where(slots.active, jnp.where(sound, drawn, BAD_LOGITS), NO_TOKEN)
        return (after, cache), (drawn, likely)

    (slots, cache), (drawn, likely) = jax.lax.scan(step, (slots, cache), length=BLOCK)
    slots = jax.tree.map(lambda x: x[:count], slots)
    return slots, cache, drawn[:, :count], None if likely is None else likely[:, :count]


def trace_decoding(
    config: ModelConfig, mesh: Mesh, slots: int, positions: int, dtype: Any
) -> tuple[jax.stages.Traced, Decoder, Any]:
    """Traces the engine's decoding of a block, to be compiled and measured without running.

    Args:
      config: the model's.
      mesh: the devices.
      slots: samples decoded at a time, over all devices; a multiple of data x fsdp.
      positions: length of the KV cache; rounded up to the next length that is used.
      dtype: of weights, keys and values.

    Returns:
      `decode_block` as traced, and the shapes and shardings of its model and its cache.

    Raises:
      ValueError: the mesh does not divide the model.
    """
    cast = lambda x: jax.ShapeDtypeStruct(x.shape, dtype)  # noqa: E731
    model = abstract_arrays(mesh, jax.tree.map(cast, abstract(config, Decoder)))
    shape = slots, config.num_kv_heads, cache_length(positions, config.max_positions)
    part: Any = jax.ShapeDtypeStruct(
        (*shape, config.head_dim), dtype, sharding=NamedSharding(mesh, CACHE)
    )
    cache = ((part, part),) * config.num_layers
    with jax.set_mesh(mesh):
        traced = decode_block.trace(
            Wanted(filters=False, logprobs=False),
            model,
            free_slots(slots, 1, config.vocab_size),
            cache,
        )
    return traced, model, cache


@functools.partial(jax.jit, donate_argnums=1)
def read_chunk(
    model: Decoder,
    cache: KVCache,
    tokens: Int[Array, "rows chunk"],
    start: Int[Array, " rows"],
    slot: Int[Array, " rows"],
) -> KVCache:
    """Reads a chunk of prompts into slots from position `start`; ignores slots past the end."""
    positions = start[:, None] + jnp.arange(tokens.shape[1])
    return model.extend(tokens, positions, cache, slot)[1]


@functools.partial(jax.jit, donate_argnums=0)
def copy_slots(cache: KVCache, source: Int[Array, " rows"], target: Int[Array, " rows"]) -> KVCache:
    """Copies slots; copies to targets past the end are ignored."""
    return jax.tree.map(lambda x: constrain(x.at[target].set(x[source], mode="drop"), CACHE), cache)


@functools.partial(jax.jit, donate_argnums=0)
def clear_slots(cache: KVCache, slots: Bool[Array, " b"]) -> KVCache:
    """Zeroes slots: a NaN left in the cache leaks through the mask."""
    row = slots[:, None, None, None]
    return jax.tree.map(lambda x: constrain(jnp.where(row, 0, x), CACHE), cache)


@functools.partial(jax.jit, static_argnums=1)
def with_length(x: Array, length: int) -> Array:
    """Cuts or pads the keys or values of one layer to a length."""
    missing = length - x.shape[2]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing > 0 else x[:, :, :length]
    return constrain(x, CACHE)


def cache_length(needed: int, context: int) -> int:
    """Returns the next cache length: 128, 192, 256, 384, 512, 768, 1,024 and so on."""
    size = 128
    while size < needed:
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return min(size, round_up(context, CHUNK))


def round_up(value: int, step: int) -> int:
    """Returns the smallest multiple of `step` that is at least `value`."""
    return -(-value // step) * step
