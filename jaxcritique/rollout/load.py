"""From a model folder to a sampler."""

from jaxcritique.models.huggingface import ModelFolder, load_pretrained
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.rollout.engine import JaxSampler


def load_sampler(model: ModelFolder, slots: int) -> JaxSampler:
    """Loads a Hugging Face folder into the JAX engine, `slots` samples at a time."""
    config, structure, params = load_pretrained(model.folder)
    return JaxSampler(model.key, config, structure, params, Tokenizer(model.folder), slots)
