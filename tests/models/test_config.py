import json

import pytest
import transformers

from jaxcritique.models.config import ModelConfig, RopeScaling

LLAMA3_SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA_31_8B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {**LLAMA3_SCALING, "rope_type": "llama3"},
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0",
    "use_cache": True,
    "vocab_size": 128256,
}
SMOLLM2_135M = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
QWEN25_15B = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "max_position_embeddings": 131072,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3_06B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}


@pytest.mark.parametrize(
    ("published", "parameters"),
    [
        (LLAMA_31_8B, 8_030_261_248),
        (SMOLLM2_135M, 134_515_008),
        (QWEN25_15B, 1_543_714_304),
        (QWEN3_06B, 596_049_920),
    ],
    ids=["llama-3.1-8b", "smollm2-135m", "qwen2.5-1.5b", "qwen3-0.6b"],
)
def test_published_configs(published, parameters):
    config = ModelConfig.from_hf(published)
    assert config.num_parameters == parameters
    assert ModelConfig.from_hf(config.to_hf()) == config


def test_llama3_scaling_is_the_same_from_transformers_4_and_5():
    config = ModelConfig.from_hf(LLAMA_31_8B)
    assert config.rope_theta == 500_000
    assert config.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)
    newer = dict(LLAMA_31_8B)
    scaling = newer.pop("rope_scaling")
    newer["rope_parameters"] = {**scaling, "rope_theta": newer.pop("rope_theta")}
    assert ModelConfig.from_hf(newer) == config


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("field", ["num_key_value_heads", "head_dim", "rms_norm_eps"])
def test_missing_field_means_what_it_means_to_transformers(family, field):
    fields = {k: v for k, v in QWEN3_06B.items() if k not in ("model_type", field)}
    fields["num_attention_heads"] = 64
    theirs = transformers.AutoConfig.for_model(family, **fields)
    ours = ModelConfig.from_hf({**fields, "model_type": family}).to_hf()
    assert ours[field] == getattr(theirs, field, fields["hidden_size"] // 64)


def test_every_head_has_its_own_keys_unless_told_otherwise():
    published = {k: v for k, v in LLAMA_31_8B.items() if k != "num_key_value_heads"}
    assert ModelConfig.from_hf(published).num_kv_heads == 32


@pytest.mark.parametrize(
    ("published", "field", "value"),
    [
        (LLAMA_31_8B, "mlp_bias", True),
        (LLAMA_31_8B, "attention_bias", True),
        (LLAMA_31_8B, "hidden_act", "gelu"),
        (LLAMA_31_8B, "quantization_config", {"bits": 4}),
        (SMOLLM2_135M, "rope_interleaved", True),
        (QWEN25_15B, "use_sliding_window", True),
        (QWEN25_15B, "use_mrope", True),
        (QWEN25_15B, "layer_types", ["full_attention", "sliding_attention"]),
        (QWEN3_06B, "attention_bias", True),
        (QWEN3_06B, "a_field_of_tomorrow", 1),
        (QWEN3_06B, "hidden_size", "1024"),
        (QWEN3_06B, "num_hidden_layers", 0),
        (QWEN3_06B, "num_key_value_heads", 5),
        (QWEN3_06B, "head_dim", 127),
    ],
)
def test_unsupported_field_is_refused_by_name(published, field, value):
    with pytest.raises(ValueError, match=f"{field}=.* is not supported"):
        ModelConfig.from_hf({**published, field: value})


@pytest.mark.parametrize(
    "noted",
    [
        {"unsloth_version": "2026.1", "unsloth_fixed": True},
        {"axolotl_config": {"base": "x"}},
        {"_commit_hash": "abc"},
        {"quantization_config": {}},
        {"quantization_config": None},
    ],
)
def test_what_other_tools_note_is_ignored(noted, caplog):
    assert ModelConfig.from_hf(LLAMA_31_8B | noted) == ModelConfig.from_hf(LLAMA_31_8B)
    assert all(name in caplog.text for name in noted if name != "quantization_config")


@pytest.mark.parametrize("family", ["gpt2", "qwen3_moe", "mistral", None])
def test_unsupported_architecture_is_refused_by_name(family):
    with pytest.raises(ValueError, match=f"model_type {family!r} is not supported"):
        ModelConfig.from_hf({**LLAMA_31_8B, "model_type": family})


@pytest.mark.parametrize("key", ["rope_type", "type"])
@pytest.mark.parametrize(
    ("kind", "scaling"),
    [
        ("yarn", {"factor": 4.0}),
        ("linear", {"factor": 2.0}),
        ("default", {"partial_rotary_factor": 0.5}),
        ("llama3", {"factor": 8.0}),
        ("llama3", {**LLAMA3_SCALING, "attention_factor": 2.0}),
    ],
    ids=["yarn", "linear", "default-with-more", "llama3-with-less", "llama3-with-more"],
)
def test_unsupported_rope_is_refused_by_name(kind, scaling, key):
    with pytest.raises(ValueError, match=f"rope_parameters=.*{kind}.* is not supported"):
        ModelConfig.from_hf({**LLAMA_31_8B, "rope_scaling": {**scaling, key: kind}})


def test_missing_field_is_named():
    published = {k: v for k, v in LLAMA_31_8B.items() if k != "intermediate_size"}
    with pytest.raises(ValueError, match="intermediate_size"):
        ModelConfig.from_hf(published)


def test_load_reads_the_folder_and_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        ModelConfig.load(tmp_path)
    for text, message in (("{", "not JSON"), ("[]", "not a JSON object")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=rf"config\.json: {message}"):
            ModelConfig.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_06B))
    assert ModelConfig.load(tmp_path) == ModelConfig.from_hf(QWEN3_06B)
