"""Engines and their settings: from a model to its sampler."""

import dataclasses
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcritique.config import Config, setting
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder, load_pretrained
from jaxcritique.models.sharding import make_mesh, shardings
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import Decoder
from jaxcritique.rollout.jax_engine import JaxConfig, JaxSampler
from jaxcritique.rollout.sampler import (
    Completion,
    Progress,
    Request,
    Sampler,
    SamplerError,
    no_progress,
)
from jaxcritique.rollout.server import ClientConfig, Endpoints, Local, ServerSampler, api_key
from jaxcritique.rollout.vllm import VllmConfig, VllmServers
from jaxcritique.training.sft import ExecutionConfig, FineTuned, SftConfig

# After so many seconds without an answer the health of a server of our own is checked, and it is
# restarted if it hangs. Attempts are long: one request may have many long samples.
_OWN_ATTEMPT_SECONDS, _OWN_DEADLINE_SECONDS = 1800.0, 24 * 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig(Config):
    """The engine that samples, and its devices, which training uses too."""

    engine: Literal["jax", "server"] = setting(
        "jax",
        "What samples: our own engine, or an OpenAI-compatible server: `endpoint` or "
        "`vllm_python`.",
    )
    slots: int = setting(
        64, "jax: samples decoded at a time; fewer if the KV cache has no room for them.", low=1
    )
    cache_gib: float = setting(
        0.0, "jax: GiB of each device for the KV cache. 0: half of what is free; 4 on a CPU.", low=0
    )
    mesh: str = setting(
        "",
        "jax: the devices' mesh, also for training: data=8 holds eight copies of the model, "
        "tensor=8 or fsdp=8 one sharded copy, data=2,tensor=4 two. Empty: fsdp over all.",
    )
    endpoint: tuple[str, ...] = setting(
        (),
        "server: base URLs of running servers, as http://host:8000/v1; /v1 is added to one without "
        "a path. The model is then the name they know it by.",
    )
    api_key_env: str = setting(
        "OPENAI_API_KEY", "server: the environment variable with the key for `endpoint`."
    )
    concurrency: int = setting(64, "server: requests in flight at each server.", low=1)
    requests_per_minute: float = setting(
        0.0, "server: rate limit over all servers; 0: none.", low=0
    )
    request_seconds: float = setting(
        60.0,
        "server: timeout in seconds of an attempt at `endpoint`; doubled after each timeout, up to "
        "`request_deadline`.",
        low=0.1,
    )
    request_deadline: float = setting(
        600.0,
        "server: timeout in seconds of a request to `endpoint`, all attempts together.",
        low=0.1,
    )
    request_attempts: int = setting(10, "server: attempts at a request.", low=1)
    send_seed: bool = setting(True, "server: send each request's seed; vllm-tpu refuses seeds.")
    vllm_python: str | None = setting(
        None, "server: start vLLM, with the Python interpreter of the environment that has it."
    )
    vllm_devices: tuple[str, ...] = setting(
        (),
        "Devices of one vLLM server, such as 0 or 2,3; once for each server. Default: one server "
        "with all devices.",
        repeated=True,
    )
    vllm_args: str = setting(
        "", "Further arguments of `vllm serve`, such as '--tensor-parallel-size=2'."
    )

    @property
    def is_hosted(self) -> bool:
        """Whether models run on the servers of `endpoint`, and are known by name, not by folder.

        Raises:
          ValueError: settings contradict each other.
        """
        if self.engine == "jax":
            for name in ("endpoint", "vllm_python"):
                if getattr(self, name):
                    raise ValueError(f"`{name}` is for `engine=server`.")
        elif bool(self.endpoint) == bool(self.vllm_python):
            raise ValueError(
                "`engine=server`: give `vllm_python` for a model in a folder, or `endpoint` for "
                "one on running servers, not both."
            )
        return bool(self.endpoint)

    def start(self) -> "Engine":
        """Returns an engine for models in folders; it loads nothing yet.

        Raises:
          ValueError: settings contradict each other, or `vllm_python` has no vLLM.
        """
        if self.is_hosted:
            raise ValueError(
                "`engine=server`: models in folders need `vllm_python` in place of `endpoint`: "
                "running servers do not have them."
            )
        if self.engine == "jax":
            config = self.jax()
            config.devices()
            return Engine(self, lambda model: load_jax(model, config))
        vllm, client = self.vllm(), self.own_client()
        vllm.check()
        return Engine(self, lambda model: load_vllm(model, vllm, client))

    def hosted(self, model: str) -> ServerSampler:
        """Returns a sampler of a model by its name at the servers of `endpoint`.

        Raises:
          ValueError: no server answers there, or the key is missing.
        """
        client = self.client(self.request_seconds, self.request_deadline)
        client = dataclasses.replace(client, api_key=api_key(self.api_key_env))
        return ServerSampler(model, Endpoints(list(self.endpoint)), model, client)

    def jax(self) -> JaxConfig:
        """The JAX engine's settings."""
        return JaxConfig(self.slots, int(self.cache_gib * 2**30) or None, self.mesh)

    def vllm(self) -> VllmConfig:
        """The settings of vLLM servers that we start.

        Raises:
          ValueError: `vllm_args` has an unclosed quotation.
        """
        try:
            arguments = tuple(shlex.split(self.vllm_args))
        except ValueError as error:
            raise ValueError(f"`vllm_args={self.vllm_args}`: {error}") from error
        return VllmConfig(
            python=self.vllm_python or "",
            device_sets=self.vllm_devices or ("",),
            arguments=arguments,
        )

    def own_client(self) -> ClientConfig:
        """How requests are sent to servers that we start."""
        return self.client(_OWN_ATTEMPT_SECONDS, _OWN_DEADLINE_SECONDS)

    def client(self, attempt_seconds: float, deadline_seconds: float) -> ClientConfig:
        """The settings of the client."""
        return ClientConfig(
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            attempts=self.request_attempts,
            attempt_seconds=attempt_seconds,
            deadline_seconds=deadline_seconds,
            send_seed=self.send_seed,
        )

    def check_training(self, base: ModelFolder, config: SftConfig) -> None:
        """Checks, without loading the model, that mesh, model and rows fit each other.

        Only with the JAX engine: servers of our own hold the accelerators, which no other process
        may then open.

        Raises:
          ValueError: they do not; the message says what would.
        """
        if self.engine == "jax":
            mesh = make_mesh(self.mesh)
            ExecutionConfig(mesh=self.mesh).resolve(config, ModelConfig.load(base.folder), mesh)


