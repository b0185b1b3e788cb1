"""Attention within packed rows: one reference, one fast implementation for each backend.

Token i of a row sees token j of the same row if j <= i and both belong to the same segment. An
implementation refuses what it does not support; none falls back silently.

Shapes: b batch, s queries, t keys, n heads, k key/value heads, h head.
"""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

IMPLEMENTATIONS = ("reference", "splash", "cudnn")
Attend = Callable[[Array, Array, Array], Array]


def default_implementation(platform: str) -> str:
    """Returns the fast implementation of a platform: "tpu", "gpu" (or "cuda") or "cpu"."""
    return {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}.get(platform, "reference")


def check_attention(
    implementation: str, platform: str, sequence: int, head_dim: int, dtype: Any
) -> None:
    """Checks, before anything is compiled, that an implementation supports these inputs.

    Args:
      implementation: one of `IMPLEMENTATIONS`.
      platform: "tpu", "gpu" (or "cuda") or "cpu".
      sequence: tokens in a row.
      head_dim: of queries, keys and values.
      dtype: of queries, keys and values.

    Raises:
      ValueError: it does not; the message says what does.
    """
    if implementation not in ("reference", default_implementation(platform)):
        raise ValueError(
            f"`attention={implementation}` does not run on {platform}; use `attention=reference`."
        )
    _check_kernel(implementation, sequence, head_dim, jnp.dtype(dtype))


def packed_attention(implementation: str, segments: Int[Array, "b s"]) -> Attend:
    """Returns a function (q, k, v) -> attended for rows of these segments.

    Args:
      implementation: one of `IMPLEMENTATIONS`.
      segments: which example of its row a token belongs to.

    Raises:
      ValueError: there is no such implementation, or (from the function) it does not support
        the shapes or the dtype; the message says what does.
    """
    if implementation == "reference":
        s = segments.shape[1]
        same = segments[:, :, None] == segments[:, None, :]
        return functools.partial(attend_causally, mask=same & jnp.tri(s, dtype=bool))
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"attention {implementation!r} is not one of {IMPLEMENTATIONS}.")
    kernel = _splash if implementation == "splash" else _cudnn

    def attend(q: Array, k: Array, v: Array) -> Array:
        if jax.sharding.get_abstract_mesh().empty:
            return kernel(q, k, v, segments)
        # A kernel is opaque to the partitioner: each device runs it on its rows and heads.
        rows, heads = ("data", "fsdp"), P(("data", "fsdp"), None, "tensor", None)
        return jax.shard_map(
            kernel, in_specs=(heads, heads, heads, P(rows)), out_specs=heads, check_vma=False
        )(q, k, v, segments)

    return attend


def attend(
    q: Float[Array, "b s n h"],
    k: Float[Array, "b t k h"],
    v: Float[Array, "b t k h"],
    mask: Bool[Array, "b s t"],
) -> Float[Array, "b s n h"]:
    """Grouped-query attention with fp32 scores; every query must see at least one key."""
    b, s, n, h = q.shape
    q = (q * h**-0.5).reshape(b, s, k.shape[2], n // k.shape[2], h)
    scores = jnp.einsum("bskgh,btkh->bkgst", q, k, preferred_element_type=jnp.float32)
    scores = scores + jnp.where(mask, 0.0, -1e30)[:, None, None]
    peak = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - peak)
    # Dividing the sum of h values, not the t weights, is the same and cheaper.
    total = jnp.einsum("bkgst->bskg", weights)[..., None]
    out = jnp.einsum("bkgst,btkh->bskgh", weights.astype(v.dtype), v) / total
    return out.astype(v.dtype).reshape(b, s, n, h)


