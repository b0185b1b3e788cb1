"""Sampling of tokens. A row's token depends on its logits, seed and position, not on the batch.

It uses sums and comparisons along the vocabulary only: on a CPU `argmax` and `cumsum` over 64 rows
of 49,152 logits take 110 ms each, as long as the model's whole step; these take 5.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

_GROUP = 256  # Tokens whose probabilities are summed first, to find the group with the token.


def draw_tokens(
    logits: Float[Array, "b v"],
    seed: Integer[Array, " b"],
    position: Integer[Array, " b"],
    temperature: Float[Array, " b"],
    top_k: Int[Array, " b"] | None = None,
    top_p: Float[Array, " b"] | None = None,
) -> Int[Array, " b"]:
    """Samples one token a row; temperature 0 takes the most likely, the first if tied.

    Args:
      logits: of the next token.
      seed: of each row.
      position: of the token in its text.
      temperature: of each row.
      top_k: draw from so many of the most likely tokens; 0 or None: from all.
      top_p: of these from the most likely with this total share; None: from all. Tokens tied with
        the last one are included, in both.
    """
    scaled = logits / jnp.maximum(temperature, 1e-6)[:, None]
    mass = jnp.exp(scaled - scaled.max(axis=1, keepdims=True))
    if top_k is not None:
        wanted = jnp.where(top_k > 0, top_k, mass.shape[1])
        mass = _keep(mass, lambda kept: jnp.sum(kept, axis=1) >= wanted)
    if top_p is not None:
        share = top_p * mass.sum(axis=1)
        kept = _keep(mass, lambda kept: jnp.where(kept, mass, 0.0).sum(axis=1) >= share)
        mass = jnp.where((top_p < 1)[:, None], kept, mass)  # At 1 rounded sums may reach it early.
    # Inverse transform sampling: finds a uniform number's group by sums, then its token.
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


def log_probabilities(logits: Float[Array, "b v"], tokens: Int[Array, " b"]) -> Float[Array, " b"]:
    """Log-probabilities of tokens under the model: at temperature 1, without top-k and top-p."""
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=1)


def _first_above(
    mass: Float[Array, "b s"], upto: Float[Array, "b s"], point: Float[Array, " b"]
) -> Int[Array, " b"]:
    """Returns the first index with mass whose cumulative sum exceeds the point.

    Cumulative sums are rounded: they may grow where the mass is zero, or end below the point. So
    indices without mass are skipped, and the last one with mass is taken if no sum exceeds it.
    """
    number = jnp.arange(mass.shape[1])
    above = (mass > 0) & (upto > point[:, None])
    last = jnp.where(mass > 0, number, -1).max(axis=1)
    return jnp.minimum(jnp.where(above, number, mass.shape[1]).min(axis=1), last)


def _keep(
    mass: Float[Array, "b v"], enough: Callable[[Bool[Array, "b v"]], Bool[Array, " b"]]
) -> Float[Array, "b v"]:
    """Sets mass below a threshold to 0: the highest threshold that keeps `enough`.

    It is found by bisection over bit patterns, whose order is that of the numbers from 0 to 1.
    """
    bits = jax.lax.bitcast_convert_type(mass, jnp.int32)

    def halve(_: Int[Array, ""], bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high + 1) // 2
        fine = enough(bits >= middle[:, None])
        return jnp.where(fine, middle, low), jnp.where(fine, high, middle - 1)

    one = jax.lax.bitcast_convert_type(jnp.float32(1), jnp.int32)
    low = jnp.zeros(mass.shape[0], jnp.int32)
    bar, _ = jax.lax.fori_loop(0, 31, halve, (low, jnp.full_like(low, one)))
    return jnp.where(bits >= bar[:, None], mass, 0.0)
