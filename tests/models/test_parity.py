"""The transformer computes what `transformers` computes, whatever config.json says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jaxcritique.models.huggingface import load_pretrained
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import join, unstack

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
# (family, fields, the fields without the perturbation)
CASES = {
    "llama-rms_norm_eps": ("llama", {"rms_norm_eps": 0.5}, {}),
    "llama-rope_theta": ("llama", rope(theta=100.0), {}),
    "llama-rope_scaling": ("llama", rope(**LLAMA3), {}),
    **{
        f"llama-{field}": ("llama", rope(**{**LLAMA3, field: value}), rope(**LLAMA3))
        for field, value in {
            "factor": 2.0,
            "low_freq_factor": 0.1,
            "high_freq_factor": 16.0,
            "original_max_position_embeddings": 64,
        }.items()
    },
    "llama-vocab_size": ("llama", {"vocab_size": 101}, {}),
    "llama-hidden_size": ("llama", {"hidden_size": 40}, {}),
    "llama-num_hidden_layers": ("llama", {"num_hidden_layers": 3}, {}),
    "llama-num_attention_heads": ("llama", {"num_attention_heads": 8}, {}),
    "llama-num_key_value_heads": ("llama", {"num_key_value_heads": 1}, {}),
    "llama-head_dim": ("llama", {"head_dim": 12}, {}),
    "llama-intermediate_size": ("llama", {"intermediate_size": 50}, {}),
    "llama-tie_word_embeddings": ("llama", {"tie_word_embeddings": True}, {}),
    "qwen2-qkv_bias": ("qwen2", {}, None),
    "qwen2-rms_norm_eps": ("qwen2", {"rms_norm_eps": 0.5}, {}),
    "qwen2-rope_theta": ("qwen2", rope(theta=100.0), {}),
    "qwen2-num_key_value_heads": ("qwen2", {"num_key_value_heads": 4}, {}),
    "qwen2-tie_word_embeddings": ("qwen2", {"tie_word_embeddings": True}, {}),
    "qwen3-qk_norm": ("qwen3", {}, None),
    "qwen3-rms_norm_eps": ("qwen3", {"rms_norm_eps": 0.5}, {}),
    "qwen3-rope_theta": ("qwen3", rope(theta=100.0), {}),
    "qwen3-head_dim": ("qwen3", {"head_dim": 12}, {}),
    "qwen3-tie_word_embeddings": ("qwen3", {"tie_word_embeddings": True}, {}),
}


@functools.partial(jax.jit, static_argnums=0)
def our_logits(structure, params, tokens, positions, segments):
    model = join(structure, params)
    return model.logits(model.hidden(tokens, positions, segments))


def causal_logits(structure, params, tokens: np.ndarray) -> np.ndarray:
    b, s = tokens.shape
    positions = np.broadcast_to(np.arange(s), (b, s))
    return our_logits(structure, params, tokens, positions, np.ones_like(tokens))


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


@pytest.mark.parametrize("case", CASES)
def test_config_field(case, make_hf_model, tmp_path, record_testsuite_property):
    family, fields, unperturbed = CASES[case]
    model = make_hf_model(family, **fields)
    model.save_pretrained(tmp_path)
    tokens = draw_tokens(1, 300)  # More than two chunks of attention.
    _, structure, params = load_pretrained(tmp_path)
    ours, theirs = causal_logits(structure, params, tokens), their_logits(model, tokens)
    difference = float(np.abs(ours - theirs).max())
    record_testsuite_property(f"max difference of {case}", difference)
    assert difference < TOLERANCE
    other = "llama" if unperturbed is None else family
    # Saved tied weights have no head of their own, so that ignoring the field cannot go unseen.
    assert fields.get("tie_word_embeddings") or matters(
        model, make_hf_model(other, **(unperturbed or {}))
    )


@pytest.mark.parametrize("length", [1, 5, 128, 130])
def test_length(length, make_hf_model, tmp_path):
    model = make_hf_model("llama")
    model.save_pretrained(tmp_path)
    tokens = draw_tokens(2, length)
    _, structure, params = load_pretrained(tmp_path)
    ours, theirs = causal_logits(structure, params, tokens), their_logits(model, tokens)
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
    _, structure, params = load_pretrained(tmp_path)
    ours = our_logits(structure, params, tokens, positions, real.astype(int))
    np.testing.assert_allclose(ours[real], theirs[real], atol=TOLERANCE)


def test_stories_logits(stories, stories_folder, record_testsuite_property):
    _, structure, params = load_pretrained(stories_folder)
    tokens = np.random.default_rng(2).integers(0, 512, (2, 300))
    ours, theirs = causal_logits(structure, params, tokens), their_logits(stories, tokens)
    difference = float(np.abs(ours - theirs).max())
    record_testsuite_property("max difference of stories260K", difference)
    assert difference < TOLERANCE


def test_stories_tells_the_same_story(stories, stories_folder):
    config, structure, params = load_pretrained(stories_folder)
    structure, params = unstack(structure, params)
    prompt, count = np.array([[1]]), 64
    theirs = stories.generate(torch.tensor(prompt), max_new_tokens=count, do_sample=False)
    shape = (1, config.num_kv_heads, count, config.head_dim)

    def story(params):
        model = join(structure, params)

        def next_token(carry, position):
            token, cache = carry
            hidden, cache = model.extend(token, position[None, None], cache)
            token = model.logits(hidden).argmax(-1)
            return (token, cache), token[0, 0]

        cache = tuple((jnp.zeros(shape),) * 2 for _ in range(config.num_layers))
        return jax.lax.scan(next_token, (prompt, cache), jnp.arange(count))[1]

    ours = jax.jit(story)(params).tolist()
    assert ours == theirs[0, 1:].tolist()
    text = Tokenizer(stories_folder).decode(ours)
    assert text.startswith("Once upon a time, there was a little girl named Lily.")
