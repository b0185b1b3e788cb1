"""Supervised fine-tuning (equations 1 and 2), the same for actor and critic."""

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
from absl import logging
from jax.sharding import Mesh

from jaxcritique.config import Config, setting
from jaxcritique.errors import InvalidInput
from jaxcritique.models.attention import IMPLEMENTATIONS, check_attention
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import (
    ModelFolder,
    check_weights,
    load_pretrained,
    save_pretrained,
    stored_dtype,
)
from jaxcritique.models.sharding import make_mesh
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import REMAT
from jaxcritique.records import digest
from jaxcritique.store import Store
from jaxcritique.training.data import (
    Epochs,
    Example,
    TokenizedExample,
    check_masks,
    drop_too_long,
    tokenize,
)
from jaxcritique.training.loop import Run, train
from jaxcritique.training.step import SCHEDULES, Execution, OptimizerConfig, check_execution


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig(Config):
    """Settings of one fine-tuning: all that decides its outcome, beside model, data and seed."""

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
        "error", "Examples longer than a row: refuse them, or drop them, counted. None is ever cut."
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
class Placement(Config):
    """On which devices a fine-tuning runs, and how; but for `compute_dtype` only rounding depends
    on it."""

    mesh: str = setting("", "Such as data=2,fsdp=4,tensor=2; empty: fsdp over all devices.")
    remat: str | None = setting(
        None,
        "What the backward pass recomputes of a layer (default: full; on CPUs none).",
        choices=REMAT,
    )
    attention: str | None = setting(
        None,
        "Default: splash on TPU, cudnn on GPU, otherwise reference.",
        choices=IMPLEMENTATIONS,
    )
    compute_dtype: Literal["float32", "bfloat16"] | None = setting(
        None, "Default: bfloat16; on CPUs float32."
    )

    def execution(self, config: SftConfig, model: ModelConfig, mesh: Mesh) -> Execution:
        """Returns the execution on the mesh's devices.

        As many more rows are worked on at a time as the devices need to have one each. Where
        nothing else was chosen, shapes that the platform's attention cannot do get the reference.

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
        chosen = {key: getattr(self, key) for key in ("remat", "attention", "compute_dtype")}
        chosen = {key: value for key, value in chosen.items() if value is not None}
        execution = Execution.on(jax.default_backend(), micro_rows=micro_rows, **chosen)
        sequence = _row_length(config, model)
        if self.attention is None:
            platform, dtype = mesh.devices.flat[0].platform, execution.compute_dtype
            try:
                check_attention(execution.attention, platform, sequence, model.head_dim, dtype)
            except ValueError:
                logging.warning(
                    "%s attention cannot do rows of %d tokens with heads of %d in %s; the "
                    "reference does, slower and in more memory",
                    execution.attention,
                    sequence,
                    model.head_dim,
                    dtype,
                )
                execution = dataclasses.replace(execution, attention="reference")
        check_execution(model, mesh, execution, config.rows, sequence)
        return execution


def fine_tune(
    store: Store,
    name: str,
    base: ModelFolder,
    examples: Sequence[Example],
    config: SftConfig,
    seed: int,
    placement: Placement | None = None,
) -> ModelFolder:
    """Fine-tunes `base` on the examples as a stage; returns the Hugging Face folder of the result.

    The order of the data is a pure function of the seed and the step. Killed and called again,
    it goes on from its newest checkpoint.

    Raises:
      InvalidInput: what `prepare` refuses.
    """
    stage = store.stage(name, base.key, config, seed, digest([*map(dataclasses.asdict, examples)]))
    model = ModelFolder(stage.folder / "model", stage.key)
    if not (stage.finished and (model.folder / "config.json").is_file()):  # Or it was deleted.
        run = Run(stage.folder, name)
        try:
            sft = prepare(run, base.folder, examples, config, seed, placement)
        except (ValueError, FileNotFoundError) as error:
            raise InvalidInput(str(error)) from error
        stage.finish(**sft.train())
    # The model has all. Also where a kill came between the two.
    shutil.rmtree(stage.folder / "checkpoints", ignore_errors=True)
    return model


@dataclasses.dataclass(frozen=True)
class Sft:
    """A fine-tuning of which all that can be checked without computing has been."""

    run: Run
    base: pathlib.Path
    model_config: ModelConfig
    epochs: Epochs
    optimizer: OptimizerConfig
    execution: Execution
    mesh: Mesh
    examples: int
    too_long: int

    def train(self) -> dict[str, Any]:
        """Trains, and writes the Hugging Face folder `run.folder/model`, weights as the base's.

        Returns:
          Counts and times worth keeping.
        """
        started = time.monotonic()
        params = train(
            self.run,
            self.model_config,
            lambda: load_pretrained(self.base, self.mesh)[2],
            self.epochs.batches,
            self.optimizer,
            self.execution,
            self.mesh,
        )
        folder, dtype = self.run.folder / "model", stored_dtype(self.base)
        save_pretrained(folder, self.model_config, params, self.base, dtype)
        return {
            "examples": self.examples,
            "too_long": self.too_long,
            "steps": self.epochs.steps,
            "seconds": round(time.monotonic() - started, 1),
        }


def prepare(
    run: Run,
    base: pathlib.Path,
    examples: Sequence[Example],
    config: SftConfig,
    seed: int,
    placement: Placement | None = None,
) -> Sft:
    """Tokenises, packs, and refuses what cannot be trained, within seconds.

    Args:
      run: the folder.
      base: the Hugging Face folder to start from.
      examples: to learn.
      config: what decides the outcome, together with `seed`.
      seed: of the order of the data.
      placement: where it is carried out.

    Raises:
      ValueError: there is nothing to train on, a mask is all ones or zeros, examples are too long
        and are not to be dropped, or mesh or attention do not suit model and rows.
      FileNotFoundError: a checkpoint that was asked for, or a file of the base, is missing.
    """
    run.check()
    placement = placement or Placement()
    mesh = make_mesh(placement.mesh)
    model_config = ModelConfig.load(base)
    check_weights(base)
    execution = placement.execution(config, model_config, mesh)
    sequence = _row_length(config, model_config)
    kept, too_long = _tokenized(run.name, base, examples, config, sequence)
    epochs = Epochs(kept, sequence, config.rows, config.epochs, seed)
    if not run.checkpoint_steps:
        run = dataclasses.replace(run, checkpoint_steps=max(20, epochs.steps // 10))
    optimizer = OptimizerConfig(
        learning_rate=config.learning_rate,
        total_steps=epochs.steps,
        warmup_steps=round(config.warmup_share * epochs.steps),
        schedule=config.schedule,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        moment_dtype=config.moment_dtype,
    )
    return Sft(run, base, model_config, epochs, optimizer, execution, mesh, len(kept), too_long)


def _row_length(config: SftConfig, model: ModelConfig) -> int:
    """A row's tokens: no more than the model's context."""
    return min(config.sequence, model.max_positions)


def _tokenized(
    name: str, base: pathlib.Path, examples: Sequence[Example], config: SftConfig, sequence: int
) -> tuple[list[TokenizedExample], int]:
    """Returns the examples that are trained on, and how many were too long."""
    if not examples:
        raise ValueError(f"{name}: there are no examples to train on.")
    tokenizer = Tokenizer(base)
    tokenized = []
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
    if jax.process_index() == 0:
        _show(tokenizer, name, kept[0])
    return kept, dropped


def _show(tokenizer: Tokenizer, name: str, example: TokenizedExample) -> None:
    """Prints an example as the model sees it, so that a wrong mask is seen before hours of it."""
    prompt = tokenizer.hf.decode(example.tokens[: example.prompt_length])
    target = tokenizer.hf.decode(example.tokens[example.prompt_length :])
    print(f"---- {name}: first example, masked part\n{prompt}\n---- learnt part\n{target}\n----")
