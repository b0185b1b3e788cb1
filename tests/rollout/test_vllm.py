"""Real vLLM. JAXCRITIQUE_VLLM_PYTHON names the interpreter of an environment that has it."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from jaxcritique.models.huggingface import ModelFolder, load_pretrained, save_pretrained
from jaxcritique.rollout.engines import EngineConfig, load_jax, load_vllm
from jaxcritique.rollout.jax_engine import JaxConfig
from jaxcritique.rollout.sampler import Request, SamplerError
from jaxcritique.rollout.server import ClientConfig
from jaxcritique.rollout.vllm import VllmConfig, VllmServers
from jaxcritique.tasks import TINY_BASE

PYTHON = os.environ.get("JAXCRITIQUE_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="JAXCRITIQUE_VLLM_PYTHON names no vLLM environment"),
]
CLIENT = ClientConfig(attempt_seconds=600, deadline_seconds=1200)
ROOT = pathlib.Path(__file__).resolve().parents[2]


MARK = str(os.getpid())


def ours(mark: str = MARK) -> list[psutil.Process]:
    """The processes of vLLM servers started with a mark, wherever they stand in the tree."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get("JAXCRITIQUE_TEST") == mark
        and process.pid != os.getpid()
    ]


def wait_until_gone(mark: str = MARK) -> None:
    end = time.monotonic() + 30
    while ours(mark) and time.monotonic() < end:
        time.sleep(0.2)
    assert not ours(mark)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> ModelFolder:
    """The tiny base as training exports it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    save_pretrained(folder, load_pretrained(TINY_BASE), TINY_BASE)
    return ModelFolder.of(folder)


@pytest.fixture(scope="module")
def engine():
    # A key that is for other servers.
    os.environ |= {"JAXCRITIQUE_TEST": MARK, "VLLM_API_KEY": "another"}
    with EngineConfig(engine="server", vllm_python=PYTHON).start() as engine:
        yield engine
    wait_until_gone()
    del os.environ["JAXCRITIQUE_TEST"], os.environ["VLLM_API_KEY"]


def found(sampler, requests):
    answers = {(c.request, c.sample): c for c in sampler.generate(requests, lambda *_: None)}
    return [answers[request.id, sample] for request in requests for sample in range(request.n)]


def test_greedy_is_what_the_jax_engine_writes(engine, exported, prompts):
    requests = [Request(messages, 1, 64, 0.0, 0, logprobs=True) for messages in prompts]
    theirs = found(engine.sampler(exported), requests)
    mine = found(load_jax(exported, JaxConfig(slots=16)), requests)
    same = [a.text == b.text for a, b in zip(theirs, mine, strict=True)]
    assert sum(same) >= 0.95 * len(same)
    for a, b in zip(theirs, mine, strict=True):
        assert a.prompt_tokens == b.prompt_tokens
        if a.text == b.text:
            assert (a.finish_reason, a.completion_tokens) == (b.finish_reason, b.completion_tokens)
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-3)


def test_samples_stops_and_limits(engine, exported, prompts):
    long = [{"role": "user", "content": "Tom has 5 eggs. " * 400}]
    requests = [
        Request(prompts[0], 3, 30, 1.0, 0, top_k=40, top_p=0.95, min_tokens=4, stop=("\n",)),
        Request(prompts[1], 2, 10, 1.0, 0, prefix="That makes"),
        Request(long, 1, 10, 0.0, 0),
        Request(prompts[2], 3, 10, 0.0, 0),
        Request([], 1, 99, 1.0, 0, text="Tom has 5 eggs. " * 122, min_tokens=60),
    ]
    sampler = engine.sampler(exported)  # Whose server is already running.
    answers = found(sampler, requests)
    assert len({c.text for c in answers[:3]}) > 1
    assert all("\n" not in c.text for c in answers[:3])
    assert all(c.text.startswith("That makes") for c in answers[3:5])
    assert all(0 < c.completion_tokens <= 10 for c in answers[3:5])
    assert answers[5].error is not None
    assert answers[5].error.endswith("tokens, the context 1024")
    assert len({c.text for c in answers[6:9]}) == 1
    nearly_full = answers[9]
    assert nearly_full.error is None
    assert nearly_full.completion_tokens == 1024 - nearly_full.prompt_tokens < 60
    assert found(sampler, requests) == answers  # Seeds decide.


def test_two_servers_that_crash_twice_are_restarted_and_asked_again(
    engine, exported, prompts, monkeypatch
):
    engine.release()  # Memory for two.
    mark = f"{MARK} two"
    monkeypatch.setenv("JAXCRITIQUE_TEST", mark)
    arguments = ("--gpu-memory-utilization=0.4",)  # They may share a device.
    config = VllmConfig(PYTHON, device_sets=("0", "0"), arguments=arguments)
    requests = [Request(messages, 4, 60, 1.0, 0) for messages in prompts]
    sampler = load_vllm(exported, config, dataclasses.replace(CLIENT, attempts=1, concurrency=8))
    try:
        expected = found(sampler, requests)
        again = []
        for completion in sampler.generate(requests, lambda *_: None):
            if len(again) in (8, 60):
                running = [p for p in ours(mark) if "-m vllm.entry" in " ".join(p.cmdline()[:3])]
                assert len(running) == 2
                for process in running:
                    if len(again) == 8:  # What computes: its server answers 500, then ends.
                        [process] = [c for c in process.children() if "Engine" in c.name()]
                    process.kill()
            again.append(completion)
    finally:
        sampler.close()
    wait_until_gone(mark)
    texts = {(c.request, c.sample): (c.text, c.error) for c in again}
    assert texts == {(c.request, c.sample): (c.text, None) for c in expected}


@pytest.fixture
def short_path():
    """A temporary folder whose sockets' paths stay below the 107 characters that are allowed."""
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)


def test_nothing_is_left_when_we_are_killed(short_path):
    code = (
        "import os, sys, time; from jaxcritique.rollout.vllm import *;"
        "from jaxcritique.tasks import TINY_BASE;"
        f"VllmServers(VllmConfig({PYTHON!r}), TINY_BASE, 'tiny'); print('up', flush=True);"
        "time.sleep(600)"
    )
    mark = f"{MARK} killed"  # The servers of other tests may still be running.
    environment = {
        **os.environ,
        "JAXCRITIQUE_TEST": mark,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(short_path),
    }
    program = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    assert len(ours(mark)) > 3  # It, the guard, the server, its engine.
    assert len(list(short_path.glob("vllm-*.log"))) == 1
    program.send_signal(signal.SIGKILL)
    program.wait()
    wait_until_gone(mark)
    assert not list(short_path.glob("vllm-*.log"))


def test_a_server_that_does_not_start_shows_its_log():
    with pytest.raises(SamplerError, match=r"(?s)did not start.*\.failed\.log:.*unrecognized"):
        VllmServers(VllmConfig(PYTHON, arguments=("--no-such",)), TINY_BASE, "tiny")
