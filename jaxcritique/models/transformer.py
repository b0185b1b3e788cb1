"""The transformer: Llama and Qwen as Flax NNX modules, layers stored stacked and scanned.

The modules only define parameters and the computation. `split` takes one apart, once, into its
structure and its arrays; everything after is a pure function of (params, batch).

Shapes: b batch, s queries, t keys, d model, n heads, k key/value heads, g = n/k, h head.
"""

import operator
from typing import Any, NamedTuple

import flax.nnx as nnx
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jaxcritique.models.attention import (
    Attend,
    attend_to_cache,
    packed_attention,
)
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.sharding import CACHE, ROWS, constrain, gather, shardings

Params = Any  # The arrays of a Transformer, as a nested dictionary.
# For each layer, the keys and values of the positions seen so far, each [b, k, t, h].
KVCache = tuple[tuple[Array, Array], ...]

_POLICIES = jax.checkpoint_policies
# What a layer keeps for the backward pass; the rest is worked out again. From much to little.
REMAT = {
    # Everything but weights brought together from other devices: those would be the whole model.
    "none": lambda primitive, *_, **__: primitive.name != "sharding_constraint",
    "dots": _POLICIES.dots_with_no_batch_dims_saveable,
    "attention": _POLICIES.save_only_these_names("attended"),
    "full": _POLICIES.nothing_saveable,
}


