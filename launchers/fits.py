"""Whether a step fits hardware that is not there: what it takes as XLA compiles it.

A job is one step of one model on one topology and mesh. Set the environment as `launchers.plan`
does before JAX is imported.
"""

import dataclasses
import math
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from jaxcritique.config import REQUIRED, Config, setting
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.presets import PRESETS
from jaxcritique.models.sharding import make_mesh, shardings
from jaxcritique.models.transformer import REMAT, abstract
from jaxcritique.rollout.decoding import BLOCK, trace_decoding
from jaxcritique.training.data import Batch
from jaxcritique.training.hardware import bytes_needed
from jaxcritique.training.step import (
    Execution,
    OptimizerConfig,
    abstract_batch,
    abstract_state,
    check_execution,
    compile_step,
    init_state,
    train_step,
)
from launchers.topology import Topology


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig(Config):
    """What to compile, and for which hardware."""

    model: tuple[str, ...] = setting(
        REQUIRED, f"Presets: {', '.join(PRESETS)}; or Hugging Face folders."
    )
    topology: tuple[str, ...] = setting(
        REQUIRED, "Chips: v5e:8x8, v5p:2x2x2, v6e:4x4, a100-80gb:8, h100:16, ..."
    )
    step: Literal["train", "decode"] = setting(
        "train",
        "The trainer's step on `batch` rows of `sequence` tokens, or the JAX engine's, which "
        "decodes a token for each of `batch` samples of up to `sequence`.",
    )
    sequence: int = setting(2048, "Tokens in a row or sample.", low=1)
    batch: int = setting(
        0, "Rows computed at a time, over all devices; 0: one for each of data x fsdp.", low=0
    )
    mesh: str = setting(
        "", "Such as fsdp=64 or data=2,fsdp=8,tensor=4; empty: fsdp over all devices."
    )
    remat: str = setting(
        "full",
        "What layers keep for the backward pass; the rest is recomputed.",
        choices=tuple(REMAT),
    )
    search: bool = setting(
        False, "Find the largest batch that fits, for `mesh` or each split of fsdp x tensor."
    )

    def __post_init__(self) -> None:
        """Checks what no single field's bounds say."""
        super().__post_init__()
        if self.search and self.batch:
            raise ValueError("`search` finds the batch; leave `batch` out.")

    def jobs(self) -> "list[Job]":
        """Returns the jobs, checked within seconds.

        Raises:
          ValueError: a model, topology or mesh cannot be used.
          ImportError: what compiles for a topology is not installed; the extra is named.
        """
        models = {name: _model_config(name) for name in self.model}
        topologies = [Topology.parse(name) for name in self.topology]
        devices = {topology.name: topology.devices() for topology in topologies}
        jobs = [
            Job(self, name, model, topology, devices[topology.name], mesh)
            for name, model in models.items()
            for topology in topologies
            for mesh in _meshes(self, model, topology)
        ]
        for job in jobs:
            job.check()
        return jobs


@dataclasses.dataclass(frozen=True)
class Fit:
    """What compiling a step for some hardware showed; bytes are of one device."""

    model: str
    topology: str
    devices: int
    mesh: str
    batch: int
    sequence: int
    argument_bytes: int
    temp_bytes: int
    peak_bytes: int  # As XLA reports it: in use at a time. Gaps between arrays are not counted.
    hbm_bytes: int
    fits: bool
    flops_per_device: float
    roofline_step_seconds: float  # No step can be faster: products at the chip's peak, or memory.
    compile_seconds: float
    step: str  # "train" or "decode".
    needed_bytes: int  # Arguments, results and all temporary arrays; what must fit.

    def __str__(self) -> str:
        verdict = "fits" if self.fits else "DOES NOT FIT"
        return (
            f"{self.model} on {self.topology} ({self.mesh}), {self.batch} x {self.sequence}: "
            f"{verdict}, needs {self.needed_bytes / 2**30:.2f} of {self.hbm_bytes / 2**30:.2f} GiB "
            f"(state {self.argument_bytes / 2**30:.2f}, "
            f"peak in use {self.peak_bytes / 2**30:.2f}), at least "
            f"{self.roofline_step_seconds:.3f} s a step; compiled in {self.compile_seconds:.0f} s"
        )


@dataclasses.dataclass(frozen=True)
class _Program:
    """A step that can be compiled."""

    compile: Callable[[], Any]
    arguments: Any  # A tree of shapes and shardings.
    users: list[tuple[int, str]]  # Of the arguments' memory, in bytes of a device.
    flops: float  # Of the products in a step, on all devices.
    passes: int  # How often at least the arguments go through memory in a step.


Users = list[tuple[int, str]]  # Of memory, in bytes of a device, the largest first.