class Loaded(Sampler, Protocol):
    """A sampler that holds memory or processes."""

    def close(self) -> None:
        """Frees the memory and ends the processes."""
        ...


class Engine:
    """Samples from models in folders, and trains them, with one model at a time in memory.

    A model is loaded when its sampler is used, in place of the model before it. So a run may have
    samplers of all its models at once.
    """

    def __init__(self, config: EngineConfig, load: Callable[[ModelFolder], Loaded]):
        """Takes the settings and a function that loads a folder: `load_jax` or `load_vllm`."""
        self._config = config
        self._load = load
        self._model: ModelFolder | None = None
        self._loaded: Loaded | None = None

    def sampler(self, model: ModelFolder) -> Sampler:
        """Returns a sampler of a model, without loading it yet."""
        return _LazySampler(self, model)

    def load(self, model: ModelFolder) -> Loaded:
        """Returns the sampler of a model, loaded unless it is the one in memory.

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

    @property
    def trains_apart(self) -> bool:
        """Whether training must be a process of its own, as beside servers on the same devices.

        What a process had of an accelerator is freed only when it ends.
        """
        return self._config.engine != "jax"

    def for_training(self) -> ExecutionConfig:
        """Frees the samplers' memory; returns how to train on these devices."""
        self.release()
        return ExecutionConfig(mesh=self._config.mesh)

    def release(self) -> None:
        """Closes the sampler that is loaded, if any."""
        if self._loaded is not None:
            self._loaded.close()
        self._loaded = self._model = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclasses.dataclass(frozen=True)
class _LazySampler:
    """A sampler whose engine loads the model at each use; see `Sampler`."""

    engine: Engine
    model: ModelFolder

    @property
    def key(self) -> str:
        return self.model.key

    def generate(
        self, requests: Sequence[Request], progress: Progress = no_progress
    ) -> Iterable[Completion]:
        if requests:
            yield from self.engine.load(self.model).generate(requests, progress)


def load_jax(model: ModelFolder, config: JaxConfig) -> JaxSampler:
    """Loads a Hugging Face folder into the JAX engine: fp32 on a CPU, bf16 elsewhere.

    Raises:
      ValueError: the mesh does not fit the devices of this host or the model.
    """
    mesh = config.devices()
    decoder = load_pretrained(model.folder, mesh, _compute_dtype(), Decoder)
    return JaxSampler(model.key, decoder, Tokenizer(model.folder), config, mesh)


def hold_fine_tuned(trained: FineTuned, config: JaxConfig) -> JaxSampler:
    """Puts a fine-tuned model into the JAX engine, without a folder.

    Its weights are rounded as in a folder, so that it samples the same texts as from there.

    Raises:
      ValueError: the mesh does not fit the devices of this host or the model.
    """
    mesh, dtype = config.devices(), _compute_dtype()
    decoder = jax.tree.map(
        lambda weight: weight.astype(trained.dtype).astype(dtype), trained.model.unstacked()
    )
    decoder = jax.device_put(decoder, shardings(mesh, decoder))
    return JaxSampler(trained.key, decoder, trained.tokenizer, config, mesh)


def _compute_dtype() -> DTypeLike:
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def load_vllm(model: ModelFolder, vllm: VllmConfig, client: ClientConfig) -> ServerSampler:
    """Starts vLLM servers of a Hugging Face folder.

    Raises:
      SamplerError: they do not start; the message ends with their log.
    """
    local = Local(Tokenizer(model.folder), ModelConfig.load(model.folder).max_positions)
    servers = VllmServers(vllm, model.folder, model.key)
    return ServerSampler(model.key, servers, model.key, client, local)
