"""The transformer computes what `transformers` computes, whatever config.json says."""

import os
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxcritique.models.huggingface import load_pretrained
from jaxcritique.models.tokenizer import Tokenizer

TOLERANCE = 1e-4


def rope(theta: float = 10_000.0, **scaling: float) -> dict:
    kind = "llama3" if scaling else "default"
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **scaling}}


LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
FAMILIES = ("llama", "qwen2", "qwen3")
# What a config may say -> (fields that say so, the fields without it).
FIELDS = {
    "rms_norm_eps": ({"rms_norm_eps": 0.5}, {}),
    "rope_theta": (rope(theta=100.0), {}),
    "rope_scaling": (rope(**LLAMA3), {}),
    **{
        field: (rope(**{**LLAMA3, field: value}), rope(**LLAMA3))
        for field, value in {
            "factor": 2.0,
            "low_freq_factor": 0.1,
            "high_freq_factor": 16.0,
            "original_max_position_embeddings": 64,
        }.items()
    },
    "vocab_size": ({"vocab_size": 101}, {}),
    "hidden_size": ({"hidden_size": 40}, {}),
    "num_hidden_layers": ({"num_hidden_layers": 3}, {}),
    "num_attention_heads": ({"num_attention_heads": 8}, {}),
    "num_key_value_heads": ({"num_key_value_heads": 1}, {}),
    "head_dim": ({"head_dim": 12}, {}),
    "intermediate_size": ({"intermediate_size": 50}, {}),
    "tie_word_embeddings": ({"tie_word_embeddings": True}, {}),
    "model_type": ({}, None),  # Biases of Qwen2, norms of Qwen3: no Llama's weights.
}


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, dict[str, float]]]:
    """Family -> field -> maximal difference of logits; printed at the end (see it with -s)."""
    found = {family: {} for family in FAMILIES}
    yield found
    print(f"\n{'max difference of logits':32}" + "".join(f"{family:>10}" for family in found))
    for field in FIELDS:
        row = "".join(f"{found[family].get(field, float('nan')):10.1e}" for family in found)
        print(f"{field:32}{row}")


@jax.jit
def our_logits(model, tokens, positions, segments):
    return model.logits(model.hidden(tokens, positions, segments))


def causal_logits(model, tokens: np.ndarray) -> np.ndarray:
    b, s = tokens.shape
    positions = np.broadcast_to(np.arange(s), (b, s))
    return our_logits(model, tokens, positions, np.ones_like(tokens))


@torch.no_grad()
def their_logits(model: transformers.PreTrainedModel, tokens: np.ndarray, **inputs) -> np.ndarray:
    return model(torch.tensor(tokens), **inputs).logits.numpy()


def draw_tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 96, shape)


def matters(model: transformers.PreTrainedModel, other: transformers.PreTrainedModel) -> bool:
    """Whether the weights mean something else under the other model's config, or do not fit it."""
    try:
        other.load_state_dict(model.state_dict())
    except RuntimeError:
        return True
    tokens = draw_tokens(1, 300)
    return np.abs(their_logits(model, tokens) - their_logits(other, tokens)).max() > 1e-2


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES[1:])]
)
def test_config_field(family, field, table, make_hf_model, tmp_path):
    fields, unperturbed = FIELDS[field]
    model = make_hf_model(family, **fields)
    model.save_pretrained(tmp_path)
    tokens = draw_tokens(1, 300)  # More than two chunks of attention.
    ours = load_pretrained(tmp_path)
    ours, theirs = causal_logits(ours, tokens), their_logits(model, tokens)
    table[family][field] = float(np.abs(ours - theirs).max())
    assert table[family][field] < TOLERANCE
    if field == "tie_word_embeddings":
        return  # Saved tied weights have no head of their own: ignoring the field cannot go unseen.
    if unperturbed is None:
        others = [make_hf_model(other) for other in FAMILIES if other != family]
    else:
        others = [make_hf_model(family, **unperturbed)]
    assert all(matters(model, other) for other in others)


