"""What all tests stand on: JAX on the CPU, our own warnings as errors, one tiny model."""

import io
import json
import os
import pathlib
from collections.abc import Callable

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error:::jaxcritique")


@pytest.fixture(scope="session")
def make_tokenizer(tmp_path_factory) -> Callable[[str | None], pathlib.Path]:
    """Returns a function: chat template (None: without one) -> a folder with a tiny tokenizer."""
    import sentencepiece

    text = "Tom has 12 apples and eats 5 of them. The answer is 7."
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text]),
        model_writer=model,
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        user_defined_symbols=["<|user|>", "<|assistant|>", "\n"],
        minloglevel=2,
    )
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": False,
        "add_prefix_space": False,
        "legacy": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }

    def make(chat_template: str | None) -> pathlib.Path:
        folder = tmp_path_factory.mktemp("tokenizer")
        (folder / "tokenizer.model").write_bytes(model.getvalue())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        (folder / "config.json").write_text('{"bos_token_id": 1, "eos_token_id": 2}')
        if chat_template is not None:
            (folder / "chat_template.jinja").write_text(chat_template)
        return folder

    return make


@pytest.fixture(scope="session")
def tokenizer_folder(make_tokenizer) -> pathlib.Path:
    return make_tokenizer(CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def tiny():
    """The config, structure and parameters of a model with weights large enough to matter."""
    import jax
    import numpy as np

    from jaxcritique.models.config import ModelConfig
    from jaxcritique.models.transformer import abstract

    config = ModelConfig(
        vocab_size=48,
        dim=16,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=24,
        max_positions=512,
    )
    structure, shapes = abstract(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), shapes)
    return config, structure, params