@dataclasses.dataclass(frozen=True)
class Job:
    """One step of one model on one topology and mesh."""

    config: FitConfig
    name: str  # Of the model.
    model: ModelConfig
    topology: Topology
    devices: list[Any]
    mesh_text: str

    @property
    def mesh(self) -> Mesh:
        """The devices as a mesh."""
        return make_mesh(self.mesh_text, self.devices)

    @property
    def execution(self) -> Execution:
        """How the step is computed."""
        return Execution.on(self.topology.platform, remat=self.config.remat)

    def check(self) -> None:
        """Refuses in a second what would only fail after minutes of compiling.

        Raises:
          ValueError: mesh, batch or sequence do not suit the model.
        """
        mesh, batch, sequence = self.mesh, self.config.batch, self.config.sequence
        ways = mesh.shape["data"] * mesh.shape["fsdp"]
        if self.config.step == "train":
            check_execution(self.model, mesh, self.execution, batch or ways, sequence)
        else:
            shardings(mesh, abstract(self.model))
            if batch % ways:
                raise ValueError(
                    f"`batch={batch}` cannot be divided over data x fsdp = {ways} devices."
                )
        if sequence > self.model.max_positions:
            raise ValueError(
                f"`sequence={sequence}` is beyond the model's {self.model.max_positions} positions."
            )

    def run(self) -> tuple[Fit, Users]:
        """Compiles the step, or searches for the largest batch."""
        return self.search() if self.config.search else self.fit(self.config.batch)

    def fit(self, batch: int) -> tuple[Fit, Users]:
        """Compiles one step; returns what it takes, and the users of memory."""
        mesh, topology = self.mesh, self.topology
        batch = batch or mesh.shape["data"] * mesh.shape["fsdp"]
        make = self._training if self.config.step == "train" else self._decoding
        program = make(mesh, batch)
        started = time.monotonic()
        try:
            compiled = program.compile()
            memory = compiled.memory_analysis()
            peak, temp = memory.peak_memory_in_bytes, memory.temp_size_in_bytes
            arguments, needed = memory.argument_size_in_bytes, bytes_needed(compiled)
            allocations = largest_arrays(compiled.as_text())
        except jax.errors.JaxRuntimeError as error:
            arguments = _local_bytes(program.arguments)
            needed, allocations = out_of_memory(str(error), arguments)
            peak, temp = needed, needed - arguments
        seconds = time.monotonic() - started
        flops, chip = program.flops / mesh.size, topology.chip
        moved = program.passes * _local_bytes(program.arguments)
        fit = Fit(
            model=self.name,
            topology=topology.name,
            devices=mesh.size,
            mesh=self.mesh_text,
            batch=batch,
            sequence=self.config.sequence,
            argument_bytes=arguments,
            temp_bytes=temp,
            peak_bytes=peak,
            hbm_bytes=chip.hbm_bytes,
            fits=needed <= chip.hbm_bytes,
            flops_per_device=flops,
            roofline_step_seconds=max(flops / chip.flops, moved / chip.hbm_bandwidth),
            compile_seconds=round(seconds, 1),
            step=self.config.step,
            needed_bytes=needed,
        )
        return fit, sorted([*program.users, *allocations], reverse=True)

    def search(self) -> tuple[Fit, Users]:
        """Finds the largest batch that fits, in steps of one row for each data x fsdp device."""
        mesh = self.mesh
        ways = mesh.shape["data"] * mesh.shape["fsdp"]

        def attempt(rows: int) -> tuple[Fit, Users]:
            result = self.fit(rows * ways)
            tqdm.write(f"  tried {result[0]}")
            return result

        best = attempt(1)
        if not best[0].fits:
            return best
        # Memory grows almost linearly with the rows: guess from two, then close in on the limit.
        low, high, first = 1, math.inf, best[0].needed_bytes
        guess = 2
        while low + 1 < high:
            result = attempt(guess)
            if result[0].fits:
                low, best = guess, result
            else:
                high = guess
            row = max((result[0].needed_bytes - first) / (guess - 1), 1)
            predicted = 1 + int((self.topology.chip.hbm_bytes - first) / row)
            guess = int(min(max(predicted, low + 1), high - 1, 8 * low))
        return best

    def _training(self, mesh: Mesh, batch: int) -> _Program:
        """The trainer's step."""
        sequence = self.config.sequence
        state = abstract_state(self.model, OptimizerConfig(0.0, 1), mesh)
        shapes = self.model, mesh, self.execution, "cosine", "float32", batch, sequence
        return _Program(
            lambda: compile_step(*shapes).run,
            (state, abstract_batch(mesh, batch, sequence)),
            [
                (_local_bytes(state.params), "parameters (fp32)"),
                (_local_bytes(state.opt_state), "Adam's moments (fp32)"),
            ],
            training_products(self.model, self.config.remat, batch, sequence),
            passes=2,  # Read and written.
        )

    def _decoding(self, mesh: Mesh, batch: int) -> _Program:
        """The step of the JAX engine, which takes several at a time."""
        dtype = self.execution.compute_dtype
        traced, model, cache = trace_decoding(self.model, mesh, batch, self.config.sequence, dtype)
        return _Program(
            lambda: traced.lower().compile(),
            (model, cache),
            [
                (_local_bytes(model), f"parameters ({dtype})"),
                (_local_bytes(cache), f"keys and values ({dtype})"),
            ],
            products(traced.jaxpr.jaxpr) / BLOCK,
            passes=1,
        )


