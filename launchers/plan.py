"""Says, before any hardware is rented, whether training or decoding fits it.

    python -m launchers.plan --model=llama3-8b --topology=v5e:8x8 --sequence=2048

Compiles the very step `experiments.sft` runs (with --step=decode, the one the JAX engine runs), for
TPUs or GPUs that are not there, and reports the memory XLA says it takes. `pip install -e
'.[plan-tpu]'` brings the compiler for TPUs, `'.[plan-gpu]'` the one for GPUs. Exit code 1: it does
not fit.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable
from typing import Any

# Before JAX is imported: it must not look for a TPU or a GPU here. There is none to tune on.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from tqdm import tqdm

from experiments.program import refusing_bad_input, run
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.presets import PRESETS
from jaxcritique.models.sharding import make_mesh, shardings
from jaxcritique.models.transformer import REMAT, abstract
from jaxcritique.rollout.decoding import trace_decoding
from jaxcritique.store import write_atomically
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

_MODEL = flags.DEFINE_list(
    "model", None, f"Presets: {', '.join(PRESETS)}; or Hugging Face folders.", required=True
)
_TOPOLOGY = flags.DEFINE_list(
    "topology", None, "Chips: v5e:8x8, v5p:2x2x2, v6e:4x4, a100-80gb:8, h100:16, ...", required=True
)
_STEP = flags.DEFINE_enum(
    "step", "train", ["train", "decode"],
    "The trainer's step on --batch rows of --sequence tokens, or the JAX engine's, which decodes a "
    "token for each of --batch samples of up to --sequence.",
)  # fmt: skip
_SEQUENCE = flags.DEFINE_integer("sequence", 2048, "Tokens in a row or sample.", lower_bound=1)
_BATCH = flags.DEFINE_integer(
    "batch", 0, "Rows worked on at a time, over all devices; 0: one for each of data x fsdp.",
    lower_bound=0,
)  # fmt: skip
_MESH = flags.DEFINE_string(
    "mesh", "", "Such as fsdp=64 or data=2,fsdp=8,tensor=4; empty: fsdp over all devices."
)
_REMAT = flags.DEFINE_enum(
    "remat", "full", REMAT, "What layers keep for the backward pass; the rest is worked out again."
)
_JSON = flags.DEFINE_string("json", None, "Where the results go as a list of JSON objects.")
_SEARCH = flags.DEFINE_bool(
    "search", False, "Find the largest batch that fits, for --mesh or each split of fsdp x tensor."
)


@dataclasses.dataclass(frozen=True)
class Plan:
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


def main(_: list[str]) -> None:
    """Runs the program."""
    with refusing_bad_input():
        if _SEARCH.value and _BATCH.value:
            raise ValueError("--search finds the batch; leave --batch out.")
        if _JSON.value:
            if pathlib.Path(_JSON.value).is_dir():
                raise IsADirectoryError(f"--json={_JSON.value} is a folder, not a file.")
            pathlib.Path(_JSON.value).parent.mkdir(parents=True, exist_ok=True)
        configs = {name: _config(name) for name in _MODEL.value}
        topologies = [Topology.parse(name) for name in _TOPOLOGY.value]
        devices = {topology.name: topology.devices() for topology in topologies}
        jobs = [
            (name, config, topology, devices[topology.name], mesh)
            for name, config in configs.items()
            for topology in topologies
            for mesh in _meshes(config, topology)
        ]
        for _name, config, topology, chips, mesh in jobs:
            _check(config, topology, chips, mesh)
    plans, all_fit = [], True
    for job in tqdm(jobs, desc="compiling", unit="plan", disable=len(jobs) == 1):
        plan, users = _search(*job) if _SEARCH.value else _plan(*job, _BATCH.value)
        plans.append(plan)
        print(_line(plan))
        if not plan.fits:
            all_fit = False
            print("  the largest users of memory:")
            for size, what in users[:3]:
                print(f"    {size / 2**30:6.2f} GiB  {what}")
        if _JSON.value:  # After each: compiling takes minutes, and the next may fail.
            rows = [dataclasses.asdict(plan) for plan in plans]
            write_atomically(pathlib.Path(_JSON.value), json.dumps(rows, indent=2) + "\n")
    if not all_fit:
        sys.exit(1)


def _config(name: str) -> ModelConfig:
    if name in PRESETS:
        return PRESETS[name]
    if not pathlib.Path(name).is_dir():
        raise ValueError(
            f"--model={name} is neither a folder nor one of the presets {', '.join(PRESETS)}."
        )
    return ModelConfig.load(name)


def _meshes(config: ModelConfig, topology: Topology) -> list[str]:
    """The mesh asked for; searching without one, every split between fsdp and tensor."""
    count = topology.count
    if _MESH.value or not _SEARCH.value:
        return [_MESH.value or f"fsdp={count}"]
    splits = [n for n in (1, 2, 4, 8) if not count % n and not config.num_kv_heads % n]
    fitting = [n for n in splits if not config.dim % (count // n)]
    if not fitting:
        raise ValueError(
            f"--search: no split of {topology.name}'s {count} devices between fsdp and tensor "
            f"divides the model; name a --mesh with data=COPIES too."
        )
    return [f"fsdp={count // n}" + (f",tensor={n}" if n > 1 else "") for n in fitting]


def _check(config: ModelConfig, topology: Topology, devices: list[Any], mesh_text: str) -> None:
    """Refuses in a second what would only fail after minutes of compiling."""
    mesh = make_mesh(mesh_text, devices)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if _STEP.value == "train":
        execution = _execution(topology)
        check_execution(config, mesh, execution, _BATCH.value or ways, _SEQUENCE.value)
    else:
        shardings(mesh, abstract(config)[1])
        if _BATCH.value % ways:
            raise ValueError(
                f"--batch={_BATCH.value} cannot be divided over data x fsdp = {ways} devices."
            )
    if _SEQUENCE.value > config.max_positions:
        raise ValueError(
            f"--sequence={_SEQUENCE.value} is beyond the model's {config.max_positions} positions."
        )


@dataclasses.dataclass(frozen=True)
class _Program:
    """A step that can be compiled."""

    compile: Callable[[], Any]
    arguments: Any  # A tree of shapes and shardings.
    users: list[tuple[int, str]]  # Of the arguments' memory, in bytes of a device.
    flops: float  # Of the products in a step, on all devices.
    passes: int  # How often at least the arguments go through memory in a step.


def _execution(topology: Topology) -> Execution:
    return Execution.on(topology.platform, remat=_REMAT.value)


def _training(config: ModelConfig, topology: Topology, mesh: Mesh, batch: int) -> _Program:
    """The trainer's step."""
    sequence = _SEQUENCE.value
    state = abstract_state(config, OptimizerConfig(0.0, 1), mesh)
    shapes = config, mesh, _execution(topology), "cosine", "float32", batch, sequence
    return _Program(
        lambda: compile_step(*shapes).run,
        (state, abstract_batch(mesh, batch, sequence)),
        [
            (_local_bytes(state.params), "parameters (fp32)"),
            (_local_bytes(state.opt_state), "Adam's moments (fp32)"),
        ],
        _training_products(config, batch, sequence),
        passes=2,  # Read and written.
    )


