import dataclasses
from collections.abc import Callable

import jax
import pytest

from jaxcritique.models.huggingface import load_pretrained
from jaxcritique.models.sharding import make_mesh
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.prompts.templates import COMPACT, solve_messages
from jaxcritique.records import Messages
from jaxcritique.rollout.jax_engine import JaxConfig, JaxSampler
from jaxcritique.tasks import TINY_BASE
from jaxcritique.tasks.word_problems import generate


@pytest.fixture(scope="session")
def base():
    """The tiny base: its config, structure, parameters and tokenizer."""
    return *load_pretrained(TINY_BASE), Tokenizer(TINY_BASE)


@pytest.fixture(scope="session")
def make_sampler(base) -> Callable[..., JaxSampler]:
    """Returns a function: (slots, context) -> the tiny base in the engine."""
    config, structure, params, tokenizer = base

    def make(
        slots: int = 4,
        context: int = config.max_positions,
        cache_bytes: int | None = None,
        dtype: str = "float32",
    ) -> JaxSampler:
        limited = dataclasses.replace(config, max_positions=context)
        cast = jax.tree.map(lambda x: x.astype(dtype), params)
        settings = JaxConfig(slots, cache_bytes)
        mesh = make_mesh(devices=jax.devices()[:1])
        return JaxSampler("tiny", limited, structure, cast, tokenizer, settings, mesh)

    return make


@pytest.fixture(scope="session")
def prompts() -> list[Messages]:
    """Thirty short stories as prompts of 30 to 60 tokens."""
    return [solve_messages(COMPACT, p) for p in generate("train", 30, 0, (1, 1, 0, 0, 0))]