def _model_config(name: str) -> ModelConfig:
    if name in PRESETS:
        return PRESETS[name]
    if not pathlib.Path(name).is_dir():
        raise ValueError(
            f"`model={name}` is neither a folder nor one of the presets {', '.join(PRESETS)}."
        )
    return ModelConfig.load(name)


def _meshes(config: FitConfig, model: ModelConfig, topology: Topology) -> list[str]:
    """Returns the configured mesh; for a search without one, each split of fsdp x tensor."""
    count = topology.count
    if config.mesh or not config.search:
        return [config.mesh or f"fsdp={count}"]
    splits = [n for n in (1, 2, 4, 8) if not count % n and not model.num_kv_heads % n]
    fitting = [n for n in splits if not model.dim % (count // n)]
    if not fitting:
        raise ValueError(
            f"`search`: no split of {topology.name}'s {count} devices between fsdp and tensor "
            f"divides the model; name a `mesh` with data=COPIES too."
        )
    return [f"fsdp={count // n}" + (f",tensor={n}" if n > 1 else "") for n in fitting]


def _local_bytes(tree: Any) -> int:
    """The bytes of abstract arrays on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves
    )


_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1, "s8": 1, "u8": 1, "f64": 8}


def largest_arrays(hlo: str) -> list[tuple[int, str]]:
    """The largest arrays a compiled program makes, one for each operation of the model."""
    found: dict[str, tuple[int, str]] = {}
    line = re.compile(r"= (\w+)\[([\d,]+)\]\S* (\w[\w-]*)\(.*op_name=\"([^\"]+)\"")
    fused = set(re.findall(r" fusion\(.*calls=%?([\w.-]+)", hlo))
    for computation in hlo.split("\n\n"):
        title = re.match(r"%?([\w.-]+) ", computation)
        if title and title[1] in fused:  # What is made within a kernel is never stored.
            continue
        for dtype, shape, kind, name in line.findall(computation):
            if kind in ("parameter", "get-tuple-element", "bitcast") or dtype not in _BYTES:
                continue
            size = _BYTES[dtype] * math.prod(map(int, shape.split(",")))
            found[name] = max(found.get(name, (0, "")), (size, f"{dtype}[{shape}] of {name}"))
    return sorted(found.values(), reverse=True)[:20]


def out_of_memory(message: str, arguments: int) -> tuple[int, list[tuple[int, str]]]:
    """Reads the compiler's complaint; raises anything else again.

    Args:
      message: what it said.
      arguments: bytes of a device that the step's arguments take.

    Returns:
      The bytes needed, and the users of memory that it names.
    """
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

    def size(number: str, unit: str) -> int:
        return int(float(number) * units[unit])

    # Far beyond the memory it gives one number; close to it, it says what takes how much.
    temporary = re.search(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)", message)
    if temporary is not None:
        needed = size(*temporary.groups())
        return arguments + needed, [(needed, "temporary arrays of the step, all together")]
    used = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    if used is None:
        raise RuntimeError(f"the step does not compile: {message[:2000]}")
    listed = re.findall(
        r"Size: ([\d.]+)([KMGT]?)B?\s+Operator: op_name=\"([^\"]*)\".*?\s+Shape: (\S+?)[{\s]",
        message,
    )
    users = [(size(number, unit), f"{shape} of {name}") for number, unit, name, shape in listed]
    return size(*used.groups()), users


def training_products(config: ModelConfig, remat: str, batch: int, sequence: int) -> float:
    """Counts the products of one training step, on all devices, from its own definition.

    With the reference attention: a kernel does the same products but does not show them.
    """
    optimizer = OptimizerConfig(0.0, 1)
    state = jax.eval_shape(lambda model: init_state(model, optimizer), abstract(config))
    ids, weights = (jax.ShapeDtypeStruct((batch, sequence), t) for t in (np.int32, np.float32))
    rows = Batch(ids, ids, weights, ids, ids)
    execution = Execution(remat=remat)
    traced = train_step.trace(execution, "cosine", "float32", state, rows, optimizer.rates())
    return products(traced.jaxpr.jaxpr)


def products(jaxpr: Any) -> float:
    """Multiplications and additions of the matrix products in a program, loops unrolled."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            summed = math.prod(left[axis] for axis in contracted)
            total += 2 * math.prod(equation.outvars[0].aval.shape) * summed
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * products(inner)
    return total