def _decoding(config: ModelConfig, topology: Topology, mesh: Mesh, batch: int) -> _Program:
    """The step of the JAX engine, which takes several at a time."""
    dtype = _execution(topology).compute_dtype
    decoding = trace_decoding(config, mesh, batch, _SEQUENCE.value, dtype)
    return _Program(
        lambda: decoding.traced.lower().compile(),
        (decoding.params, decoding.cache),
        [
            (_local_bytes(decoding.params), f"parameters ({dtype})"),
            (_local_bytes(decoding.cache), f"keys and values ({dtype})"),
        ],
        _products(decoding.traced.jaxpr.jaxpr) / decoding.steps,
        passes=1,
    )


def _plan(
    name: str,
    config: ModelConfig,
    topology: Topology,
    devices: list[Any],
    mesh_text: str,
    batch: int,
) -> tuple[Plan, list[tuple[int, str]]]:
    """Compiles one step; returns what it takes, and the users of memory, largest first."""
    mesh = make_mesh(mesh_text, devices)
    batch = batch or mesh.shape["data"] * mesh.shape["fsdp"]
    make = _training if _STEP.value == "train" else _decoding
    program = make(config, topology, mesh, batch)
    started = time.monotonic()
    try:
        compiled = program.compile()
        memory = compiled.memory_analysis()
        peak, temp = memory.peak_memory_in_bytes, memory.temp_size_in_bytes
        arguments, needed = memory.argument_size_in_bytes, bytes_needed(compiled)
        allocations = _largest_arrays(compiled.as_text())
    except jax.errors.JaxRuntimeError as error:
        arguments = _local_bytes(program.arguments)
        needed, allocations = _out_of_memory(str(error), arguments)
        peak, temp = needed, needed - arguments
    seconds = time.monotonic() - started
    flops, chip = program.flops / mesh.size, topology.chip
    moved = program.passes * _local_bytes(program.arguments)
    plan = Plan(
        model=name,
        topology=topology.name,
        devices=mesh.size,
        mesh=mesh_text,
        batch=batch,
        sequence=_SEQUENCE.value,
        argument_bytes=arguments,
        temp_bytes=temp,
        peak_bytes=peak,
        hbm_bytes=chip.hbm_bytes,
        fits=needed <= chip.hbm_bytes,
        flops_per_device=flops,
        roofline_step_seconds=max(flops / chip.flops, moved / chip.hbm_bandwidth),
        compile_seconds=round(seconds, 1),
        step=_STEP.value,
        needed_bytes=needed,
    )
    return plan, sorted([*program.users, *allocations], reverse=True)


