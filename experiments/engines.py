"""The flags of every program that samples, and what they make."""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.models.sharding import make_mesh
from jaxcritique.rollout import guard
from jaxcritique.rollout.engine import JaxConfig
from jaxcritique.rollout.load import Engine, load_jax, load_vllm
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.rollout.server import ClientConfig, Endpoints, ServerSampler, api_key
from jaxcritique.rollout.vllm import VllmConfig
from jaxcritique.training.sft import Placement, SftConfig, fine_tune

_ENGINE = flags.DEFINE_enum(
    "engine",
    "jax",
    ["jax", "server"],
    "What samples: our own engine, or an OpenAI-compatible server: --endpoint or --vllm_python.",
)
_SLOTS = flags.DEFINE_integer(
    "slots", 64, "jax: samples written at a time; fewer where --cache_gib is short.", lower_bound=1
)
_CACHE_GIB = flags.DEFINE_float(
    "cache_gib",
    0,
    "jax: GiB of each device for keys and values. 0: half of what is free; 4 on a CPU.",
    lower_bound=0,
)
_MESH = flags.DEFINE_string(
    "mesh",
    "",
    "Devices of --engine=jax, and of training where there is any: data=8 holds eight copies of the "
    "model, tensor=8 or fsdp=8 one in parts, data=2,tensor=4 two. Empty: fsdp over all.",
)
_ENDPOINT = flags.DEFINE_list(
    "endpoint",
    [],
    "server: base URLs of servers that are running, as http://host:8000/v1; /v1 is added to one "
    "without a path. --model is then the name they know the model by.",
)
_API_KEY_ENV = flags.DEFINE_string(
    "api_key_env", "OPENAI_API_KEY", "server: the environment variable with the key for --endpoint."
)
_CONCURRENCY = flags.DEFINE_integer(
    "concurrency", 64, "server: requests in flight at each server.", lower_bound=1
)
_REQUESTS_PER_MINUTE = flags.DEFINE_float(
    "requests_per_minute", 0, "server: rate limit over all servers; 0: none.", lower_bound=0
)
_REQUEST_SECONDS = flags.DEFINE_float(
    "request_seconds",
    60,
    "server: how long an answer of --endpoint is waited for; doubled after each time in vain, and "
    "in the end all that --request_deadline leaves.",
    lower_bound=0.1,
)
_REQUEST_DEADLINE = flags.DEFINE_float(
    "request_deadline",
    600,
    "server: seconds after which a request to --endpoint is given up, its attempts together.",
    lower_bound=0.1,
)
_REQUEST_ATTEMPTS = flags.DEFINE_integer(
    "request_attempts", 10, "server: times a request is tried.", lower_bound=1
)
_SEND_SEED = flags.DEFINE_bool(
    "send_seed", True, "server: send each request's seed; vllm-tpu refuses seeds."
)
_VLLM_PYTHON = flags.DEFINE_string(
    "vllm_python",
    None,
    "server: start vLLM ourselves, with the Python interpreter of the environment that has it.",
)
_VLLM_DEVICES = flags.DEFINE_multi_string(
    "vllm_devices",
    [],
    "Devices of one vLLM server, such as 0 or 2,3; once for each server. Without: one server that "
    "sees them all.",
)
_VLLM_ARGS = flags.DEFINE_string(
    "vllm_args", "", "Further arguments of `vllm serve`, such as '--tensor-parallel-size=2'."
)
# A server of our own that has not answered for so long is asked for its health, and started again
# where it hangs. One request may hold many long samples, so it may just be busy.
_OWN_ATTEMPT_SECONDS, _OWN_DEADLINE_SECONDS = 1800.0, 24 * 3600.0


def engine() -> Engine:
    """Returns what makes samplers of model folders, by the flags.

    Raises:
      ValueError: the flags contradict each other, or there is no vLLM where they say.
    """
    if _ENGINE.value == "jax":
        _refuse_server_flags()
        config = jax_config()
        config.devices()
        return Engine(lambda model: load_jax(model, config))
    if not _VLLM_PYTHON.value or _ENDPOINT.value:
        raise ValueError(
            "--engine=server: this program makes models of its own, so it needs --vllm_python (and "
            "no --endpoint) to serve them."
        )
    vllm, client = vllm_config(), own_client_config()
    vllm.check()
    return Engine(lambda model: load_vllm(model, vllm, client))


