"""Drawing tokens: a function of one row's logits, seed and position, whatever else is drawn.

Built from sums and comparisons along the vocabulary. On a CPU `argmax` and `cumsum` over 64 rows of
49,152 logits take 110 ms each, as long as the model's whole step; these take 5.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_GROUP = 256  # Tokens whose mass is added up before any one of them is looked at.


def draw_tokens(
    logits: Float[Array, "b v"],
    seed: Int[Array, " b"],
    position: Int[Array, " b"],
    temperature: Float[Array, " b"],
) -> Int[Array, " b"]:
    """Draws one token a row; temperature 0 takes the likeliest, the first of equals."""
    return _draw(_mass(logits, temperature), logits, seed, position, temperature)


def draw_filtered_tokens(
    logits: Float[Array, "b v"],
    seed: Int[Array, " b"],
    position: Int[Array, " b"],
    temperature: Float[Array, " b"],
    top_k: Int[Array, " b"],
    top_p: Float[Array, " b"],
) -> Int[Array, " b"]:
    """`draw_tokens` from the `top_k` likeliest (0: all), and of these from the likeliest that have
    `top_p` of their mass together, equals of the last one included."""
    mass = _mass(logits, temperature)
    wanted = jnp.where(top_k > 0, top_k, mass.shape[1])
    mass = _keep(mass, lambda kept: jnp.sum(kept, axis=1) >= wanted)
    share = top_p * mass.sum(axis=1)
    kept = _keep(mass, lambda kept: jnp.where(kept, mass, 0.0).sum(axis=1) >= share)
    mass = jnp.where((top_p < 1)[:, None], kept, mass)  # A rounded sum is reached before the end.
    return _draw(mass, logits, seed, position, temperature)


def log_probabilities(logits: Float[Array, "b v"], tokens: Int[Array, " b"]) -> Float[Array, " b"]:
    """How likely the tokens are under the model itself, at temperature 1 and with all tokens."""
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=1)


def _mass(logits: Array, temperature: Array) -> Array:
    scaled = logits / jnp.maximum(temperature, 1e-6)[:, None]
    return jnp.exp(scaled - scaled.max(axis=1, keepdims=True))


def _draw(mass: Array, logits: Array, seed: Array, position: Array, temperature: Array) -> Array:
    """Inverts one uniform number a row through the sums of groups, then within one group."""
    uniform = jax.vmap(
        lambda seed, position: jax.random.uniform(
            jax.random.fold_in(jax.random.key(seed), position)
        )
    )(seed, position)
    b, v = mass.shape
    groups = jnp.pad(mass, ((0, 0), (0, -v % _GROUP))).reshape(b, -1, _GROUP)
    sums = groups.sum(axis=2)
    upto = jnp.cumsum(sums, axis=1)
    point = uniform * upto[:, -1]
    group = _first_above(sums, upto, point)
    rows = jnp.arange(b)
    before = jnp.where(group > 0, upto[rows, group - 1], 0.0)
    chosen = groups[rows, group]
    within = jnp.cumsum(chosen, axis=1)
    drawn = group * _GROUP + _first_above(chosen, within, point - before)
    likeliest = jnp.where(logits == logits.max(axis=1, keepdims=True), jnp.arange(v), v).min(axis=1)
    return jnp.where(temperature == 0, likeliest, drawn)


def _first_above(
    mass: Float[Array, "b s"], upto: Float[Array, "b s"], point: Float[Array, " b"]
) -> Int[Array, " b"]:
    """The first that has mass and with which the sum so far exceeds the point.

    Sums are rounded, each in its own way: they may grow where nothing was added, and end before the
    point. So what has no mass is passed over, and the last that has some is taken if none is left.
    """
    number = jnp.arange(mass.shape[1])
    above = (mass > 0) & (upto > point[:, None])
    last = jnp.where(mass > 0, number, -1).max(axis=1)
    return jnp.minimum(jnp.where(above, number, mass.shape[1]).min(axis=1), last)


def _keep(
    mass: Float[Array, "b v"], enough: Callable[[Bool[Array, "b v"]], Bool[Array, " b"]]
) -> Float[Array, "b v"]:
    """Sets to 0 what is below the highest bar over which there is still enough.

    The bar is found bit by bit: numbers from 0 to 1 are ordered as their bits are.
    """
    bits = jax.lax.bitcast_convert_type(mass, jnp.int32)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high + 1) // 2
        fine = enough(bits >= middle[:, None])
        return jnp.where(fine, middle, low), jnp.where(fine, high, middle - 1)

    one = jax.lax.bitcast_convert_type(jnp.float32(1), jnp.int32)
    low = jnp.zeros(mass.shape[0], jnp.int32)
    bar, _ = jax.lax.fori_loop(0, 31, halve, (low, jnp.full_like(low, one)))
    return jnp.where(bits >= bar[:, None], mass, 0.0)
