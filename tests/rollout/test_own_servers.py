"""Servers of our own that die, with a stand-in for vLLM; test_vllm.py has the real one."""

import os
import signal
import sys
import tempfile
import threading
import time

import fake_vllm
import psutil
import pytest

import jaxcritique as jc
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.rollout.sampler import Completion, Request, SamplerError
from jaxcritique.rollout.server import ClientConfig, Local, ServerSampler
from jaxcritique.rollout.vllm import VllmConfig, VllmServers
from jaxcritique.tasks import TINY_BASE

TOKENIZER = Tokenizer(TINY_BASE)
DEADLY = TOKENIZER.decode([fake_vllm.DEADLY])


@pytest.fixture
def python(tmp_path, monkeypatch) -> str:
    """The interpreter of an environment in which the stand-in is vLLM."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # For the logs.
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -c ]; then echo vllm; exit; fi\n'  # Is there vLLM?
        "shift 2\n"  # -m and the module.
        f'exec {sys.executable} {fake_vllm.__file__} "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


def processes(servers: VllmServers) -> list[psutil.Process]:
    """The stand-ins of servers, in order."""
    found = {
        next(part for part in process.info["cmdline"] if part.startswith("--port=")): process
        for process in psutil.process_iter(["cmdline"])
        if fake_vllm.__file__ in (process.info["cmdline"] or [])[:2]
    }
    return [found[f"--port={url.rsplit(':', 1)[1].removesuffix('/v1')}"] for url in servers.urls]


def ask(count: int, deadly: int = 0) -> list[Request]:
    texts = [f"{i} eggs" for i in range(count)] + [f"{DEADLY} {i}" for i in range(deadly)]
    requests = [Request([], 2, 8, 1.0, 0, text=text) for text in texts]
    assert all(r.token_ids(TOKENIZER)[0] == fake_vllm.DEADLY for r in requests[count:])
    return requests


def sampler(servers: VllmServers, **settings) -> ServerSampler:
    config = ClientConfig(**settings)
    return ServerSampler("fake", servers, "fake", config, Local(TOKENIZER, 1024))


def errors(completions: list[Completion]) -> dict[str, str | None]:
    return {c.request: c.error for c in completions}


def test_two_servers_killed_twice_lose_nothing(python):
    servers = VllmServers(VllmConfig(python, device_sets=("0", "1,2")), TINY_BASE, "fake")
    try:
        devices = [p.environ()["CUDA_VISIBLE_DEVICES"] for p in processes(servers)]
        assert devices == ["0", "1,2"]
        requests = ask(200)
        found = []
        # Deaths are no attempts.
        for completion in sampler(servers, concurrency=8, attempts=1).generate(
            requests, lambda *_: None
        ):
            if len(found) in (40, 160):
                for process in processes(servers):
                    process.kill()
            found.append(completion)
    finally:
        servers.close()
    assert errors(found) == dict.fromkeys((r.id for r in requests), None)
    assert len(found) == 400


@pytest.mark.slow
def test_prompts_that_a_server_dies_of_are_failed_rows_and_the_rest_go_on(python):
    deadly = 3
    requests = ask(60, deadly)[::-1]
    servers = VllmServers(VllmConfig(python), TINY_BASE, "fake")
    try:
        found = errors(list(sampler(servers, attempts=1).generate(requests, lambda *_: None)))
    finally:
        servers.close()
    for request in requests[deadly:]:
        assert found[request.id] is None
    for request in requests[:deadly]:
        assert (found[request.id] or "").startswith(
            "the server crashed 3 times during this request"
        )


@pytest.mark.slow
def test_a_server_that_dies_of_everything_ends_it(python):
    servers = VllmServers(VllmConfig(python), TINY_BASE, "fake")
    try:
        with pytest.raises(SamplerError, match="crashed 9 times without an answer"):
            list(sampler(servers).generate(ask(0, 40), lambda *_: None))
    finally:
        servers.close()


def test_an_interrupt_while_a_server_starts_again_is_not_kept_waiting(python, tmp_path):
    config = VllmConfig(python, arguments=(f"--started={tmp_path / 'started'}",))
    # As in a program; pytest's parallel workers ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    servers = VllmServers(config, TINY_BASE, "fake")
    try:
        [process] = processes(servers)
        completions = iter(sampler(servers).generate(ask(100), lambda *_: None))
        next(completions)
        process.kill()
        threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(completions)
        assert time.monotonic() - started < 20
    finally:
        servers.close()
        signal.signal(signal.SIGINT, before)


def test_a_player_on_a_server_that_is_started_for_it(python):
    engine = jc.EngineConfig(engine="server", vllm_python=python)
    with jc.load(TINY_BASE, engine=engine) as player:
        question = "Tom has 3 eggs. Tom buys 4 more eggs. How many eggs does Tom have now?"
        first, second = player.solve([question, question], temperature=1.0)
        prompt = TOKENIZER.prompt([{"role": "user", "content": question}])
        assert first.text == second.text == TOKENIZER.decode(TOKENIZER.encode(prompt))
        [server] = processes(player.sampler._servers)
    assert not server.is_running()