def _search(
    name: str,
    config: ModelConfig,
    topology: Topology,
    devices: list[Any],
    mesh_text: str,
) -> tuple[Plan, list[tuple[int, str]]]:
    """Finds the largest batch that fits, in steps of one row for each data x fsdp device."""
    mesh = make_mesh(mesh_text, devices)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]

    def attempt(rows: int) -> tuple[Plan, list[tuple[int, str]]]:
        result = _plan(name, config, topology, devices, mesh_text, rows * ways)
        tqdm.write(f"  tried {_line(result[0])}")
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
        predicted = 1 + int((topology.chip.hbm_bytes - first) / row)
        guess = int(min(max(predicted, low + 1), high - 1, 8 * low))
    return best


def _line(plan: Plan) -> str:
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    return (
        f"{plan.model} on {plan.topology} ({plan.mesh}), {plan.batch} x {plan.sequence}: "
        f"{verdict}, needs {plan.needed_bytes / 2**30:.2f} of {plan.hbm_bytes / 2**30:.2f} GiB "
        f"(state {plan.argument_bytes / 2**30:.2f}, peak in use {plan.peak_bytes / 2**30:.2f}), "
        "at least "
        f"{plan.roofline_step_seconds:.3f} s a step; compiled in {plan.compile_seconds:.0f} s"
    )


def _local_bytes(tree: Any) -> int:
    """The bytes of abstract arrays on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves
    )


_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "pred": 1, "s8": 1, "u8": 1, "f64": 8}


def _largest_arrays(hlo: str) -> list[tuple[int, str]]:
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


def _out_of_memory(message: str, arguments: int) -> tuple[int, list[tuple[int, str]]]:
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


def _training_products(config: ModelConfig, batch: int, sequence: int) -> float:
    """Counts the products of one training step, on all devices, from its own definition.

    With the reference attention: a kernel does the same products but does not show them.
    """
    optimizer = OptimizerConfig(0.0, 1)
    structure, shapes = abstract(config)
    state = jax.eval_shape(lambda params: init_state(params, optimizer), shapes)
    tokens = [jax.ShapeDtypeStruct((batch, sequence), kind) for kind in (np.int32, np.float32)]
    rows = (tokens[0], tokens[0], tokens[1], tokens[0], tokens[0])
    execution = Execution(remat=_REMAT.value)
    traced = train_step.trace(
        structure, execution, "cosine", "float32", state, Batch(*rows), optimizer.rates()
    )
    return _products(traced.jaxpr.jaxpr)


def _products(jaxpr: Any) -> float:
    """Multiplications and additions of the matrix products in a program, loops unrolled."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += (
                2
                * math.prod(equation.outvars[0].aval.shape)
                * math.prod(left[axis] for axis in contracted)
            )
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * _products(inner)
    return total


if __name__ == "__main__":
    run(main)
