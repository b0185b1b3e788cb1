import dataclasses
from collections.abc import Callable

import jax
import pytest

from jaxcritique.models.huggingface import load_pretrained
from jaxcritique.models.sharding import make_mesh
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import Transformer
from jaxcritique.models.weights import named_weights
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.records import Messages
from jaxcritique.rollout.jax_engine import JaxConfig, JaxSampler
from jaxcritique.tasks import TINY_BASE
from jaxcritique.tasks.word_problems import generate


@pytest.fixture(scope="session")
def base() -> tuple[Transformer, Tokenizer]:
    """The tiny base and its tokenizer."""
    return load_pretrained(TINY_BASE), Tokenizer(TINY_BASE)


@pytest.fixture(scope="session")
def make_sampler(base) -> Callable[..., JaxSampler]:
    """Returns a function: (slots, context) -> the tiny base in the engine."""
    model, tokenizer = base

    def make(
        slots: int = 4,
        context: int = model.config.max_positions,
        cache_bytes: int | None = None,
        dtype: str = "float32",
    ) -> JaxSampler:
        limited = dataclasses.replace(model.config, max_positions=context)
        arrays = {row.path: x.astype(dtype) for row, x in named_weights(model)}
        cast = Transformer(limited, lambda row, _: arrays[row.path])
        settings = JaxConfig(slots, cache_bytes)
        mesh = make_mesh(devices=jax.devices()[:1])
        return JaxSampler("tiny", cast.unstacked(), tokenizer, settings, mesh)

    return make


@pytest.fixture(scope="session")
def prompts() -> list[Messages]:
    """Thirty short stories as prompts of 30 to 60 tokens."""
    return [COMPACT.to_solve(p) for p in generate("train", 30, 0, (1, 1, 0, 0, 0))]
