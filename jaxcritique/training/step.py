"""The training step: a pure function (state, batch, rates) -> (state, metrics), sharded by jit."""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int

from jaxcritique.models.attention import check_attention, default_implementation
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.sharding import (
    ROWS,
    abstract_arrays,
    constrain,
    constrain_tree,
    shardings,
)
from jaxcritique.models.transformer import Transformer, abstract
from jaxcritique.models.weights import Weight, map_weights
from jaxcritique.training.data import Batch

Metrics = dict[str, Array]
SCHEDULES = ("constant", "linear", "cosine")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a run needs to go on as if it had never stopped."""

    step: Any  # An int32 scalar; its shape or sharding in trees of those.
    params: Transformer
    opt_state: optax.OptState


class Rates(NamedTuple):
    """The numbers of `OptimizerConfig`.

    They are traced arguments, so runs that differ only in them share one compiled step.
    """

    learning_rate: Float[Any, ""]
    total_steps: Float[Any, ""]
    warmup_steps: Float[Any, ""]
    weight_decay: Float[Any, ""]
    clip_norm: Float[Any, ""]
    b2: Float[Any, ""]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, a schedule down to zero, and clipping by the gradient's norm."""

    learning_rate: float
    total_steps: int
    warmup_steps: int = 0
    schedule: str = "cosine"  # One of SCHEDULES.
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b2: float = 0.999
    # "bfloat16" saves 2 bytes a parameter on the first moment. The second stays fp32: in bf16 a
    # change of one part in a thousand, which is what b2 lets through, would be rounded away.
    moment_dtype: str = "float32"

    def rates(self) -> Rates:
        """Returns the numbers."""
        return Rates(*(np.float32(getattr(self, name)) for name in Rates._fields))


@dataclasses.dataclass(frozen=True)
class Execution:
    """How a step is computed. Nothing here changes what is learnt, but for rounding."""

    # Rows computed at a time, over all devices; None: all. On CPUs rows that fit the cache also
    # make the step twice as fast (docs/log.md).
    micro_rows: int | None = None
    remat: str = "none"  # One of transformer.REMAT.
    attention: str = "reference"  # One of attention.IMPLEMENTATIONS.
    compute_dtype: str = "float32"

    @classmethod
    def on(cls, platform: str, **chosen: Any) -> "Execution":
        """Returns what suits a platform ("cpu", "gpu", "tpu"); `chosen` overrides it."""
        fast = {} if platform == "cpu" else {"compute_dtype": "bfloat16", "remat": "full"}
        best: dict[str, Any] = {"attention": default_implementation(platform), **fast}
        return cls(**best | chosen)


def learning_rate(schedule: str, rates: Rates, step: Int[Array, ""]) -> Float[Array, ""]:
    """Returns the rate of a step, counted from 0: a linear warm-up, then `schedule` down to 0.

    The numbers of steps are data here, while optax's schedules take Python numbers. So its decay
    runs over the share of the steps that are done, from 0 to 1.
    """
    decay = {
        "constant": optax.constant_schedule(1.0),
        "linear": optax.linear_schedule(1.0, 0.0, 1),
        "cosine": optax.cosine_decay_schedule(1.0, 1),
    }[schedule]
    warmup, steps = rates.warmup_steps, rates.total_steps - rates.warmup_steps
    boundaries: Any = [warmup]  # optax's types want Python ints; a traced number works too.
    share_of_peak = optax.join_schedules(
        [lambda i: i / jnp.maximum(warmup, 1.0), lambda i: decay(i / jnp.maximum(steps, 1.0))],
        boundaries,
    )
    return rates.learning_rate * share_of_peak(step)


def adamw(
    rates: Rates, rate: Float[Array, ""] | float, moment_dtype: str
) -> optax.GradientTransformation:
    """Returns AdamW with a learning rate."""
    return optax.adamw(
        rate, b2=rates.b2, mu_dtype=jnp.dtype(moment_dtype), weight_decay=rates.weight_decay
    )


def summed_loss(
    model: Transformer, batch: Batch, execution: Execution | None = None
) -> Float[Array, ""]:
    """Returns the weighted sum of the batch's token losses (equations 1 and 2, not yet divided)."""
    execution = execution or Execution()

    def cast(row: Weight | None, x: Array) -> Array:
        # Norms compute in fp32 anyway, so their scales need no rounding.
        scale = row is not None and row.path.endswith(".scale")
        return x if scale else x.astype(execution.compute_dtype)

    model = map_weights(cast, model)
    hidden = model.hidden(
        batch.tokens,
        batch.positions,
        batch.segments,
        attention=execution.attention,
        remat=execution.remat,
    )
    return model.summed_loss(hidden, batch.targets, batch.weights)


