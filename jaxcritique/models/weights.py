"""The weights of all model families, one row each: shape, sharding, Hugging Face name and layout.

This table drives initialisation, sharding, checkpoints, loading, checking and saving. A family that
stores a weight differently adds a row for it; one with a weight of its own adds a row, a switch in
`config.FAMILIES`, and the lines in `transformer.Block` that compute with it.
"""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import flax.nnx as nnx
import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxcritique.models.config import ModelConfig

T = TypeVar("T")
_LAYER = "model.layers.{i}."


def axis_sizes(config: ModelConfig) -> dict[str, int]:
    """Returns the size of each axis that the table names.

    v vocabulary, d model, n heads, k key/value heads, h head, m MLP.
    """
    c = config
    return {
        "v": c.vocab_size,
        "d": c.dim,
        "n": c.num_heads,
        "k": c.num_kv_heads,
        "h": c.head_dim,
        "m": c.mlp_dim,
    }


@dataclasses.dataclass(frozen=True)
class Weight:
    """One row of the table.

    Attributes:
      path: where it is in the model. What begins with "layers." exists once for each layer;
        `Transformer` stacks these along a first axis, which `axes` and `spec` do not have.
      axes: see `axis_sizes`.
      spec: the mesh axes over which `axes` are sharded.
      hf_name: the tensor in Hugging Face's files; {i} is the layer. Rows of one config with the
        same name are parts of one tensor, concatenated along its first axis in the table's order.
      hf_axes: the axes as Hugging Face stores them; those in brackets are merged into one.
      init: how it is initialised; "normal" has standard deviation 0.02.
      when: which configs have it. If several rows have one path, the last is used.
    """

    path: str
    axes: str
    spec: P
    hf_name: str
    hf_axes: str
    init: Literal["normal", "ones", "zeros"] = "normal"
    when: Callable[[ModelConfig], bool] = lambda config: True

    @property
    def in_layers(self) -> bool:
        """Whether each layer has one."""
        return self.path.startswith("layers.")

    def shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Returns the shape, in a layer of the model."""
        sizes = axis_sizes(config)
        return tuple(sizes[axis] for axis in self.axes.split())

    def hf_shape(self, config: ModelConfig) -> tuple[int, ...]:
        """Returns the shape that Hugging Face stores."""
        sizes = axis_sizes(config)
        return tuple(math.prod(sizes[axis] for axis in group) for group in self._groups())

    def to_hf(self, array: np.ndarray) -> np.ndarray:
        """Returns the array in Hugging Face's layout."""
        ours, groups = self.axes.split(), self._groups()
        sizes = dict(zip(ours, array.shape, strict=True))
        order = [ours.index(axis) for group in groups for axis in group]
        shape = [math.prod(sizes[axis] for axis in group) for group in groups]
        return np.ascontiguousarray(array.transpose(order).reshape(shape))

    def read(
        self, stored: Any, config: ModelConfig, index: Sequence[slice], offset: int
    ) -> np.ndarray:
        """Reads a part of a stored tensor.

        Args:
          stored: the tensor in Hugging Face's layout; only what is needed of it is read.
          config: the model's.
          index: which part of the array in our layout. Only the first of merged axes can be cut.
          offset: where the tensor's part for this row begins on its first axis.
        """
        sizes, ours, groups = axis_sizes(config), self.axes.split(), self._groups()
        cut = {axis: span.indices(sizes[axis])[:2] for axis, span in zip(ours, index, strict=True)}
        slices: list[slice] = []
        for first, *merged in groups:
            width = math.prod(sizes[axis] for axis in merged)
            slices.append(slice(cut[first][0] * width, cut[first][1] * width))
        slices[0] = slice(slices[0].start + offset, slices[0].stop + offset)
        order = [axis for group in groups for axis in group]
        value = stored[tuple(slices)].reshape([cut[a][1] - cut[a][0] for a in order])
        return np.ascontiguousarray(value.transpose([order.index(axis) for axis in ours]))

    def _groups(self) -> list[list[str]]:
        groups = re.findall(r"\(([^)]*)\)|(\w+)", self.hf_axes)
        return [(merged or single).split() for merged, single in groups]


