"""Trains the tiny base that ships with the package: its tokenizer, then its weights.

    python -m experiments.pretrain_tiny --run_dir=runs/tiny_base

Kill it at any time and run the same command again: it goes on from its newest checkpoint.
"""

import functools
import io
import itertools
import json
import math
import pathlib

import numpy as np
import sentencepiece
from absl import flags

from experiments.program import claim, command, refusing_bad_input, run, settings_but
from jaxcritique.critiques.corpus import documents
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import save_pretrained
from jaxcritique.models.sharding import make_mesh
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import initialize
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.store import replace_folder, write_atomically
from jaxcritique.training.data import Batch, Batches, Example, drop_too_long, pack, tokenize
from jaxcritique.training.loop import TrainingRun, train
from jaxcritique.training.step import Execution, OptimizerConfig, check_execution

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Where everything goes.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Decides the stories and the initial weights.")
_STEPS = flags.DEFINE_integer(
    "steps", 1600, "Training steps the rate's cosine is laid out for.", lower_bound=1
)
_STOP_AT = flags.DEFINE_integer(
    "stop_at",
    1100,
    "Steps actually trained: a base trained to the end leaves no room.",
    lower_bound=1,
)
_ROWS = flags.DEFINE_integer(
    "rows",
    18,
    "Rows of --sequence tokens in a step: an even number, and a multiple of the devices.",
    lower_bound=1,
)
_SEQUENCE = flags.DEFINE_integer("sequence", 512, "Tokens in a row.", lower_bound=32)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 2e-3, "Peak rate; 5% warm-up, then cosine.")
_LEVEL_WEIGHTS = flags.DEFINE_list(
    "level_weights",
    ["45", "35", "15", "4", "1"],
    "How often stories of levels 1 to 5 are solved. Long ones are rare: the base leaves room.",
)

_DIM = flags.DEFINE_integer(
    "dim", 192, "Width, a multiple of 64: one head for each 64.", lower_bound=64
)
_LAYERS = flags.DEFINE_integer("layers", 5, "Transformer blocks.", lower_bound=1)
flags.register_validator("rows", lambda rows: rows % 2 == 0, message="--rows must be even.")
flags.register_validator(
    "dim", lambda dim: dim % 64 == 0, message="--dim must be a multiple of 64, a head's width."
)

_VOCABULARY = 768
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_BLOCK = 32  # Steps whose stories are generated and packed together.
_TOKENS_PER_DOCUMENT = 100  # At the least, on average: decides how many stories a block takes.


def main(_: list[str]) -> None:
    """Runs the program."""
    run_dir = pathlib.Path(_RUN_DIR.value)
    with refusing_bad_input():
        weights = _level_weights()
        if _STOP_AT.value > _STEPS.value:
            raise ValueError("--stop_at must not be beyond --steps.")
        mesh, config = make_mesh(), _config(_DIM.value, _LAYERS.value)
        execution = Execution(micro_rows=max(2, mesh.size))
        check_execution(config, mesh, execution, _ROWS.value, _SEQUENCE.value)
        claim(run_dir, settings_but(["run_dir"]))

    # ---- tokenizer
    tokenizer_folder = run_dir / "tokenizer"
    if not tokenizer_folder.exists():
        with replace_folder(tokenizer_folder) as folder:
            _train_tokenizer(folder, weights)
    tokenizer = Tokenizer(tokenizer_folder)

    # ---- data: each block of steps has stories of its own
    @functools.lru_cache(maxsize=1)
    def block(index: int) -> Batch:
        rows = _BLOCK * _ROWS.value
        count = rows * _SEQUENCE.value // _TOKENS_PER_DOCUMENT
        stories = documents(COMPACT, (_SEED.value << 20) + index, weights)
        examples = (Example(*story) for story in itertools.islice(stories, count))
        fitting, _ = drop_too_long((tokenize(tokenizer, e) for e in examples), _SEQUENCE.value)
        batch = pack(fitting, _SEQUENCE.value)
        if len(batch.tokens) < rows:
            raise ValueError(f"{count} stories fill only {len(batch.tokens)} of {rows} rows")
        return Batch(*(array[:rows] for array in batch))

    def build(step: int, rows: slice) -> Batch:
        start = step % _BLOCK * _ROWS.value
        return Batch(*(array[start:][rows] for array in block(step // _BLOCK)))

    # ---- train
    trained = train(
        TrainingRun(
            name="pretraining",
            config=config,
            initial=lambda: initialize(config, _SEED.value, mesh),
            batches=Batches(_ROWS.value, _SEQUENCE.value, build),
            optimizer=OptimizerConfig(
                learning_rate=_LEARNING_RATE.value,
                total_steps=_STEPS.value,
                warmup_steps=_STEPS.value // 20,
                weight_decay=0.1,
                b2=0.95,
            ),
            execution=execution,
            mesh=mesh,
            folder=run_dir / "training",
            checkpoint_steps=50,
            stop_at=_STOP_AT.value,
        )
    )

    # ---- export
    output = run_dir / "tiny_base"
    save_pretrained(output, trained.model, tokenizer_folder, dtype=np.float16)
    record = {
        "command": command(),
        "seed": _SEED.value,
        "dim": _DIM.value,
        "layers": _LAYERS.value,
        "parameters": config.num_parameters,
        "steps": _STEPS.value,
        "stop_at": _STOP_AT.value,
        "rows": _ROWS.value,
        "sequence": _SEQUENCE.value,
        "learning_rate": _LEARNING_RATE.value,
        "level_weights": weights,
        **_cost(run_dir / "training" / "metrics.jsonl"),
    }
    write_atomically(output / "pretraining.json", json.dumps(record, indent=2) + "\n")
    print(output)


def _level_weights() -> list[float]:
    """Reads --level_weights.

    Raises:
      ValueError: it is not five numbers from 0, one of them above.
    """
    try:
        weights = [float(weight) for weight in _LEVEL_WEIGHTS.value]
    except ValueError:
        weights = []
    if len(weights) != 5 or not 0 <= min(weights) <= sum(weights) < math.inf or not sum(weights):
        raise ValueError(
            f"--level_weights={','.join(_LEVEL_WEIGHTS.value)}: give five numbers from 0, such as "
            "45,35,15,4,1."
        )
    return weights


def _config(dim: int, layers: int) -> ModelConfig:
    """A Llama whose MLP is 8/3 as wide as the model, rounded up to a multiple of 64."""
    return ModelConfig(
        vocab_size=_VOCABULARY,
        dim=dim,
        num_layers=layers,
        num_heads=dim // 64,
        num_kv_heads=1,
        head_dim=64,
        mlp_dim=-(-8 * dim // 3 // 64) * 64,
        max_positions=1024,
        tie_embeddings=True,
    )


def _cost(metrics: pathlib.Path) -> dict[str, int]:
    """Tokens and seconds of all steps, whatever number of starts they took."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    seconds = sum(row["tokens"] / row["tokens_per_second"] for row in rows)
    return {"tokens": sum(row["tokens"] for row in rows), "seconds": round(seconds)}


def _train_tokenizer(folder: pathlib.Path, weights: list[float]) -> None:
    """Trains a sentencepiece model on the corpus; bytes cover what the corpus does not hold."""
    from transformers import AutoTokenizer  # Wrong flags need not wait for it.

    stories = itertools.islice(documents(COMPACT, _SEED.value, weights), 8_000)
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


if __name__ == "__main__":
    run(main)
