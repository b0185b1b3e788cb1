"""What the JAX engine runs on the devices, and of what shapes.

The keys and values of a slot's tokens stand in its row of the cache. All shapes are fixed but the
cache's length, which takes few values; each is compiled once.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.sharding import CACHE, ROWS, abstract_arrays, constrain
from jaxcritique.models.transformer import KVCache, Params, Structure, abstract_unstacked, join
from jaxcritique.rollout.sampling import draw_filtered_tokens, draw_tokens, log_probabilities

BLOCK = 8  # Decoding steps between two looks at the results.
CHUNK = 64  # Tokens of a prompt that are read at a time.
# XLA sums the products of fewer rows in another order on a CPU, and rounds otherwise still where
# there are many rows or the cache is longer. A draw at the very edge of a token's mass falls to its
# neighbour then.
FEWEST_ROWS = 8
NONE, BROKEN = -1, -2  # Instead of a token: there was none to draw, there was nothing to draw by.

Arrays = Any  # NumPy on the host, JAX in a jitted function.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """What each slot is doing."""

    token: Int[Arrays, " b"]  # The last token, whose keys and values are not in the cache yet.
    position: Int[Arrays, " b"]  # Where it stands.
    end: Int[Arrays, " b"]  # The position no token may be sampled for any more.
    floor: Int[Arrays, " b"]  # The first position after which a stop token may be drawn.
    active: Bool[Arrays, " b"]
    seed: Int[Arrays, " b"]
    temperature: Float[Arrays, " b"]
    top_k: Int[Arrays, " b"]
    top_p: Float[Arrays, " b"]
    stops: Int[Arrays, "b s"]  # Its stop tokens, filled up with numbers past the vocabulary.


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What must be worked out in a step beside tokens; static."""

    filters: bool  # top_k and top_p
    logprobs: bool


def free_slots(count: int, stops: int, vocab_size: int) -> Slots:
    """Returns slots that do nothing, each with room for so many stop tokens."""
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


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def decode_block(
    structure: Structure, wanted: Wanted, params: Params, slots: Slots, cache: KVCache
) -> tuple[Slots, KVCache, Int[Array, "block b"], Float[Array, "block b"] | None]:
    """Runs BLOCK steps; returns tokens and their likelihood.

    A token is NONE where a slot was not active, and BROKEN, its last, where a logit was no number.
    """
    model = join(structure, params)
    # Where there are few slots, some more that the cache has no rows for and that do nothing.
    count = len(slots.token)
    filled = count * -(-FEWEST_ROWS // count)
    rows = jnp.arange(filled) if filled > count else None
    fill = lambda x: jnp.pad(x, [(0, filled - count)] + [(0, 0)] * (x.ndim - 1))  # noqa: E731
    slots = jax.tree.map(lambda x: constrain(fill(x), ROWS), slots)

    def step(carry: tuple[Slots, KVCache], _: None) -> tuple[tuple[Slots, KVCache], Any]:
        slots, cache = carry
        hidden, cache = model.extend(slots.token[:, None], slots.position[:, None], cache, rows)
        logits = constrain(model.logits(hidden[:, 0]), ROWS)
        # Where it is too early for a stop token, it gets no mass.
        most = jnp.where(slots.position < slots.floor, -1e30, jnp.inf)[:, None]
        allowed = logits.at[jnp.arange(filled)[:, None], slots.stops].min(most, mode="drop")
        rest = slots.seed, slots.position, slots.temperature
        if wanted.filters:
            drawn = draw_filtered_tokens(allowed, *rest, slots.top_k, slots.top_p)
        else:
            drawn = draw_tokens(allowed, *rest)
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
        drawn = jnp.where(slots.active, jnp.where(sound, drawn, BROKEN), NONE)
        return (after, cache), (drawn, likely)

    (slots, cache), (drawn, likely) = jax.lax.scan(step, (slots, cache), length=BLOCK)
    slots = jax.tree.map(lambda x: x[:count], slots)
    return slots, cache, drawn[:, :count], None if likely is None else likely[:, :count]


class Decoding(NamedTuple):
    """The engine's decoding, traced for devices that need not exist."""

    traced: jax.stages.Traced
    params: Params  # Shapes and shardings of what it takes.
    cache: KVCache
    steps: int  # It takes so many at a time.


def trace_decoding(
    config: ModelConfig, mesh: Mesh, slots: int, positions: int, dtype: Any
) -> Decoding:
    """Traces what the engine runs over and over, to be compiled and measured without running.

    Args:
      config: the model's.
      mesh: the devices.
      slots: samples written at a time, over all devices; a multiple of data x fsdp.
      positions: of which each sample's keys and values are kept, or the next larger size there is.
      dtype: of weights, keys and values.

    Raises:
      ValueError: the mesh does not divide the model.
    """
    structure, params = abstract_unstacked(config)
    cast = lambda x: jax.ShapeDtypeStruct(x.shape, dtype)  # noqa: E731
    params = abstract_arrays(mesh, jax.tree.map(cast, params))
    shape = slots, config.num_kv_heads, cache_length(positions, config.max_positions)
    part: Any = jax.ShapeDtypeStruct(
        (*shape, config.head_dim), dtype, sharding=NamedSharding(mesh, CACHE)
    )
    cache = ((part, part),) * config.num_layers
    with jax.set_mesh(mesh):
        traced = decode_block.trace(
            structure,
            Wanted(filters=False, logprobs=False),
            params,
            free_slots(slots, 1, config.vocab_size),
            cache,
        )
    return Decoding(traced, params, cache, BLOCK)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def read_chunk(
    structure: Structure,
    params: Params,
    cache: KVCache,
    tokens: Int[Array, "rows chunk"],
    start: Int[Array, " rows"],
    slot: Int[Array, " rows"],
) -> KVCache:
    """Reads a chunk of some slots' prompts, from position `start`; a slot past the end: none."""
    positions = start[:, None] + jnp.arange(tokens.shape[1])
    return join(structure, params).extend(tokens, positions, cache, slot)[1]


@functools.partial(jax.jit, donate_argnums=0)
def copy_slots(cache: KVCache, source: Int[Array, " rows"], target: Int[Array, " rows"]) -> KVCache:
    """Copies slots; a target past the end: none."""
    return jax.tree.map(lambda x: constrain(x.at[target].set(x[source], mode="drop"), CACHE), cache)


@functools.partial(jax.jit, donate_argnums=0)
def clear_slots(cache: KVCache, slots: Bool[Array, " b"]) -> KVCache:
    """Empties slots: what is no number reaches their next sequences through any mask."""
    row = slots[:, None, None, None]
    return jax.tree.map(lambda x: constrain(jnp.where(row, 0, x), CACHE), cache)


@functools.partial(jax.jit, static_argnums=1)
def with_length(x: Array, length: int) -> Array:
    """Cuts or lengthens the keys or values of one layer."""
    missing = length - x.shape[2]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing > 0 else x[:, :, :length]
    return constrain(x, CACHE)


def cache_length(needed: int, context: int) -> int:
    """The next length there is: 128, 192, 256, 384, 512, 768, 1,024 and so on."""
    size = 128
    while size < needed:
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return min(size, round_up(context, CHUNK))


def round_up(value: int, step: int) -> int:
    """The first multiple of the step that is no less than the value."""
    return -(-value // step) * step