_has_bias, _has_qk_norm = operator.attrgetter("qkv_bias"), operator.attrgetter("qk_norm")
_ATTENTION, _MLP = _LAYER + "self_attn.", _LAYER + "mlp."
WEIGHTS = [
    Weight("embedding", "v d", P("tensor", "fsdp"), "model.embed_tokens.weight", "v d"),
    Weight("layers.attention_norm.scale", "d", P(None), _LAYER + "input_layernorm.weight", "d",
           init="ones"),
    Weight("layers.q", "d n h", P("fsdp", "tensor", None), _ATTENTION + "q_proj.weight", "(n h) d"),
    Weight("layers.k", "d k h", P("fsdp", "tensor", None), _ATTENTION + "k_proj.weight", "(k h) d"),
    Weight("layers.v", "d k h", P("fsdp", "tensor", None), _ATTENTION + "v_proj.weight", "(k h) d"),
    Weight("layers.out", "n h d", P("tensor", None, "fsdp"), _ATTENTION + "o_proj.weight",
           "d (n h)"),
    Weight("layers.q_bias", "n h", P("tensor", None), _ATTENTION + "q_proj.bias", "(n h)",
           init="zeros", when=_has_bias),
    Weight("layers.k_bias", "k h", P("tensor", None), _ATTENTION + "k_proj.bias", "(k h)",
           init="zeros", when=_has_bias),
    Weight("layers.v_bias", "k h", P("tensor", None), _ATTENTION + "v_proj.bias", "(k h)",
           init="zeros", when=_has_bias),
    Weight("layers.q_norm.scale", "h", P(None), _ATTENTION + "q_norm.weight", "h",
           init="ones", when=_has_qk_norm),
    Weight("layers.k_norm.scale", "h", P(None), _ATTENTION + "k_norm.weight", "h",
           init="ones", when=_has_qk_norm),
    Weight("layers.mlp_norm.scale", "d", P(None), _LAYER + "post_attention_layernorm.weight", "d",
           init="ones"),
    Weight("layers.gate", "d m", P("fsdp", "tensor"), _MLP + "gate_proj.weight", "m d"),
    Weight("layers.up", "d m", P("fsdp", "tensor"), _MLP + "up_proj.weight", "m d"),
    Weight("layers.down", "m d", P("tensor", "fsdp"), _MLP + "down_proj.weight", "d m"),
    Weight("norm.scale", "d", P(None), "model.norm.weight", "d", init="ones"),
    Weight("head", "v d", P("tensor", "fsdp"), "lm_head.weight", "v d",
           when=lambda config: not config.tie_embeddings),
]  # fmt: skip


def weights(config: ModelConfig) -> dict[str, Weight]:
    """Returns the rows of a model by path."""
    return {row.path: row for row in WEIGHTS if row.when(config)}


class Model(nnx.Module):
    """A module whose parameters are those that the table has for `config`."""

    config: ModelConfig


def path_of(keys: Sequence[Any]) -> str:
    """Returns the path of a leaf as the table writes it; a layer's number is left out."""
    names = (getattr(key, "name", getattr(key, "key", None)) for key in keys)
    return ".".join(name for name in names if isinstance(name, str) and name != "value")


def named_weights(model: Model) -> Iterator[tuple[Weight, Any]]:
    """Yields each weight of a model with its row."""
    rows = weights(model.config)
    for keys, leaf in jax.tree_util.tree_leaves_with_path(model):
        yield rows[path_of(keys)], leaf


def map_weights(function: Callable[[Weight | None, Any], Any], tree: T) -> T:
    """Maps over the leaves of a tree with models in it: parameters, gradients, a training state.

    Args:
      function: (row, leaf) -> new leaf. Scalars outside of models have no row.
      tree: to map over.

    Raises:
      KeyError: an array is not in the table; without a sharding each device would hold a copy.
    """

    def visit(keys: Sequence[Any], node: Any) -> Any:
        if isinstance(node, Model):
            rows = weights(node.config)
            return jax.tree_util.tree_map_with_path(
                lambda keys, leaf: function(rows[path_of(keys)], leaf), node
            )
        if node.shape:
            raise KeyError(path_of(keys))
        return function(None, node)

    is_model = lambda node: isinstance(node, Model)  # noqa: E731
    return jax.tree_util.tree_map_with_path(visit, tree, is_leaf=is_model)
