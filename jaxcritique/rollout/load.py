"""From a model folder to a sampler: the one place that knows the engines."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder, load_pretrained
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.rollout.engine import JaxConfig, JaxSampler
from jaxcritique.rollout.sampler import Completion, Request, Sampler, SamplerError
from jaxcritique.rollout.server import ClientConfig, Local, ServerSampler
from jaxcritique.rollout.vllm import VllmConfig, VllmServers


class Loaded(Sampler, Protocol):
    """A sampler that holds memory, or processes that do."""

    def close(self) -> None:
        """Lets go of them."""
        ...


class Engine:
    """Makes samplers of model folders, of which one at a time is in memory.

    A sampler is loaded when it is first asked something, in the place of the one before it, and
    again when it is asked something later. So a run may hold samplers of all its models, and
    whatever else needs the memory (training) first calls `release`.
    """

    def __init__(self, load: Callable[[ModelFolder], Loaded]):
        """Takes what loads a folder; see `load_jax` and `load_vllm`."""
        self._load = load
        self._model: ModelFolder | None = None
        self._loaded: Loaded | None = None

    def sampler(self, model: ModelFolder) -> Sampler:
        """Returns a sampler of the model, which is not loaded yet."""
        return _LazySampler(self, model)

    def load(self, model: ModelFolder) -> Sampler:
        """Loads a model, unless it is the one in memory.

        Raises:
          SamplerError: it cannot be loaded.
        """
        if self._loaded is None or self._model != model:
            self.release()
            try:
                self._loaded, self._model = self._load(model), model
            except (OSError, ValueError) as error:
                raise SamplerError(f"{model.folder} cannot be loaded: {error}") from error
        return self._loaded

    def release(self) -> None:
        """Frees the memory and ends the servers of what is loaded."""
        if self._loaded is not None:
            self._loaded.close()
        self._loaded = self._model = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclasses.dataclass(frozen=True)
class _LazySampler:
    """A model by its key, loaded by its engine when asked; see `Sampler`."""

    engine: Engine
    model: ModelFolder

    @property
    def key(self) -> str:
        return self.model.key

    def generate(
        self, requests: Sequence[Request], progress: Callable[[int, int], None]
    ) -> Iterable[Completion]:
        if requests:
            yield from self.engine.load(self.model).generate(requests, progress)


def load_jax(model: ModelFolder, config: JaxConfig) -> JaxSampler:
    """Loads a Hugging Face folder into the JAX engine: fp32 on a CPU, bf16 elsewhere.

    Raises:
      ValueError: the mesh does not fit the devices of this host or the model.
    """
    mesh = config.devices()
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model_config, structure, params = load_pretrained(model.folder, mesh, dtype)
    tokenizer = Tokenizer(model.folder)
    return JaxSampler(model.key, model_config, structure, params, tokenizer, config, mesh)


def load_vllm(model: ModelFolder, vllm: VllmConfig, client: ClientConfig) -> ServerSampler:
    """Starts vLLM servers of a Hugging Face folder.

    Raises:
      SamplerError: they do not start; the message ends with their log.
    """
    local = Local(Tokenizer(model.folder), ModelConfig.load(model.folder).max_positions)
    servers = VllmServers(vllm, model.folder, model.key)
    return ServerSampler(model.key, servers, model.key, client, local)
