"""What chips can do: one table for utilisation while training and for plans before it."""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcritique.models.config import ModelConfig

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator, by its vendor's figures."""

    flops: float  # Peak of dense bf16 products, a second.
    hbm_bytes: int  # What a program may use.
    hbm_bandwidth: float  # Bytes a second.
    kinds: tuple[str, ...]  # What JAX calls it (`device_kind`).


# A TPU's compiler keeps a little memory for itself (15.75 of 16 GiB are left on v5e). On GPUs the
# CUDA context and NCCL's buffers take some, so 92% of what the driver reports is counted on.
CHIPS = {
    "v4": Chip(275e12, int(31.75 * _GIB), 1228e9, ("TPU v4",)),
    "v5e": Chip(197e12, int(15.75 * _GIB), 819e9, ("TPU v5 lite", "TPU v5e")),
    "v5p": Chip(459e12, int(95.74 * _GIB), 2765e9, ("TPU v5", "TPU v5p")),
    "v6e": Chip(918e12, int(31.25 * _GIB), 1640e9, ("TPU v6 lite", "TPU v6e")),
    "a100-40gb": Chip(
        312e12,
        int(0.92 * 42_298_834_944),
        1555e9,
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
    ),
    "a100-80gb": Chip(
        312e12,
        int(0.92 * 84_974_239_744),
        2039e9,
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
    ),
    "h100": Chip(989e12, int(0.92 * 84_978_434_048), 3352e9, ("NVIDIA H100 80GB HBM3",)),
}


def peak_flops(device: Any, dtype: str) -> float:
    """Returns the peak of a device, by the table or, for one not in it, as measured just now."""
    for chip in CHIPS.values():
        if device.device_kind in chip.kinds:
            return chip.flops
    return _measured_flops(device, dtype)


@functools.cache
def _measured_flops(device: Any, dtype: str) -> float:
    """The best of five products of square matrices, large enough that launch overhead is
    negligible."""
    size = 1024 if device.platform == "cpu" else 8192
    alone = Mesh(np.array([device]), ("device",))  # Whatever mesh is in use around this.
    with jax.set_mesh(alone):
        x = jnp.ones((size, size), dtype)
        product = jax.jit(jnp.matmul)
        product(x, x).block_until_ready()
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            product(x, x).block_until_ready()
            seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def bytes_needed(compiled: Any) -> int:
    """Returns the bytes of a device that a compiled program takes to run.

    XLA's own sum, from its CompiledMemoryStats: arguments, outputs that do not alias them, code,
    and one block for temporaries, which fragmentation can make larger than XLA's reported peak.
    """
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )


def training_flops(config: ModelConfig, tokens: float, sequence: int) -> float:
    """Returns the operations training on so many tokens takes, without rematerialisation.

    6 for every parameter in a product (forward 2, backward 4), and causal attention over rows of
    `sequence` tokens, half of which a token sees on average.
    """
    looked_up = 0 if config.tie_embeddings else config.vocab_size * config.dim
    attention = config.num_layers * config.num_heads * config.head_dim * sequence
    return 6.0 * tokens * (config.num_parameters - looked_up + attention)