def rotary_angles(config: ModelConfig, positions: Int[Array, "b s"]) -> Float[Array, "b s h2"]:
    """Returns position x frequency in fp32 (bf16 would round position 257 to 256)."""
    half = config.head_dim // 2
    frequency = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if (scaling := config.rope_scaling) is not None:
        # Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, between them a ramp.
        turns = scaling.original_max_position_embeddings * frequency / (2 * jnp.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
        frequency = keep * frequency + (1 - keep) * frequency / scaling.factor
    return positions.astype(jnp.float32)[..., None] * frequency


def rotate(x: Float[Array, "b s n h"], angles: Float[Array, "b s h2"]) -> Float[Array, "b s n h"]:
    """Applies rotary position embedding, first half against second half as Hugging Face does."""
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation, computed in fp32."""

    def __init__(self, dim: int, eps: float):
        self.scale = nnx.Param(jnp.ones((dim,)))
        self.eps = eps

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Returns x / rms(x) * scale in the dtype of x."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * self.scale.astype(jnp.float32)).astype(x.dtype)


class Block(nnx.Module):
    """Attention and gated MLP, each with a norm before and a residual around."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        c = config
        init = nnx.initializers.normal(0.02)

        def weight(*shape: int) -> nnx.Param:
            return nnx.Param(init(rngs.params(), shape))

        self.attention_norm = RMSNorm(c.dim, c.norm_eps)
        self.q = weight(c.dim, c.num_heads, c.head_dim)
        self.k = weight(c.dim, c.num_kv_heads, c.head_dim)
        self.v = weight(c.dim, c.num_kv_heads, c.head_dim)
        self.out = weight(c.num_heads, c.head_dim, c.dim)
        if c.qkv_bias:
            self.q_bias = nnx.Param(jnp.zeros((c.num_heads, c.head_dim)))
            self.k_bias = nnx.Param(jnp.zeros((c.num_kv_heads, c.head_dim)))
            self.v_bias = nnx.Param(jnp.zeros((c.num_kv_heads, c.head_dim)))
        if c.qk_norm:
            self.q_norm = RMSNorm(c.head_dim, c.norm_eps)
            self.k_norm = RMSNorm(c.head_dim, c.norm_eps)
        self.mlp_norm = RMSNorm(c.dim, c.norm_eps)
        self.gate = weight(c.dim, c.mlp_dim)
        self.up = weight(c.dim, c.mlp_dim)
        self.down = weight(c.mlp_dim, c.dim)

    def queries_keys_values(
        self, x: Float[Array, "b s d"], angles: Float[Array, "b s h2"]
    ) -> tuple[Array, Array, Array]:
        """Projects the normalised input; queries and keys are rotated to their positions."""
        y = self.attention_norm(x)
        q, k, v = (jnp.einsum("bsd,dnh->bsnh", y, w[...]) for w in (self.q, self.k, self.v))
        if hasattr(self, "q_bias"):
            q, k, v = q + self.q_bias[...], k + self.k_bias[...], v + self.v_bias[...]
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        return rotate(q, angles), rotate(k, angles), v

    def finish(
        self, x: Float[Array, "b s d"], attended: Float[Array, "b s n h"]
    ) -> Float[Array, "b s d"]:
        """Adds the attention's output and the MLP's to the residual stream."""
        x = x + jnp.einsum("bsnh,nhd->bsd", attended, self.out[...])
        y = self.mlp_norm(x)
        return x + (jax.nn.silu(y @ self.gate[...]) * (y @ self.up[...])) @ self.down[...]


class Transformer(nnx.Module):
    """Embedding, a stack of blocks, a norm, and the matrix that gives logits."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = nnx.static(config)
        init = nnx.initializers.normal(0.02)
        self.embedding = nnx.Param(init(rngs.params(), (config.vocab_size, config.dim)))
        stack = nnx.vmap(lambda rngs: Block(config, rngs), in_axes=0, out_axes=0)
        self.layers = stack(rngs.split(config.num_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        if not config.tie_embeddings:
            self.head = nnx.Param(init(rngs.params(), (config.vocab_size, config.dim)))

    def hidden(
        self,
        tokens: Int[Array, "b s"],
        positions: Int[Array, "b s"],
        segments: Int[Array, "b s"],
        *,
        attention: str = "reference",
        remat: str = "none",
    ) -> Float[Array, "b s d"]:
        """Runs the stack over packed rows.

        Args:
          tokens: what to read.
          positions: of each token within its example.
          segments: which example of the row a token belongs to; it sees no other.
          attention: the implementation, one of `attention.IMPLEMENTATIONS`.
          remat: the policy, one of `REMAT`. "full" keeps only each layer's input: a third more
            time for a tenth of the memory.
        """
        angles = rotary_angles(self.config, positions)
        attend: Attend = packed_attention(attention, segments)

        def layer(x: Array, block: Block) -> tuple[Array, None]:
            block = _gather_weights(block)
            q, k, v = block.queries_keys_values(x, angles)
            attended = checkpoint_name(attend(q, k, v), "attended")
            return constrain(block.finish(x, attended), ROWS), None

        layer = jax.checkpoint(layer, policy=REMAT[remat])
        embedding = gather(self.embedding[...], "embedding")
        # Looked up in fp32, so that the gradients of a frequent token are added up in it.
        x = constrain(embedding.astype(jnp.float32)[tokens].astype(embedding.dtype), ROWS)
        x, _ = jax.lax.scan(layer, x, self.layers)
        return self.norm(x)

    def extend(
        self,
        tokens: Int[Array, "b s"],
        positions: Int[Array, "b s"],
        cache: KVCache,
        rows: Int[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b s d"], KVCache]:
        """Runs more tokens of sequences whose beginning is cached, and caches them.

        The layers are unrolled here, the model being one of `unstack`: a scanned cache would be
        copied, layer by layer, each step.

        Args:
          tokens: the next of each sequence.
          positions: where they stand; all before the first is cached. Nothing is kept of what
            stands past the cache's length.
          cache: updated in place where the caller donates it.
          rows: which rows of the cache are the sequences', nothing being kept of those past its
            end; None: all of them, in order.
        """
        angles = rotary_angles(self.config, positions)
        mask = jnp.arange(cache[0][0].shape[2]) <= positions[..., None]
        index = (jnp.arange(len(tokens)) if rows is None else rows)[:, None]
        x = constrain(gather(self.embedding[...], "embedding")[tokens], ROWS)
        updated = []
        layers: Any = self.layers  # A list, once unstacked.
        for block, layer in zip(layers, cache, strict=True):
            block = _gather_weights(block)
            q, k, v = block.queries_keys_values(x, angles)
            keys, values = (
                constrain(old.at[index, :, positions].set(new, mode="drop"), CACHE)
                for old, new in zip(layer, (k, v), strict=True)
            )
            updated.append((keys, values))
            if rows is not None:
                keys, values = (
                    constrain(old.at[rows].get(mode="clip"), CACHE) for old in (keys, values)
                )
            x = constrain(block.finish(x, attend_to_cache(q, keys, values, mask)), ROWS)
        return self.norm(x), tuple(updated)

    def logits(self, hidden: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """Returns fp32 logits, for sampling and evaluation; training uses `summed_loss`."""
        path = "embedding" if self.config.tie_embeddings else "head"
        head = gather(getattr(self, path)[...], path)
        return jnp.einsum("...d,vd->...v", hidden, head, preferred_element_type=jnp.float32)

    def summed_loss(
        self,
        hidden: Float[Array, "b s d"],
        targets: Int[Array, "b s"],
        weights: Float[Array, "b s"],
        chunk: int = 1024,
    ) -> Float[Array, ""]:
        """Returns the sum of weight x -log p(target), without all logits ever existing at once.

        Each device works through `chunk` of its positions at a time, forward and backward, and the
        head's gradient is summed over devices once, at the end.
        """
        path = "embedding" if self.config.tie_embeddings else "head"
        head = gather(getattr(self, path)[...], path)

        def local(head: Array, hidden: Array, targets: Array, weights: Array) -> Array:
            size = min(chunk, targets.size)

            def pieces(x: Array) -> Array:
                x = x.reshape(targets.size, *x.shape[2:])
                padding = [(0, -len(x) % size), *[(0, 0)] * (x.ndim - 1)]
                return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])

            @jax.checkpoint
            def add(total: Array, piece: tuple[Array, Array, Array]) -> tuple[Array, None]:
                x, y, weight = piece
                logits = jnp.einsum("sd,vd->sv", x, head, preferred_element_type=jnp.float32)
                chosen = jnp.take_along_axis(logits, y[:, None], axis=-1)[:, 0]
                loss = jax.nn.logsumexp(logits, axis=-1) - chosen
                return total + jnp.sum(loss * weight), None

            total, _ = jax.lax.scan(
                add, jnp.zeros(()), (pieces(hidden), pieces(targets), pieces(weights))
            )
            return total[None]

        if not jax.sharding.get_abstract_mesh().empty:
            local = jax.shard_map(
                local,
                in_specs=(P(), ROWS, ROWS, ROWS),
                out_specs=ROWS,
                axis_names={"data", "fsdp"},  # The vocabulary's axis is the partitioner's.
                check_vma=False,
            )
        return jnp.sum(local(head, hidden, targets, weights))


def _gather_weights(block: Block) -> Block:
    """Brings one layer's shards together; the scan then holds one whole layer at a time."""

    def whole(keys: Any, x: Array) -> Array:
        names = [key.name for key in keys if getattr(key, "name", "value") != "value"]
        return gather(x, ".".join(["layers", *names]), stacked=True)

    return jax.tree_util.tree_map_with_path(whole, block)


class Structure(NamedTuple):
    """All of a model but its arrays; static and hashable."""

    graph: Any
    tree: Any


def split(model: Transformer) -> tuple[Structure, Params]:
    """Takes a model apart into its structure and its arrays, a plain nested dictionary."""
    graph, state = nnx.split(model)
    return Structure(graph, jax.tree.structure(state)), nnx.to_pure_dict(state)


def join(structure: Structure, params: Params) -> Transformer:
    """Puts a model together again, cheaply enough to do inside a jitted function."""
    state = jax.tree.unflatten(structure.tree, jax.tree.leaves(params))
    return nnx.merge(structure.graph, state)


def unstack(structure: Structure, params: Params) -> tuple[Structure, Params]:
    """Gives each layer arrays of its own, as `extend` needs them.

    XLA copies a slice of a stack each time it multiplies by it: all weights, in every step.
    """
    model: Any = join(structure, params)
    layers = [operator.itemgetter(i) for i in range(model.config.num_layers)]
    apart = jax.jit(lambda stack: [jax.tree.map(layer, stack) for layer in layers])
    model.layers = nnx.List(apart(model.layers))
    return split(model)


def abstract(config: ModelConfig) -> tuple[Structure, Params]:
    """Returns the structure and the shapes of the arrays, without making any array."""
    return split(nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0))))


def abstract_unstacked(config: ModelConfig) -> tuple[Structure, Params]:
    """`abstract` for what `unstack` returns."""
    structure, params = abstract(config)
    structures = []

    def run(params: Params) -> Params:
        unstacked, params = unstack(structure, params)
        structures.append(unstacked)
        return params

    params = jax.eval_shape(run, params)
    return structures[0], params


def initialize(
    config: ModelConfig, seed: int, mesh: jax.sharding.Mesh | None = None
) -> tuple[Structure, Params]:
    """Returns the structure and freshly drawn fp32 parameters, each made where it is to live.

    The values depend on the seed alone, not on the mesh.
    """
    structure, shapes = abstract(config)
    where = None if mesh is None else shardings(mesh, shapes)
    draw = jax.jit(lambda: split(Transformer(config, nnx.Rngs(seed)))[1], out_shardings=where)
    return structure, draw()