@functools.partial(
    jax.jit,
    static_argnames=("execution", "schedule", "moment_dtype"),
    donate_argnames="state",
)
def train_step(
    execution: Execution,
    schedule: str,
    moment_dtype: str,
    state: TrainState,
    batch: Batch,
    rates: Rates,
) -> tuple[TrainState, Metrics]:
    """Takes one step under the mesh in context; `state` is donated.

    Gradients of summed losses are added up over micro-batches and divided once by the batch's
    number of targets, so micro-batches change nothing but memory.

    Args:
      execution: how it is computed.
      schedule: of the learning rate, one of `SCHEDULES`.
      moment_dtype: of Adam's first moment.
      state: before the step.
      batch: its rows a multiple of `execution.micro_rows`.
      rates: from `OptimizerConfig.rates`.
    """
    gradient_of = jax.value_and_grad(lambda model, batch: summed_loss(model, batch, execution))

    def accumulate(total: Any, micro: Batch) -> tuple[Any, None]:
        micro = jax.tree.map(lambda x: constrain(x, ROWS), micro)
        loss, gradient = gradient_of(state.params, micro)
        return jax.tree.map(jnp.add, total, (loss, constrain_tree(gradient))), None

    rows = len(batch.tokens)
    micro_rows = execution.micro_rows or rows
    if micro_rows == rows:
        loss, gradient = gradient_of(state.params, batch)
        gradient = constrain_tree(gradient)
    else:
        # Row i goes to micro-batch i mod K: every device finds its part among its own rows.
        micros = jax.tree.map(
            lambda x: x.reshape(micro_rows, rows // micro_rows, -1).swapaxes(0, 1), batch
        )
        zeros = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), state.params))
        (loss, gradient), _ = jax.lax.scan(accumulate, zeros, micros)

    targets = jnp.maximum(jnp.sum(batch.weights > 0), 1)
    # What `optax.clip_by_global_norm` does, and the division, in one pass over the gradients.
    norm = optax.tree.norm(gradient) / targets
    scale = jnp.minimum(1.0, rates.clip_norm / jnp.maximum(norm, 1e-30)) / targets
    gradient = jax.tree.map(lambda g: g * scale, gradient)
    rate = learning_rate(schedule, rates, state.step)
    optimizer = adamw(rates, rate, moment_dtype)
    before: Any = state.params  # optax's types know of no modules.
    updates, opt_state = optimizer.update(gradient, state.opt_state, before)
    params: Any = optax.apply_updates(before, updates)
    metrics = {
        "loss": loss / targets,
        "gradient_norm": norm,
        "learning_rate": rate,
        "target_tokens": targets,
        "tokens": jnp.sum(batch.segments > 0),
        "padding_share": jnp.mean(batch.segments == 0),
    }
    # With the sharding it came with, so that its memory is reused.
    return constrain_tree(TrainState(state.step + 1, params, opt_state)), metrics


def init_state(params: Transformer, optimizer: OptimizerConfig) -> TrainState:
    """Returns the state before the first step; its moments are sharded as the parameters are."""

    def fresh(params: Any) -> tuple[Array, optax.OptState]:
        transformation = adamw(optimizer.rates(), 0.0, optimizer.moment_dtype)
        return constrain_tree((jnp.zeros((), jnp.int32), transformation.init(params)))

    step, moments = jax.jit(fresh)(params)
    return TrainState(step, params, moments)


def abstract_state(config: ModelConfig, optimizer: OptimizerConfig, mesh: Mesh) -> TrainState:
    """Returns the shapes and shardings of a state, for restoring one and for compiling."""
    shapes = jax.eval_shape(lambda params: init_state(params, optimizer), abstract(config))
    return abstract_arrays(mesh, shapes)


class CompiledStep(NamedTuple):
    """A step ready to run (or only to be measured) on a mesh."""

    run: Any  # (state, batch, rates) -> (state, metrics)
    seconds: float  # What compiling took, when it was done.


@functools.lru_cache(maxsize=8)
def compile_step(
    config: ModelConfig,
    mesh: Mesh,
    execution: Execution,
    schedule: str,
    moment_dtype: str,
    rows: int,
    sequence: int,
) -> CompiledStep:
    """Compiles the step for a mesh, whose devices need not exist; once for all runs alike.

    Raises:
      ValueError: the mesh or the attention does not suit the shapes.
    """
    started = time.monotonic()
    check_execution(config, mesh, execution, rows, sequence)
    optimizer = OptimizerConfig(0.0, 1, schedule=schedule, moment_dtype=moment_dtype)
    with jax.set_mesh(mesh):
        lowered = train_step.lower(
            execution,
            schedule,
            moment_dtype,
            abstract_state(config, optimizer, mesh),
            abstract_batch(mesh, rows, sequence),
            optimizer.rates(),
        )
        compiled = lowered.compile()
    return CompiledStep(compiled, time.monotonic() - started)


def abstract_batch(mesh: Mesh, rows: int, sequence: int) -> Batch:
    """Returns a batch's shapes and shardings."""
    shape, sharding = (rows, sequence), NamedSharding(mesh, ROWS)
    kinds = Batch(np.int32, np.int32, np.float32, np.int32, np.int32)
    return Batch(*(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for dtype in kinds))


def check_execution(
    config: ModelConfig, mesh: Mesh, execution: Execution, rows: int, sequence: int
) -> None:
    """Checks in a moment what would only fail once the step is compiled.

    Raises:
      ValueError: the mesh does not divide the model or the rows, or the attention does not suit
        the shapes or the devices.
    """
    shardings(mesh, abstract(config))
    platform = mesh.devices.flat[0].platform
    head, dtype = config.head_dim, execution.compute_dtype
    check_attention(execution.attention, platform, sequence, head, dtype)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    micro_rows = execution.micro_rows or rows
    if rows % micro_rows:
        raise ValueError(f"the {rows} rows of a step are no multiple of {micro_rows} at a time.")
    if micro_rows % ways:
        raise ValueError(
            f"{micro_rows} rows computed at a time cannot be divided over data x fsdp = {ways} "
            "devices; use a multiple of it, or another `mesh`."
        )
