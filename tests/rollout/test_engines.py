import asyncio
import json
import pathlib
import shutil

import pytest
from flaky import serve

import jaxcritique as jc
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.rollout.engines import Engine, EngineConfig, load_jax
from jaxcritique.rollout.jax_engine import JaxConfig
from jaxcritique.rollout.sampler import Request, SamplerError
from jaxcritique.tasks import TINY_BASE

ACTOR, CRITIC = (ModelFolder(pathlib.Path(name), name) for name in ("actor", "critic"))
ASKED = [Request([{"role": "user", "content": "?"}], 1, 8, 1.0, 0)]


class Loads:
    """Notes what is loaded, asked and closed, in order."""

    def __init__(self):
        self.log = []

    def __call__(self, model):
        self.log.append(f"load {model.key}")
        return Loaded(model.key, self.log)


class Loaded:
    def __init__(self, key, log):
        self.key, self.log = key, log

    def generate(self, requests, progress):
        self.log.append(f"ask {self.key}")
        return []

    def close(self):
        self.log.append(f"close {self.key}")


def ask(sampler, requests=ASKED):
    assert list(sampler.generate(requests)) == []


def test_one_model_at_a_time_is_loaded_and_only_when_asked():
    loads = Loads()
    with Engine(EngineConfig(), loads) as engine:
        actor, critic = engine.sampler(ACTOR), engine.sampler(CRITIC)
        assert (actor.key, critic.key) == ("actor", "critic")
        ask(actor, [])
        assert loads.log == []
        ask(actor)
        ask(actor)
        ask(critic)
        engine.release()
        engine.release()
        ask(engine.sampler(CRITIC))
    assert loads.log == [
        "load actor", "ask actor", "ask actor", "close actor",
        "load critic", "ask critic", "close critic",
        "load critic", "ask critic", "close critic",
    ]  # fmt: skip


def test_a_model_that_cannot_be_loaded_is_named():
    def load(model):
        raise ValueError("no such tensor")

    with (
        Engine(EngineConfig(), load) as engine,
        pytest.raises(SamplerError, match="actor cannot be loaded: no such tensor"),
    ):
        ask(engine.sampler(ACTOR))


def test_a_model_without_an_end_writes_to_the_longest(tmp_path):
    folder = shutil.copytree(TINY_BASE, tmp_path / "endless")
    (folder / "generation_config.json").unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": None}))
    sampler = load_jax(ModelFolder.of(folder), JaxConfig(slots=2))
    text, stopped = "Tom has 5 eggs.", (Tokenizer(folder).encode("\n")[0],)
    asked = [
        Request([], 1, 40, 0.0, 0, text=text),
        Request([], 1, 40, 0.0, 0, text=text, stop_token_ids=stopped),
    ]
    found = {c.request: c for c in sampler.generate(asked)}
    endless, ended = (found[request.id] for request in asked)
    assert (endless.finish_reason, endless.completion_tokens) == ("length", 40)
    assert ended.finish_reason == "stop"


CORRECT = "Step 1: {index}\nCorrectness: Correct\nFinal answer: Correct\nThe answer is 7."


def hosted(url):
    return jc.load("some-model", engine=EngineConfig(engine="server", endpoint=(url,)))


def test_a_player_on_a_server():
    with serve(reply=CORRECT.format) as server, hosted(server.url) as player:
        problem = jc.Problem.asked("What is 3 + 4?", "7")
        solutions = player.solve([problem, "What is 5?"], n=2, temperature=0.7, max_tokens=9)
        critique = player.critique(solutions[0][1])
        refinement = player.refine(critique)
        path, _, body = server.bodies[0]
        assert player.solve(problem, n=2, temperature=0.7, max_tokens=9) == solutions[0]
    assert [[s.verdict for s in group] for group in solutions] == [
        ["correct"] * 2, ["ungraded"] * 2,
    ]  # fmt: skip
    assert (critique.says_correct, refinement.verdict) == (True, "correct")
    assert (path, body["model"], body["n"]) == ("/v1/chat/completions", "some-model", 2)
    assert (body["temperature"], body["max_tokens"]) == (0.7, 9)
    assert "Give the final answer on a last line in the form 'The answer is N.'" in str(body)
    with pytest.raises(jc.InvalidInput, match="needs the folder of its weights"):
        jc.fine_tune(player, [problem])


def test_a_player_on_a_server_where_an_event_loop_runs():
    async def notebook():
        with serve(reply=CORRECT.format) as server, hosted(server.url) as player:
            return player.solve([f"What is {i}?" for i in range(9)])

    assert [s.answer for s in asyncio.run(notebook())] == ["7"] * 9


def test_players_that_cannot_be_served():
    for settings, message in [
        ({"engine": "server"}, "give `vllm_python` for a model in a folder, or `endpoint`"),
        ({"engine": "server", "endpoint": ("a",), "vllm_python": "b"}, "not both"),
        ({"engine": "server", "endpoint": ("http://127.0.0.1:9",)}, "no server answers there"),
        ({"endpoint": ("http://127.0.0.1:9",)}, "`endpoint` is for `engine=server`"),
    ]:
        with pytest.raises(jc.InvalidInput, match=message):
            jc.load(TINY_BASE, engine=EngineConfig(**settings))
