"""What all tests stand on: JAX on the CPU, our own warnings as errors, one tiny model."""

import io
import json
import os
import pathlib
import shutil
from collections.abc import Callable

import jaxtyping
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Before these are imported: calls in tests are checked against the annotations of all that computes
# with arrays.
_ROLLOUT = ("decoding", "jax_engine", "sampling")
jaxtyping.install_import_hook(
    ["jaxcritique.models", "jaxcritique.training"]
    + [f"jaxcritique.rollout.{module}" for module in _ROLLOUT],
    "typechecking.checked",
)
ROOT = pathlib.Path(__file__).resolve().parents[1]
STORIES = ROOT.parent / "shared" / "models" / "stories260k"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error:::jaxcritique")


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory) -> pathlib.Path:
    """A folder in which what one test or program compiled is found by all others."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"


@pytest.fixture(scope="session", autouse=True)
def compile_once(compilation_cache) -> None:
    """Compiles the same computation once, however many tests and programs make it anew."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(scope="session")
def program_environment(compilation_cache, tmp_path_factory) -> dict[str, str]:
    """The environment for programs of this checkout: a user's, who has no torch.

    Libraries import it where they find it, which takes seconds of each start.
    """
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text('import sys\n\nsys.modules["torch"] = None\n')
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{site}",
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


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
    """A model with weights large enough to matter."""
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
    rng = np.random.default_rng(0)
    draw = lambda x: 0.3 * rng.standard_normal(x.shape, np.float32)  # noqa: E731
    return jax.tree.map(draw, abstract(config))


@pytest.fixture(scope="session")
def stories():
    """The 260,032 weights of stories260K.bin in a torch model."""
    if not STORIES.is_dir():
        pytest.skip(f"{STORIES} is not beside this checkout")
    import numpy as np
    import torch
    import transformers

    raw = (STORIES / "stories260K.bin").read_bytes()
    dim, mlp, layers, heads, kv_heads, vocab, positions = np.frombuffer(raw, np.int32, 7).tolist()
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=vocab,
            hidden_size=dim,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=positions,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        )
    )
    floats = torch.from_numpy(np.frombuffer(raw, np.float32, offset=28).copy())

    def fill(*parameters: torch.nn.Parameter, rotary_heads: int = 0) -> None:
        nonlocal floats
        for parameter in parameters:
            values, floats = floats[: parameter.numel()], floats[parameter.numel() :]
            if rotary_heads:  # llama2.c rotates neighbours, transformers halves of a head.
                values = values.reshape(rotary_heads, -1, 2, dim).transpose(1, 2)
            parameter.data = values.reshape(parameter.shape).clone()

    blocks = model.model.layers
    fill(model.model.embed_tokens.weight)
    fill(*(block.input_layernorm.weight for block in blocks))
    fill(*(block.self_attn.q_proj.weight for block in blocks), rotary_heads=heads)
    fill(*(block.self_attn.k_proj.weight for block in blocks), rotary_heads=kv_heads)
    fill(*(block.self_attn.v_proj.weight for block in blocks))
    fill(*(block.self_attn.o_proj.weight for block in blocks))
    fill(*(block.post_attention_layernorm.weight for block in blocks))
    fill(*(block.mlp.gate_proj.weight for block in blocks))
    fill(*(block.mlp.down_proj.weight for block in blocks))
    fill(*(block.mlp.up_proj.weight for block in blocks))
    fill(model.model.norm.weight)
    assert len(floats) == positions * dim // heads  # What is left are llama2.c's rotary tables.
    model.tie_weights()
    return model.eval()


@pytest.fixture(scope="session")
def stories_folder(stories, tmp_path_factory) -> pathlib.Path:
    """stories260K as a Hugging Face folder, its tokenizer included."""
    folder = tmp_path_factory.mktemp("stories260k")
    stories.save_pretrained(folder)
    shutil.copy(STORIES / "tok512.model", folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}'
    )
    return folder
