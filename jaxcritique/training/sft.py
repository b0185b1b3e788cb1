"""Supervised fine-tuning as a stage (equations 1 and 2), the same for actor and critic."""

import dataclasses
import shutil
import time
from collections.abc import Sequence

import numpy as np
from absl import logging

from jaxcritique.models.huggingface import ModelFolder, load_pretrained, save_pretrained
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.records import digest
from jaxcritique.store import Store
from jaxcritique.training.data import (
    Batch,
    Example,
    TokenizedExample,
    drop_too_long,
    epoch_order,
    pack,
    tokenize,
)
from jaxcritique.training.loop import train
from jaxcritique.training.step import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class SftConfig:
    """Settings of one fine-tuning."""

    learning_rate: float
    epochs: int
    rows: int  # Packed rows in a step.
    sequence: int  # Tokens in a row.
    micro_rows: int  # Rows worked on at a time; divides `rows`.
    weight_decay: float = 0.0


def fine_tune(
    store: Store,
    name: str,
    base: ModelFolder,
    examples: Sequence[Example],
    config: SftConfig,
    seed: int,
) -> ModelFolder:
    """Fine-tunes `base` on the examples; returns the Hugging Face folder of the result.

    The order of the data is a pure function of the seed and the epoch. Killed and called again,
    it goes on from its newest checkpoint.

    Raises:
      ValueError: there is nothing to train on, or no example fits into a row.
    """
    stage = store.stage(name, base.key, config, seed, digest([*map(dataclasses.asdict, examples)]))
    model = ModelFolder(stage.folder / "model", stage.key)
    if stage.finished:
        return model
    if not examples:
        raise ValueError(f"{name}: there are no examples to train on.")
    started = time.monotonic()
    model_config, structure, params = load_pretrained(base.folder)
    tokenizer = Tokenizer(base.folder)
    tokenized = [tokenize(tokenizer, example) for example in examples]
    sequence = min(config.sequence, model_config.max_positions)
    kept, dropped = drop_too_long(tokenized, sequence)
    if not kept:
        raise ValueError(f"{name}: no example fits --sequence={sequence}; it must be larger.")
    if dropped:
        logging.warning("%s: %d of %d examples exceed %d tokens and are left out",
                        name, dropped, len(examples), sequence)  # fmt: skip
    _show(tokenizer, name, kept[0])

    epochs = [
        pack([kept[i] for i in epoch_order(len(kept), seed, epoch)], sequence)
        for epoch in range(config.epochs)
    ]
    batches = [batch for epoch in epochs for batch in _batches(epoch, config.rows)]
    params = train(
        structure,
        params,
        lambda step: batches[step],
        OptimizerConfig(
            learning_rate=config.learning_rate,
            total_steps=len(batches),
            weight_decay=config.weight_decay,
        ),
        micro_rows=config.micro_rows,
        folder=stage.folder,
        checkpoint_steps=max(20, len(batches) // 10),
        name=name,
    )
    save_pretrained(model.folder, model_config, params, base.folder)
    stage.finish(
        examples=len(kept),
        too_long=dropped,
        steps=len(batches),
        seconds=round(time.monotonic() - started, 1),
    )
    shutil.rmtree(stage.folder / "checkpoints", ignore_errors=True)  # The model has all of them.
    return model


def _batches(packed: Batch, rows: int) -> list[Batch]:
    """Cuts an epoch into steps; the last is filled up with rows that weigh nothing."""
    missing = -len(packed.tokens) % rows
    filled = Batch(*(np.pad(array, ((0, missing), (0, 0))) for array in packed))
    count = len(filled.tokens) // rows
    return [Batch(*(array[i * rows : (i + 1) * rows] for array in filled)) for i in range(count)]


def _show(tokenizer: Tokenizer, name: str, example: TokenizedExample) -> None:
    """Prints an example as the model sees it, so that a wrong mask is seen before hours of it."""
    prompt = tokenizer.hf.decode(example.tokens[: example.prompt_length])
    target = tokenizer.hf.decode(example.tokens[example.prompt_length :])
    print(f"---- {name}: first example, masked part\n{prompt}\n---- learnt part\n{target}\n----")