@pytest.mark.parametrize("length", [1, 5, 128, 130])
def test_length(length, make_hf_model, tmp_path):
    model = make_hf_model("llama")
    model.save_pretrained(tmp_path)
    tokens = draw_tokens(2, length)
    ours = load_pretrained(tmp_path)
    ours, theirs = causal_logits(ours, tokens), their_logits(model, tokens)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(side, make_hf_model, tmp_path):
    model = make_hf_model("llama")
    model.save_pretrained(tmp_path)
    tokens = draw_tokens(2, 7)
    real = np.ones((2, 7), bool)
    real[1, slice(0, 3) if side == "left" else slice(4, 7)] = False
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0)
    theirs = their_logits(
        model,
        tokens,
        attention_mask=torch.tensor(real.astype(int)),
        position_ids=torch.tensor(positions),
    )
    ours = load_pretrained(tmp_path)
    ours = our_logits(ours, tokens, positions, real.astype(int))
    np.testing.assert_allclose(ours[real], theirs[real], atol=TOLERANCE)


def test_stories_logits(stories, stories_folder):
    ours = load_pretrained(stories_folder)
    tokens = np.random.default_rng(2).integers(0, 512, (2, 300))
    ours, theirs = causal_logits(ours, tokens), their_logits(stories, tokens)
    difference = np.abs(ours - theirs).max()
    print(f"\nstories260K: max difference of logits {difference:.1e}")
    assert difference < TOLERANCE


def test_stories_tells_the_same_story(stories, stories_folder):
    decoder = load_pretrained(stories_folder).unstacked()
    config = decoder.config
    prompt, count = np.array([[1]]), 64
    theirs = stories.generate(torch.tensor(prompt), max_new_tokens=count, do_sample=False)
    shape = (1, config.num_kv_heads, count, config.head_dim)

    def story(model):

        def next_token(carry, position):
            token, cache = carry
            hidden, cache = model.extend(token, position[None, None], cache)
            token = model.logits(hidden).argmax(-1)
            return (token, cache), token[0, 0]

        cache = tuple((jnp.zeros(shape),) * 2 for _ in range(config.num_layers))
        return jax.lax.scan(next_token, (prompt, cache), jnp.arange(count))[1]

    ours = jax.jit(story)(decoder).tolist()
    assert ours == theirs[0, 1:].tolist()
    text = Tokenizer(stories_folder).decode(ours)
    assert text.startswith("Once upon a time, there was a little girl named Lily.")


@pytest.fixture(scope="module")
def smollm2() -> pathlib.Path:
    """The folder of the real SmolLM2-135M-Instruct."""
    if "JAXCRITIQUE_SMOLLM2" not in os.environ:
        pytest.skip("JAXCRITIQUE_SMOLLM2 does not name a folder of SmolLM2-135M-Instruct")
    return pathlib.Path(os.environ["JAXCRITIQUE_SMOLLM2"])


def test_real_weights(smollm2):
    """Logits of 512 real tokens, and 64 greedy ones, of SmolLM2-135M-Instruct."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    loaded = load_pretrained(smollm2)
    tokenizer = Tokenizer(smollm2)
    text = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text()
    tokens = np.array([tokenizer.encode(text)[:512]])
    assert tokens.shape == (1, 512)
    ours, theirs = causal_logits(loaded, tokens), their_logits(model, tokens)
    difference = np.abs(ours - theirs).max()
    print(f"\nSmolLM2, 512 tokens: max difference of logits {difference:.1e} "
          f"(logits to {np.abs(theirs).max():.1f})")  # fmt: skip
    assert difference < 1e-3

    question = "What do you do when 17 eggs are shared out among 5 people? Explain each step."
    prompt = tokenizer.encode(tokenizer.prompt([{"role": "user", "content": question}]))
    with torch.no_grad():
        written = model.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False)
    assert written.shape[1] == len(prompt) + 64
    # Choosing their next token after each of their beginnings is writing what they write.
    tokens[0, : written.shape[1]] = written[0].numpy()
    chosen = causal_logits(loaded, tokens)[0].argmax(-1)
    assert chosen[len(prompt) - 1 :][:64].tolist() == written[0, len(prompt) :].tolist()
    print(f"SmolLM2, 64 greedy tokens: {tokenizer.hf.decode(written[0, len(prompt) :])!r}")
