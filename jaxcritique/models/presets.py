"""The shapes of well-known models, so that a plan needs no download."""

import functools

from jaxcritique.models.config import ModelConfig, RopeScaling

_llama3 = functools.partial(
    ModelConfig,
    vocab_size=128_256,
    num_kv_heads=8,
    head_dim=128,
    max_positions=131_072,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
)
_qwen25 = functools.partial(
    ModelConfig,
    head_dim=128,
    max_positions=32_768,
    norm_eps=1e-6,
    rope_theta=1_000_000.0,
    qkv_bias=True,
    family="qwen2",
)
_qwen25_small = functools.partial(_qwen25, vocab_size=151_936, num_kv_heads=2, tie_embeddings=True)
_qwen25_large = functools.partial(_qwen25, vocab_size=152_064)
PRESETS = {
    "smollm2-135m": ModelConfig(
        vocab_size=49_152,
        dim=576,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        mlp_dim=1536,
        max_positions=8192,
        rope_theta=100_000.0,
        tie_embeddings=True,
    ),
    "qwen2.5-1.5b": _qwen25_small(dim=1536, num_layers=28, num_heads=12, mlp_dim=8960),
    "qwen2.5-3b": _qwen25_small(dim=2048, num_layers=36, num_heads=16, mlp_dim=11_008),
    "qwen2.5-7b": _qwen25_large(
        dim=3584, num_layers=28, num_heads=28, num_kv_heads=4, mlp_dim=18_944
    ),
    "qwen2.5-14b": _qwen25_large(
        dim=5120, num_layers=48, num_heads=40, num_kv_heads=8, mlp_dim=13_824
    ),
    "llama3-8b": _llama3(dim=4096, num_layers=32, num_heads=32, mlp_dim=14_336),
    "llama3-70b": _llama3(dim=8192, num_layers=80, num_heads=64, mlp_dim=28_672),
}
