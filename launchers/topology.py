"""Hardware that is not there, as devices a program can be compiled for."""

import dataclasses
import importlib.util
import math
import re
from typing import Any

from jaxcritique.training.hardware import CHIPS, Chip

_GPUS_PER_HOST = 8
# What the GPU compiler asks a device for when there is one (XLA's GpuTargetConfigProto).
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_core}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  shared_memory_per_block_optin: {shared_block}
  cuda_compute_capability {{ major: {major} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 }}
device_description_str: "{name}"
"""
_AMPERE = {
    "shared_core": 167_936,
    "shared_block": 166_912,
    "cores": 108,
    "fpus": 64,
    "l2": 41_943_040,
    "clock": 1.41,
    "major": 8,
}
_GPUS = {
    "a100-40gb": {
        **_AMPERE,
        "bandwidth": 1_555_000_000_000,
        "memory": 42_298_834_944,
        "name": "NVIDIA A100-SXM4-40GB",
    },
    "a100-80gb": {
        **_AMPERE,
        "bandwidth": 2_039_000_000_000,
        "memory": 84_974_239_744,
        "name": "NVIDIA A100-SXM4-80GB",
    },
    "h100": {
        "shared_core": 233_472,
        "shared_block": 232_448,
        "cores": 132,
        "fpus": 128,
        "l2": 52_428_800,
        "clock": 1.98,
        "major": 9,
        "bandwidth": 3_352_320_000_000,
        "memory": 84_978_434_048,
        "name": "NVIDIA H100 80GB HBM3",
    },
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A number of chips of one kind."""

    name: str
    platform: str  # "tpu" or "cuda".
    chip: Chip
    count: int

    @classmethod
    def parse(cls, name: str) -> "Topology":
        """Reads a name such as `v5e:8x8` or `h100:16`.

        Raises:
          ValueError: it is not such a name, or the chip is unknown.
        """
        chip, _, size = name.partition(":")
        gpu = chip in _GPUS
        if chip not in CHIPS or not re.fullmatch(r"\d+" if gpu else r"\d+(x\d+){1,2}", size):
            tpus = ", ".join(chip for chip in CHIPS if chip not in _GPUS)
            raise ValueError(
                f"`topology={name}`: not CHIP:SIZE with a TPU and its dimensions ({tpus}; v5e:8x8) "
                f"or a GPU and a number ({', '.join(_GPUS)}; h100:16)."
            )
        count = math.prod(map(int, size.split("x")))
        if count < 1 or (gpu and count > _GPUS_PER_HOST and count % _GPUS_PER_HOST):
            raise ValueError(
                f"`topology={name}`: {count} devices; take up to {_GPUS_PER_HOST} GPUs of one host "
                "or whole hosts of them."
            )
        return cls(name, "cuda" if gpu else "tpu", CHIPS[chip], count)

    def devices(self) -> list[Any]:
        """Returns devices that can be compiled for and nothing else.

        Raises:
          ImportError: what compiles for them is not installed; the extra is named.
          ValueError: the compiler knows no such topology.
        """
        module = {"tpu": "libtpu", "cuda": "jax_plugins.xla_cuda12"}[self.platform]
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:  # Of the package it would be in.
            found = False
        if not found:
            extra = {"tpu": "plan-tpu", "cuda": "plan-gpu"}[self.platform]
            raise ImportError(
                f"`topology={self.name}` needs {module} to compile for it: "
                f"pip install -e '.[{extra}]'"
            )
        from jax.experimental import topologies

        try:
            if self.platform == "tpu":
                return topologies.get_topology_desc(self.name, platform="tpu").devices
            hosts = -(-self.count // _GPUS_PER_HOST)
            return topologies.get_topology_desc(
                platform="cuda",
                topology=f"1x{hosts}x{self.count // hosts}",
                target_config=_GPU.format(**_GPUS[self.name.partition(":")[0]]),
            ).devices
        except RuntimeError as error:
            raise ValueError(f"`topology={self.name}`: {str(error).splitlines()[0]}") from error
