"""Supervised fine-tuning (equations 1 and 2), the same for actor and critic.

`prepare` checks, `train` trains, `SftRun.save_result` saves; `fine_tune_stage` does all three.
"""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false

import dataclasses
import functools
import os
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from jaxcritique.config import Config, setting
from jaxcritique.errors import checking_input
from jaxcritique.models.attention import IMPLEMENTATIONS, check_attention
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import (
    ModelFolder,
    check_weights,
    load_pretrained,
    save_pretrained,
)
from jaxcritique.models.sharding import make_mesh, shardings
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import REMAT, Transformer
from jaxcritique.records import digest
from jaxcritique.store import Store
from jaxcritique.training.data import (
    Example,
    TokenizedExample,
    check_masks,
    drop_too_long,
    plan_epochs,
    tokenize,
)
from jaxcritique.training.loop import Trained, TrainingRun, train
from jaxcritique.training.step import SCHEDULES, Execution, OptimizerConfig, check_execution


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig(Config):
    """Settings of one fine-tuning: with model, data and seed they decide its outcome."""

    learning_rate: float = setting(
        2e-5, "Peak learning rate (paper: 2e-5; released code: 5e-6).", low=0
    )
    schedule: str = setting("cosine", "Of the learning rate, down to zero.", choices=SCHEDULES)
    warmup_share: float = setting(0.0, "Share of all steps that warm up.", low=0, high=1)
    weight_decay: float = setting(0.0, "AdamW's.", low=0)
    clip_norm: float = setting(
        1.0, "Gradients are clipped to this norm; inf: not at all.", low=0, infinite=True
    )
    epochs: int = setting(1, "Times each example is seen.", low=1)
    rows: int = setting(32, "Packed rows in a step.", low=1)
    micro_rows: int = setting(
        4,
        "Rows computed at a time, at least one a device; must divide `rows` if smaller. 0: all.",
        low=0,
    )
    sequence: int = setting(4096, "Tokens in a packed row.", low=16)
    too_long: Literal["error", "drop"] = setting(
        "error", "Examples longer than a row, never truncated: refuse, or drop and count them."
    )
    moment_dtype: Literal["float32", "bfloat16"] = setting("float32", "Of Adam's first moment.")

    def __post_init__(self) -> None:
        """Checks what no single field's bounds say."""
        super().__post_init__()
        if not self.clip_norm > 0:
            raise ValueError(f"`clip_norm={self.clip_norm}` must be above 0; inf: no clipping.")
        if self.rows % min(self.micro_rows or self.rows, self.rows):
            raise ValueError(
                f"`micro_rows={self.micro_rows}` must divide the {self.rows} rows of a step."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionConfig(Config):
    """On which devices a training runs, and how.

    Only rounding depends on it, most of all on `compute_dtype`.
    """

    mesh: str = setting("", "Such as data=2,fsdp=4,tensor=2; empty: fsdp over all devices.")
    remat: str | None = setting(
        None,
        "What the backward pass recomputes of a layer (default: full; on CPUs none).",
        choices=tuple(REMAT),
    )
    attention: str | None = setting(
        None,
        "Default: splash on TPU, cudnn on GPU, otherwise reference.",
        choices=IMPLEMENTATIONS,
    )
    compute_dtype: Literal["float32", "bfloat16"] | None = setting(
        None, "Default: bfloat16; on CPUs float32."
    )

    def resolve(self, config: SftConfig, model: ModelConfig, mesh: Mesh) -> Execution:
        """Returns the execution on the mesh's devices.

        Rows computed at a time are raised until each device has one. Where no attention was
        chosen, shapes that the platform's does not support get the reference.

        Raises:
          ValueError: the devices do not divide rows or model, or cannot do what was chosen.
        """
        ways = mesh.shape["data"] * mesh.shape["fsdp"]
        if config.rows % ways:
            raise ValueError(
                f"`rows={config.rows}` cannot be divided over data x fsdp = {ways} devices; use a "
                "multiple of it, or another `mesh`."
            )
        micro_rows = next(
            rows
            for rows in range(min(config.micro_rows or config.rows, config.rows), config.rows + 1)
            if rows % ways == 0 == config.rows % rows
        )
        names = ("remat", "attention", "compute_dtype")
        chosen = {name: value for name in names if (value := getattr(self, name)) is not None}
        execution = Execution.on(jax.default_backend(), micro_rows=micro_rows, **chosen)
        sequence = _row_length(config, model)
        if self.attention is None:
            platform, dtype = mesh.devices.flat[0].platform, execution.compute_dtype
            try:
                check_attention(execution.attention, platform, sequence, model.head_dim, dtype)
            except ValueError:
                logging.warning(
                    "%s attention does not support rows of %d tokens with heads of %d in %s; "
                    "the reference is used, which is slower and takes more memory",
                    execution.attention,
                    sequence,
                    model.head_dim,
                    dtype,
                )
                execution = dataclasses.replace(execution, attention="reference")
        check_execution(model, mesh, execution, config.rows, sequence)
        return execution


@dataclasses.dataclass(frozen=True)
class FineTuned(Trained):
    """A fine-tuned model in memory, and what the training came to."""

    key: str  # Of what decides the outcome: base, config, seed and examples.
    tokenizer: Tokenizer
    dtype: np.dtype[Any]  # Of the weights in a folder: the base's.
    examples: int  # That were trained on.
    too_long: int  # That were dropped.
    steps: int

    def summary(self) -> dict[str, float]:
        """Returns the counts and times."""
        return {key: getattr(self, key) for key in ("examples", "too_long", "steps", "seconds")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftRun(TrainingRun):
    """A fine-tuning that was checked, as far as that is possible without computing."""

    settings: dict[str, Any]  # That decide the outcome; base and examples by their content.
    tokenizer: Tokenizer
    dtype: np.dtype[Any]
    examples: int
    too_long: int

    def save_result(self, trained: Trained) -> FineTuned:
        """Takes what `train` returned; writes the Hugging Face folder `folder`/model, if any."""
        started = time.monotonic()
        if self.folder is not None:
            folder = self.folder / "model"
            save_pretrained(folder, trained.model, self.tokenizer.folder, self.dtype)
        return FineTuned(
            model=trained.model,
            history=trained.history,
            key=digest(self.settings),
            tokenizer=self.tokenizer,
            dtype=self.dtype,
            examples=self.examples,
            too_long=self.too_long,
            steps=self.optimizer.total_steps,
            seconds=round(trained.seconds + time.monotonic() - started, 1),
        )


def fine_tune_stage(
    store: Store,
    name: str,
    base: ModelFolder,
    examples: Sequence[Example],
    config: SftConfig,
    seed: int,
    execution: ExecutionConfig | None = None,
) -> ModelFolder:
    """Fine-tunes as a stage of a run; returns the Hugging Face folder of the result.

    Raises:
      InvalidInput: what `prepare` refuses.
      FloatingPointError: the loss or the gradient is not finite.
    """
    stage = store.stage(name, base.key, config, seed, digest([*map(dataclasses.asdict, examples)]))
    model = ModelFolder(stage.folder / "model", stage.key)
    if not (stage.finished and (model.folder / "config.json").is_file()):  # Or it was deleted.
        with checking_input():
            job = prepare(
                base, examples, config, seed,
                folder=stage.folder, name=name, execution=execution,
            )  # fmt: skip
        stage.finish(**job.save_result(train(job)).summary())
    # The model is written. Also where a kill came between the two.
    shutil.rmtree(stage.folder / "checkpoints", ignore_errors=True)
    return model


def prepare(
    base: str | os.PathLike[str] | ModelFolder | FineTuned,
    examples: Sequence[Example],
    config: SftConfig | None = None,
    seed: int = 0,
    *,
    folder: str | os.PathLike[str] | None = None,
    name: str = "sft",
    checkpoint_steps: int = 0,
    from_step: int | None = None,
    execution: ExecutionConfig | None = None,
) -> SftRun:
    """Tokenises, packs, and refuses what cannot be trained, within seconds.

    Args:
      base: the model to start from: a Hugging Face folder, as a path or a `ModelFolder` (whose
        key is known), or the result of a fine-tuning.
      examples: to learn.
      config: what decides the outcome, together with `seed`.
      seed: of the order of the data.
      folder: for checkpoints, metrics and the Hugging Face folder `folder`/model; None: nothing is
        written.
      name: what the progress bar and messages show.
      checkpoint_steps: steps between checkpoints; 0: about ten in all.
      from_step: resume from this checkpoint; None: from the newest.
      execution: on which devices it runs, and how.

    Raises:
      ValueError: there is nothing to train on, a mask is all ones or zeros, examples are too long
        and are not to be dropped, or mesh or attention do not suit model and rows.
      FileNotFoundError: a checkpoint to resume from, or a file of the base, is missing.
    """
    config, execution = config or SftConfig(), execution or ExecutionConfig()
    mesh = make_mesh(execution.mesh)
    if isinstance(base, FineTuned):
        start, model, dtype = base, base.model.config, base.dtype
    else:
        start = base.folder if isinstance(base, ModelFolder) else pathlib.Path(base)
        model, dtype = check_weights(start)
    step_execution = execution.resolve(config, model, mesh)
    tokenizer = start.tokenizer if isinstance(start, FineTuned) else Tokenizer(start)
    sequence = _row_length(config, model)
    kept, too_long = _tokenized(name, tokenizer, examples, config, sequence)
    batches, steps = plan_epochs(kept, sequence, config.rows, config.epochs, seed)
    # Last of all: for the key of a folder all its weights are read.
    base_key = (ModelFolder.of(base) if isinstance(base, str | os.PathLike) else base).key
    settings = config.to_json() | {"seed": seed, "base": base_key, "examples": digest(*examples)}
    del settings["micro_rows"]  # It decides rounding only.
    job = SftRun(
        name=name,
        config=model,
        initial=functools.partial(_initial, start, mesh),
        batches=batches,
        optimizer=OptimizerConfig(
            learning_rate=config.learning_rate,
            total_steps=steps,
            warmup_steps=round(config.warmup_share * steps),
            schedule=config.schedule,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
            moment_dtype=config.moment_dtype,
        ),
        execution=step_execution,
        mesh=mesh,
        folder=None if folder is None else pathlib.Path(folder),
        checkpoint_steps=checkpoint_steps,
        from_step=from_step,
        settings=settings,
        tokenizer=tokenizer,
        dtype=dtype,
        examples=len(kept),
        too_long=too_long,
    )
    if job.prints:
        _show(tokenizer, name, kept[0])
    return job


def _initial(base: pathlib.Path | FineTuned, mesh: Mesh) -> Transformer:
    """Returns the parameters to start from, in arrays that can be donated."""
    if isinstance(base, FineTuned):
        return jax.tree.map(jnp.copy, jax.device_put(base.model, shardings(mesh, base.model)))
    return load_pretrained(base, mesh)


def _row_length(config: SftConfig, model: ModelConfig) -> int:
    """A row's tokens: no more than the model's context."""
    return min(config.sequence, model.max_positions)


def _tokenized(
    name: str,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    config: SftConfig,
    sequence: int,
) -> tuple[list[TokenizedExample], int]:
    """Returns the examples that are trained on, and how many were too long."""
    if not examples:
        raise ValueError(f"{name}: there are no examples to train on.")
    tokenized: list[TokenizedExample] = []
    for index, example in enumerate(examples):
        try:
            tokenized.append(tokenize(tokenizer, example))
        except ValueError as error:
            raise ValueError(f"{name}: example {index}: {error}") from None
    check_masks(tokenized)
    kept, dropped = drop_too_long(tokenized, sequence)
    by_flag = sequence == config.sequence
    limit = f"`sequence={sequence}`" if by_flag else f"the model's context of {sequence} tokens"
    remedy = "Raise it, or l" if by_flag else "L"
    if dropped and config.too_long == "error":
        lengths = [len(example.tokens) for example in tokenized]
        raise ValueError(
            f"{name}: {dropped} of {len(examples)} examples exceed {limit} (example "
            f"{lengths.index(max(lengths)) + 1} has {max(lengths)} tokens). {remedy}eave them out "
            "with `too_long=drop`."
        )
    if not kept:
        raise ValueError(f"{name}: no example fits {limit}.")
    if dropped:
        logging.warning("%s: %d of %d examples exceed %d tokens and are left out",
                        name, dropped, len(examples), sequence)  # fmt: skip
    return kept, dropped


def _show(tokenizer: Tokenizer, name: str, example: TokenizedExample) -> None:
    """Prints an example as the model sees it: a wrong mask shows before hours of training."""
    prompt = tokenizer.hf.decode(example.tokens[: example.prompt_length])
    target = tokenizer.hf.decode(example.tokens[example.prompt_length :])
    print(f"---- {name}: first example, masked part\n{prompt}\n---- learnt part\n{target}\n----")