def check_training(base: ModelFolder, config: SftConfig) -> None:
    """Checks in a moment that --mesh suits model and rows, before a run folder is claimed.

    Only of our own engine: beside servers no other process may take the accelerator.

    Raises:
      ValueError: it does not; the message says what does.
    """
    if _ENGINE.value == "jax":
        mesh = make_mesh(_MESH.value)
        Placement(_MESH.value).execution(config, ModelConfig.load(base.folder), mesh)


def trainer(engine: Engine) -> Callable[..., ModelFolder]:
    """Returns `fine_tune` as it must be called while an engine samples between trainings.

    The engine's memory is free before the training begins, and the training's before a server
    starts: what a process had of an accelerator goes back only when it ends, so beside servers
    training is a process of its own.
    """

    def train(*arguments: Any) -> ModelFolder:
        engine.release()
        arguments = (*arguments, Placement(mesh=_MESH.value))
        if _ENGINE.value == "jax":
            return fine_tune(*arguments)
        with concurrent.futures.ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), guard.die_with_parent
        ) as process:
            return process.submit(fine_tune, *arguments).result()

    return train


@contextlib.contextmanager
def sampler(model: str) -> Iterator[Sampler]:
    """Yields a sampler of --model, a folder or the name that the servers at --endpoint know.

    Raises:
      FileNotFoundError: it is a folder and holds no model.
      ValueError: the flags contradict each other, or nothing answers at --endpoint.
    """
    if _ENGINE.value == "server" and bool(_ENDPOINT.value) == bool(_VLLM_PYTHON.value):
        raise ValueError("--engine=server: give either --endpoint or --vllm_python.")
    if _ENGINE.value == "server" and _ENDPOINT.value:
        yield endpoint(model, _ENDPOINT.value)
    else:
        with engine() as made:
            yield made.sampler(ModelFolder.of(model))


def endpoint(model: str, urls: list[str]) -> Sampler:
    """Returns a sampler of a model that running servers know by this name, whatever --engine is."""
    client = _client_config(_REQUEST_SECONDS.value, _REQUEST_DEADLINE.value)
    client = dataclasses.replace(client, api_key=api_key(_API_KEY_ENV.value))
    return ServerSampler(model, Endpoints(urls), model, client)


def jax_config() -> JaxConfig:
    """The JAX engine's settings, by the flags."""
    return JaxConfig(_SLOTS.value, int(_CACHE_GIB.value * 2**30) or None, _MESH.value)


def vllm_config() -> VllmConfig:
    """The settings of vLLM servers of our own, by the flags.

    Raises:
      ValueError: --vllm_args has a quotation without an end.
    """
    try:
        arguments = tuple(shlex.split(_VLLM_ARGS.value))
    except ValueError as error:
        raise ValueError(f"--vllm_args={_VLLM_ARGS.value}: {error}") from error
    return VllmConfig(
        python=_VLLM_PYTHON.value or "",
        device_sets=tuple(_VLLM_DEVICES.value) or ("",),
        arguments=arguments,
    )


def own_client_config() -> ClientConfig:
    """How servers of our own are spoken to, by the flags."""
    return _client_config(_OWN_ATTEMPT_SECONDS, _OWN_DEADLINE_SECONDS)


def _client_config(attempt_seconds: float, deadline_seconds: float) -> ClientConfig:
    return ClientConfig(
        concurrency=_CONCURRENCY.value,
        requests_per_minute=_REQUESTS_PER_MINUTE.value,
        attempts=_REQUEST_ATTEMPTS.value,
        attempt_seconds=attempt_seconds,
        deadline_seconds=deadline_seconds,
        send_seed=_SEND_SEED.value,
    )


def _refuse_server_flags() -> None:
    for name, value in (("endpoint", _ENDPOINT.value), ("vllm_python", _VLLM_PYTHON.value)):
        if value:
            raise ValueError(f"--{name} is for --engine=server.")
