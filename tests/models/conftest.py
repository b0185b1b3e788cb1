"""Hugging Face models to compare with."""

from collections.abc import Callable

import pytest
import torch
import transformers

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_hf_model() -> Callable[..., transformers.PreTrainedModel]:
    """Returns a function: (family, config fields) -> a small torch model with random weights."""

    def make(family: str, **fields) -> transformers.PreTrainedModel:
        small = {
            "vocab_size": 96,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "intermediate_size": 48,
            "max_position_embeddings": 512,
            "tie_word_embeddings": False,
        }
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(family, **{**small, **fields}),
            attn_implementation="eager",
        )
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            # Fresh models have no biases, unit norms and scores near 0: little could go wrong.
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(1 + 0.3 * noise if "norm" in name else 0.2 * noise)
        return model.eval()

    return make
