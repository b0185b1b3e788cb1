"""The transformer: Llama and Qwen as Flax NNX modules.

`Transformer` has its layers stacked and scans them, for training. `Decoder` has a list of layers
and a KV cache, for sampling. Both are pytrees: they pass through `jax.jit` as arguments, and a
gradient or a moment of the optimizer is a module of the same class.

Shapes: b batch, s queries, t keys, d model, n heads, k key/value heads, g = n/k, h head, v
vocabulary.
"""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

import itertools
from collections.abc import Callable, MutableSequence
from typing import Any, TypeVar

import flax.nnx as nnx
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jaxcritique.models.attention import Attend, attend_to_cache, packed_attention
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.sharding import CACHE, ROWS, constrain, gather, shardings
from jaxcritique.models.weights import Model, Weight, named_weights, path_of, weights

M = TypeVar("M", bound="LanguageModel")
# (the weight's row, the layer) -> its array. The layer is None for a stack of all layers, and for
# what is not in the layers.
MakeWeight = Callable[[Weight, int | None], Any]
# For each layer, the keys and values of the positions seen so far, in rows of the cache.
KVCache = tuple[tuple[Float[Array, "row k t h"], Float[Array, "row k t h"]], ...]

_POLICIES = jax.checkpoint_policies
# What a layer keeps for the backward pass; the rest is recomputed. From most memory to least.
REMAT: dict[str, Callable[..., Any]] = {
    # Everything but weights gathered from other devices: those would be the whole model.
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

    def __init__(self, scale: nnx.Param[Array], eps: float):
        self.scale = scale
        self.eps = eps

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Returns x / rms(x) * scale in the dtype of x."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * self.scale.astype(jnp.float32)).astype(x.dtype)


class Block(nnx.Module):
    """Attention and gated MLP, each with a norm before and a residual around."""

    def __init__(self, config: ModelConfig, weight: Callable[[str], nnx.Param[Array]]):
        """Takes the weights by their names in a layer."""
        self.attention_norm = RMSNorm(weight("attention_norm.scale"), config.norm_eps)
        self.q, self.k, self.v, self.out = map(weight, ("q", "k", "v", "out"))
        if config.qkv_bias:
            self.q_bias, self.k_bias, self.v_bias = map(weight, ("q_bias", "k_bias", "v_bias"))
        if config.qk_norm:
            self.q_norm = RMSNorm(weight("q_norm.scale"), config.norm_eps)
            self.k_norm = RMSNorm(weight("k_norm.scale"), config.norm_eps)
        self.mlp_norm = RMSNorm(weight("mlp_norm.scale"), config.norm_eps)
        self.gate, self.up, self.down = map(weight, ("gate", "up", "down"))

    def queries_keys_values(
        self, x: Float[Array, "b s d"], angles: Float[Array, "b s h2"]
    ) -> tuple[Float[Array, "b s n h"], Float[Array, "b s k h"], Float[Array, "b s k h"]]:
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


class LanguageModel(Model):
    """Embedding, final norm, and the matrix that gives logits; the layers are the subclasses'."""

    def __init__(self, config: ModelConfig, make: MakeWeight):
        """Builds the model of arrays, or of whatever else `make` returns, such as shapes."""
        self.config = nnx.static(config)
        rows = weights(config)

        def weight(path: str, layer: int | None = None) -> nnx.Param[Array]:
            return nnx.Param(make(rows[path], layer))

        self.embedding = weight("embedding")
        self.layers = self._make_layers(
            lambda layer: Block(config, lambda name: weight(f"layers.{name}", layer))
        )
        self.norm = RMSNorm(weight("norm.scale"), config.norm_eps)
        if not config.tie_embeddings:
            self.head = weight("head")

    def _make_layers(self, block: Callable[[int | None], Block]) -> Any:
        raise NotImplementedError

    def logits(self, hidden: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """Returns fp32 logits, for sampling and evaluation; training uses `summed_loss`."""
        head = self._gathered_head()
        return jnp.einsum("...d,vd->...v", hidden, head, preferred_element_type=jnp.float32)

    def _gathered_embedding(self) -> Float[Array, "v d"]:
        return gather(self.embedding[...], weights(self.config)["embedding"].spec)

    def _gathered_head(self) -> Float[Array, "v d"]:
        if self.config.tie_embeddings:
            return self._gathered_embedding()
        return gather(self.head[...], weights(self.config)["head"].spec)

    def _gathered_layer(self, block: Block) -> Block:
        """All-gathers one layer's shards; only one whole layer is then held at a time."""
        rows = weights(self.config)
        return jax.tree_util.tree_map_with_path(
            lambda keys, x: gather(x, rows[f"layers.{path_of(keys)}"].spec), block
        )


class Transformer(LanguageModel):
    """The model with its layers stacked along a first axis, as training scans them."""

    layers: Block

    def _make_layers(self, block: Callable[[int | None], Block]) -> Block:
        return block(None)

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
          tokens: token ids.
          positions: of each token within its example, from 0.
          segments: which example of the row a token belongs to; it attends to no other.
          attention: the implementation, one of `attention.IMPLEMENTATIONS`.
          remat: the policy, one of `REMAT`. "full" keeps only each layer's input: a third more
            time for a tenth of the memory.

        Returns:
          The normalised hidden states.
        """
        angles = rotary_angles(self.config, positions)
        attend: Attend = packed_attention(attention, segments)

        def layer(x: Array, block: Block) -> tuple[Array, None]:
            block = self._gathered_layer(block)
            q, k, v = block.queries_keys_values(x, angles)
            attended = checkpoint_name(attend(q, k, v), "attended")
            return constrain(block.finish(x, attended), ROWS), None

        layer = jax.checkpoint(layer, policy=REMAT[remat])
        embedding = self._gathered_embedding()
        # Looked up in fp32, so that the gradients of a frequent token are added up in it.
        x = constrain(embedding.astype(jnp.float32)[tokens].astype(embedding.dtype), ROWS)
        x, _ = jax.lax.scan(layer, x, self.layers)
        return self.norm(x)

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
        head = self._gathered_head()

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

    @jax.jit
    def unstacked(self) -> "Decoder":
        """Returns the same weights as a `Decoder`, those of its layers in arrays of their own."""
        arrays = {row.path: x for row, x in named_weights(self)}
        return Decoder(
            self.config, lambda row, i: arrays[row.path] if i is None else arrays[row.path][i]
        )


class Decoder(LanguageModel):
    """The model with a list of layers and a KV cache, as sampling unrolls them.

    XLA copies a slice of a stack each time it multiplies by it: all weights, in every step.
    """

    layers: MutableSequence[Block]

    def _make_layers(self, block: Callable[[int | None], Block]) -> MutableSequence[Block]:
        return nnx.List([block(i) for i in range(self.config.num_layers)])

    def extend(
        self,
        tokens: Int[Array, "b s"],
        positions: Int[Array, "b s"],
        cache: KVCache,
        rows: Int[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b s d"], KVCache]:
        """Runs more tokens of sequences whose beginning is cached, and caches them.

        The layers are unrolled: a scan would copy the cache, layer by layer, in each step.

        Args:
          tokens: the next of each sequence.
          positions: of these tokens; all before the first is cached. Keys and values at positions
            past the cache's length are dropped.
          cache: updated in place where the caller donates it.
          rows: the row of the cache of each sequence; keys and values for rows past its end are
            dropped. None: all rows, in order.

        Returns:
          The normalised hidden states, and the cache.
        """
        angles = rotary_angles(self.config, positions)
        mask = jnp.arange(cache[0][0].shape[2]) <= positions[..., None]
        index = (jnp.arange(len(tokens)) if rows is None else rows)[:, None]
        x = constrain(self._gathered_embedding()[tokens], ROWS)
        updated: list[tuple[Array, Array]] = []
        for block, layer in zip(self.layers, cache, strict=True):
            block = self._gathered_layer(block)
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


def abstract(config: ModelConfig, kind: type[M] = Transformer) -> M:
    """Returns a model of fp32 shapes, without making any array."""

    def shape(row: Weight, layer: int | None) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(weight_shape(config, row, layer), jnp.float32)

    return kind(config, shape)


def weight_shape(config: ModelConfig, row: Weight, layer: int | None) -> tuple[int, ...]:
    """Returns the shape of a weight of one layer, or of the stack if `layer` is None."""
    stacked = row.in_layers and layer is None
    return (*[config.num_layers] * stacked, *row.shape(config))


def initialize(
    config: ModelConfig, seed: int, mesh: jax.sharding.Mesh | None = None
) -> Transformer:
    """Returns a model with freshly drawn fp32 parameters, each created where it is sharded to.

    The values depend on the seed alone, not on the mesh.
    """

    def draw() -> Transformer:
        keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(3)]
        layer_keys, in_layers = jax.random.split(keys.pop(1), config.num_layers), itertools.count()
        normal = jax.nn.initializers.normal(0.02)

        def make(row: Weight, layer: int | None) -> Array:
            if row.init != "normal":
                fill = jnp.ones if row.init == "ones" else jnp.zeros
                return fill(weight_shape(config, row, layer))
            if not row.in_layers:
                return normal(keys.pop(0), row.shape(config))
            number = next(in_layers)
            one = lambda key: normal(jax.random.fold_in(key, number), row.shape(config))  # noqa: E731
            return jax.vmap(one)(layer_keys)

        return Transformer(config, make)

    where = None if mesh is None else shardings(mesh, abstract(config))
    return jax.jit(draw, out_shardings=where)()
