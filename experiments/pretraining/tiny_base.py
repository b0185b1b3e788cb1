"""Pretrains a tiny base: its tokenizer, then its weights, on stories solved and criticised."""

import dataclasses
import functools
import io
import itertools
import json
import os
import pathlib

import numpy as np
import sentencepiece

from experiments.pretraining.corpus import documents
from jaxcritique.config import Config, setting
from jaxcritique.errors import checking_input
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import save_pretrained
from jaxcritique.models.sharding import make_mesh
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import initialize
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.run_folder import claim, command
from jaxcritique.store import read_jsonl, replace_folder, write_atomically
from jaxcritique.training.data import Batch, Batches, Example, drop_too_long, pack, tokenize
from jaxcritique.training.loop import TrainingRun, train
from jaxcritique.training.step import Execution, OptimizerConfig, check_execution

_VOCABULARY = 768
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_BLOCK = 32  # Steps whose stories are generated and packed together.
_TOKENS_PER_DOCUMENT = 100  # At the least, on average: decides how many stories a block takes.


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig(Config):
    """Settings of the pretraining of a tiny base."""

    seed: int = setting(0, "Decides the stories and the initial weights.", low=0)
    dim: int = setting(192, "Width, a multiple of 64: one head for each 64.", low=64)
    layers: int = setting(5, "Transformer blocks.", low=1)
    steps: int = setting(1600, "Steps that the learning rate's cosine is laid out for.", low=1)
    stop_at: int = setting(
        1100, "Steps that are trained: a base trained to the end leaves no room.", low=1
    )
    rows: int = setting(
        18,
        "Rows of `sequence` tokens in a step: an even number, and a multiple of the devices.",
        low=2,
    )
    sequence: int = setting(512, "Tokens in a row.", low=32)
    learning_rate: float = setting(2e-3, "Peak learning rate; 5% warm-up, then cosine.", low=0)
    level_weights: tuple[float, ...] = setting(
        (45.0, 35.0, 15.0, 4.0, 1.0),
        "How often stories of levels 1 to 5 are solved. Long ones are rare: the base leaves room.",
        low=0,
    )

    def __post_init__(self) -> None:
        """Checks what no single field's bounds say."""
        super().__post_init__()
        if self.stop_at > self.steps:
            raise ValueError(f"`stop_at={self.stop_at}` must not be beyond `steps={self.steps}`.")
        if self.rows % 2:
            raise ValueError(f"`rows={self.rows}` must be even.")
        if self.dim % 64:
            raise ValueError(f"`dim={self.dim}` must be a multiple of 64, a head's width.")
        if len(self.level_weights) != 5 or not any(self.level_weights):
            raise ValueError("`level_weights`: give five numbers from 0, such as 45,35,15,4,1.")

    @property
    def model(self) -> ModelConfig:
        """A Llama whose MLP is 8/3 as wide as the model, rounded up to a multiple of 64."""
        return ModelConfig(
            vocab_size=_VOCABULARY,
            dim=self.dim,
            num_layers=self.layers,
            num_heads=self.dim // 64,
            num_kv_heads=1,
            head_dim=64,
            mlp_dim=-(-8 * self.dim // 3 // 64) * 64,
            max_positions=1024,
            tie_embeddings=True,
        )


def pretrain(config: PretrainConfig, run_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Pretrains a model; called again with the same folder, it resumes.

    Args:
      config: all settings.
      run_dir: gets tokenizer/, training/ (checkpoints, metrics) and tiny_base/.

    Returns:
      The model's Hugging Face folder, `run_dir`/tiny_base.

    Raises:
      InvalidInput: the devices do not suit the settings, or the folder is another run's.
    """
    run_dir = pathlib.Path(run_dir)
    with checking_input():
        mesh, model = make_mesh(), config.model
        execution = Execution(micro_rows=max(2, mesh.size))
        check_execution(model, mesh, execution, config.rows, config.sequence)
        claim(run_dir, "pretrain_tiny", config.to_json())
    tokenizer_folder = run_dir / "tokenizer"
    if not tokenizer_folder.exists():
        with replace_folder(tokenizer_folder) as folder:
            _train_tokenizer(folder, config)
    trained = train(
        TrainingRun(
            name="pretraining",
            config=model,
            initial=lambda: initialize(model, config.seed, mesh),
            batches=_batches(config, Tokenizer(tokenizer_folder)),
            optimizer=OptimizerConfig(
                learning_rate=config.learning_rate,
                total_steps=config.steps,
                warmup_steps=config.steps // 20,
                weight_decay=0.1,
                b2=0.95,
            ),
            execution=execution,
            mesh=mesh,
            folder=run_dir / "training",
            checkpoint_steps=50,
            stop_at=config.stop_at,
        )
    )
    output = run_dir / "tiny_base"
    save_pretrained(output, trained.model, tokenizer_folder, dtype=np.float16)
    COMPACT.write(output)
    record = {
        "command": command(),
        **config.to_json(),
        "parameters": model.num_parameters,
        **_cost(run_dir / "training" / "metrics.jsonl"),
    }
    write_atomically(output / "pretraining.json", json.dumps(record, indent=2) + "\n")
    return output


def _batches(config: PretrainConfig, tokenizer: Tokenizer) -> Batches:
    """Packed stories; each block of steps has stories of its own."""

    @functools.lru_cache(maxsize=1)
    def block(index: int) -> Batch:
        rows = _BLOCK * config.rows
        count = rows * config.sequence // _TOKENS_PER_DOCUMENT
        stories = documents(COMPACT, (config.seed << 20) + index, config.level_weights)
        examples = (Example(*story) for story in itertools.islice(stories, count))
        fitting, _ = drop_too_long([tokenize(tokenizer, e) for e in examples], config.sequence)
        batch = pack(fitting, config.sequence)
        if len(batch.tokens) < rows:
            raise ValueError(f"{count} stories fill only {len(batch.tokens)} of {rows} rows")
        return Batch(*(array[:rows] for array in batch))

    def build(step: int, rows: slice) -> Batch:
        start = step % _BLOCK * config.rows
        return Batch(*(array[start:][rows] for array in block(step // _BLOCK)))

    return Batches(config.rows, config.sequence, build)


def _cost(metrics: pathlib.Path) -> dict[str, int]:
    """Tokens and seconds of all steps, whatever number of starts they took."""
    rows = [row for _, row in read_jsonl(metrics, dict)]
    seconds = sum(row["tokens"] / row["tokens_per_second"] for row in rows)
    return {"tokens": sum(row["tokens"] for row in rows), "seconds": round(seconds)}


def _train_tokenizer(folder: pathlib.Path, config: PretrainConfig) -> None:
    """Trains a sentencepiece model on the corpus; bytes cover what the corpus does not hold."""
    from transformers import AutoTokenizer  # Wrong settings need not wait for it.

    stories = itertools.islice(documents(COMPACT, config.seed, config.level_weights), 8_000)
    texts = (text for messages, reply in stories for text in [messages[-1]["content"], reply])
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=_VOCABULARY,
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        user_defined_symbols=["<|user|>", "<|assistant|>", "\n", "<<", ">>"],
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE)
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": False,
        "add_prefix_space": False,
        "legacy": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    AutoTokenizer.from_pretrained(str(folder)).save_pretrained(str(folder))  # tokenizer.json
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(ends) + "\n")
