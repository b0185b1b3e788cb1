"""The training step: a pure function (state, batch) -> (state, metrics) under sharded jit."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxcritique.models.transformer import Params, Structure, join
from jaxcritique.training.data import Batch

Metrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a run needs to go on as if it had never stopped."""

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, a cosine to zero, and clipping by the gradient's norm."""

    learning_rate: float
    total_steps: int
    warmup_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b2: float = 0.999

    def make(self) -> tuple[optax.GradientTransformation, optax.Schedule]:
        """Returns the transformation and the learning rate as a function of the step."""
        schedule = optax.warmup_cosine_decay_schedule(
            init_value=0.0 if self.warmup_steps else self.learning_rate,
            peak_value=self.learning_rate,
            warmup_steps=self.warmup_steps,
            decay_steps=max(self.total_steps, self.warmup_steps + 1),
        )
        transformation = optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(schedule, b2=self.b2, weight_decay=self.weight_decay),
        )
        return transformation, schedule


def summed_loss(structure: Structure, params: Params, batch: Batch) -> Float[Array, ""]:
    """Returns the weighted sum of the batch's token losses (equations 1 and 2, not yet divided)."""
    model = join(structure, params)
    seq = batch.tokens.shape[1]
    same = batch.segments[:, :, None] == batch.segments[:, None, :]
    mask = same & jnp.tril(jnp.ones((seq, seq), bool))
    hidden = model.hidden(batch.tokens, batch.positions, mask)
    return jnp.sum(model.token_loss(hidden, batch.targets) * batch.weights)


def make_train_step(
    structure: Structure, optimizer: OptimizerConfig, micro_rows: int
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds the step.

    Args:
      structure: of the model, from `transformer.split`.
      optimizer: its settings.
      micro_rows: rows worked on at a time. Gradients of summed losses are added up and divided
        once by the batch's number of targets, so micro-batches change nothing but memory. On CPUs
        rows that fit the cache also make the step twice as fast (docs/log.md).

    Returns:
      The step; the caller jits it and donates the state.
    """
    transformation, schedule = optimizer.make()

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        gradient_of = jax.value_and_grad(lambda p, b: summed_loss(structure, p, b))

        def accumulate(total: Any, micro: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient_of(state.params, micro)), None

        micros = jax.tree.map(lambda x: x.reshape(-1, micro_rows, *x.shape[1:]), batch)
        zeros = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), state.params))
        (loss, gradient), _ = jax.lax.scan(accumulate, zeros, micros)
        targets = jnp.maximum(jnp.sum(batch.weights > 0), 1)
        gradient = jax.tree.map(lambda g: g / targets, gradient)
        updates, opt_state = transformation.update(gradient, state.opt_state, state.params)
        metrics = {
            "loss": loss / targets,
            "gradient_norm": optax.global_norm(gradient),
            "learning_rate": jnp.asarray(schedule(state.step)),
            "target_tokens": targets,
            "tokens": jnp.sum(batch.segments > 0),
        }
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), metrics

    return step


def init_state(params: Params, optimizer: OptimizerConfig) -> TrainState:
    """Returns the state before the first step."""
    transformation, _ = optimizer.make()
    return TrainState(jnp.zeros((), jnp.int32), params, transformation.init(params))