def attend_causally(
    q: Float[Array, "b s n h"],
    k: Float[Array, "b s k h"],
    v: Float[Array, "b s k h"],
    mask: Bool[Array, "b s s"],
    chunk: int = 128,
) -> Float[Array, "b s n h"]:
    """`attend` for a mask that hides the future, `chunk` queries at a time, without its keys."""
    ends = range(chunk, q.shape[1] + chunk, chunk)
    rows = (slice(end - chunk, end) for end in ends)
    parts = [attend(q[:, r], k[:, : r.stop], v[:, : r.stop], mask[:, r, : r.stop]) for r in rows]
    return jnp.concatenate(parts, axis=1)


def attend_to_cache(
    q: Float[Array, "b s n h"],
    k: Float[Array, "b k t h"],
    v: Float[Array, "b k t h"],
    mask: Bool[Array, "b s t"],
) -> Float[Array, "b s n h"]:
    """`attend` with the cache's layout, which makes both products plain batched ones."""
    b, s, n, h = q.shape
    q = (q * h**-0.5).reshape(b, s, k.shape[1], -1, h).transpose(0, 2, 3, 1, 4)
    group = q.shape[2]
    q = q.reshape(b, k.shape[1], group * s, h)
    scores = jnp.einsum("bkqh,bkth->bkqt", q, k, preferred_element_type=jnp.float32)
    hidden = jnp.tile(jnp.where(mask, 0.0, -1e30), (1, group, 1))[:, None]
    weights = jax.nn.softmax(scores + hidden, axis=-1)
    out = jnp.einsum("bkqt,bkth->bkqh", weights.astype(v.dtype), v)
    return out.reshape(b, -1, group, s, h).transpose(0, 3, 1, 2, 4).reshape(b, s, n, h)


def _splash(q: Array, k: Array, v: Array, segments: Array, interpret: bool = False) -> Array:
    """JAX's Pallas kernel for TPUs."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash  # Slow to import.

    b, s, n, h = q.shape
    _check_kernel("splash", s, h, q.dtype)
    block = next(size for size in (512, 256, 128) if s % size == 0)
    products = ("q", "kv", "q_dkv", "kv_dkv", "q_dq", "kv_dq")
    sizes: dict[str, Any] = {f"block_{product}": block for product in products}
    kernel = splash.make_splash_mqa_single_device(
        splash.MultiHeadMask([splash.CausalMask((s, s))] * (n // k.shape[2])),
        block_sizes=splash.BlockSizes(**sizes),
        interpret=interpret,
    )
    # One key/value head serves a group of query heads: [b, k, g, s, h] against [b, k, s, h].
    q = (q * h**-0.5).reshape(b, s, k.shape[2], -1, h).transpose(0, 2, 3, 1, 4)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    row = jax.vmap(kernel, in_axes=(0, 0, 0, None))
    out: Any = jax.vmap(row)(q, k, v, splash.SegmentIds(segments, segments))
    return out.transpose(0, 3, 1, 2, 4).reshape(b, s, n, h)


def _cudnn(q: Array, k: Array, v: Array, segments: Array) -> Array:
    """cuDNN's flash attention. It knows no segments, so they travel as a dense mask."""
    _check_kernel("cudnn", q.shape[1], q.shape[3], q.dtype)
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return jax.nn.dot_product_attention(q, k, v, mask=same, is_causal=True, implementation="cudnn")


def _check_kernel(implementation: str, sequence: int, head_dim: int, dtype: np.dtype) -> None:
    if implementation == "splash" and sequence % 128:
        raise ValueError(
            f"splash attention needs rows of a multiple of 128 tokens, not {sequence}; "
            "change `sequence` or use `attention=reference`."
        )
    if implementation == "cudnn":
        if dtype not in (jnp.bfloat16, np.float16):
            raise ValueError(
                f"cuDNN attention computes in bfloat16 or float16, not {dtype}; "
                "use `compute_dtype=bfloat16` or `attention=reference`."
            )
        if sequence % 2 or head_dim % 8 or head_dim > 128:
            raise ValueError(
                "cuDNN attention needs an even `sequence` and heads of 8 to 128 (a multiple of "
                f"8); here they are {sequence} and {head_dim}. Use `attention=reference`."
            )
