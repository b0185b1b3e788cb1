import contextlib
import dataclasses
import itertools
import json
import os

import pytest

from jaxcritique.rollout.journal import complete, generate_shards, read_shard
from jaxcritique.rollout.sampler import AllRefused, Completion, Request, SamplerError
from jaxcritique.store import DamagedFile, Stage, Store


class Echo:
    """A sampler that answers with the question, notes what it is asked, and may break down."""

    key = "echo"

    def __init__(self, breaks_at: int | None = None):
        self.asked: list[list[str]] = []
        self._breaks_at = breaks_at

    def generate(self, requests, progress):
        if len(self.asked) == self._breaks_at:
            raise OSError("the device is lost")
        self.asked.append([request.messages[0]["content"] for request in requests])
        completions = [
            Completion(r.id, sample, f"{r.messages[0]['content']}/{sample}", "stop", 1, 2)
            for r in requests
            for sample in range(r.n)
        ]
        progress(2 * len(completions), len(completions))
        return completions


def requests(*texts: str, n: int = 1500) -> list[Request]:
    """Requests of which no two fit into a shard together."""
    return [Request([{"role": "user", "content": text}], n, 8, 1.0, 0) for text in texts]


@pytest.fixture
def stage(tmp_path) -> Stage:
    return Store(tmp_path).stage("echo")


def test_answers_follow_the_requests(stage):
    asked = requests("long question", "b", "mid", n=2)
    answers = complete(stage, "echo", Echo(), asked)
    assert [[c.text for c in answer] for answer in answers] == [
        ["long question/0", "long question/1"],
        ["b/0", "b/1"],
        ["mid/0", "mid/1"],
    ]
    assert [answer[0].request for answer in answers] == [request.id for request in asked]


def test_finished_shards_are_never_sampled_again(stage):
    asked = requests("aaa", "b", "cc")
    expected = complete(stage, "echo", first := Echo(), asked)
    assert first.asked == [["b"], ["cc"], ["aaa"]]  # Neighbours in length.
    assert complete(stage, "echo", second := Echo(), asked) == expected
    assert second.asked == []


@pytest.mark.parametrize("breaks_at", [0, 1, 2])
def test_resuming_samples_only_what_is_missing(breaks_at, stage, tmp_path):
    asked = requests("aaa", "b", "cc")
    with pytest.raises(OSError, match="device is lost"):
        complete(stage, "echo", Echo(breaks_at), asked)
    resumed = complete(stage, "echo", sampler := Echo(), asked)
    assert sampler.asked == [["b"], ["cc"], ["aaa"]][breaks_at:]
    assert resumed == complete(Store(tmp_path / "other").stage("echo"), "echo", Echo(), asked)


class Backwards(Echo):
    """Ends the last sample first, and is killed after so many."""

    def __init__(self, killed_after: int | None = None):
        super().__init__()
        self._killed_after = killed_after

    def generate(self, requests, progress):
        found = super().generate(requests, progress)
        yield from reversed(found[-self._killed_after :] if self._killed_after else found)
        if self._killed_after:
            raise OSError("killed")


@pytest.mark.parametrize("killed_after", [3, 4, 5])  # Of six; before, no request has all.
def test_samples_that_ended_in_another_order_lie_in_theirs_after_a_kill(killed_after, tmp_path):
    asked = requests("a", "b", n=3)
    expected = complete(Store(tmp_path / "whole").stage("echo"), "echo", Backwards(), asked)
    assert [c.sample for answers in expected for c in answers] == [0, 1, 2, 0, 1, 2]
    stage = Store(tmp_path / "killed").stage("echo")
    with pytest.raises(OSError, match="killed"):
        complete(stage, "echo", Backwards(killed_after), asked)
    assert complete(stage, "echo", Backwards(), asked) == expected


def test_a_shard_without_its_manifest_is_sampled_again(stage):
    asked = requests("aaa", "b")
    expected = complete(stage, "echo", Echo(), asked)
    for path in stage.folder.glob("shard-*.jsonl"):
        if json.loads(path.read_text().splitlines()[0])["text"] == "b/0":
            path.with_suffix(".json").unlink()
    assert complete(stage, "echo", sampler := Echo(), asked) == expected
    assert sampler.asked == [["b"]]


@pytest.mark.parametrize(
    ("name", "tamper", "message"),
    [
        (
            "shard-*.jsonl",
            lambda t: t.replace("b/0", "b/1"),
            r"\w+\.jsonl is not what its manifest",
        ),
        ("shard-*.jsonl", lambda t: t[:-9], r"\w+\.jsonl:3: not JSON"),
        ("shard-*.json", lambda t: t[:-9], r"\w+\.json is not a JSON object"),
    ],
)
def test_a_tampered_shard_is_refused_until_it_is_deleted(name, tamper, message, stage):
    asked = requests("b", n=3)
    expected = complete(stage, "echo", Echo(), asked)
    [path] = stage.folder.glob(name)
    path.write_text(tamper(path.read_text()))
    with pytest.raises(DamagedFile, match=message):
        complete(stage, "echo", Echo(), asked)
    path.unlink()  # As the message says.
    assert complete(stage, "echo", Echo(), asked) == expected


def test_more_samples_than_a_shard_holds_stay_together(stage):
    answers = complete(stage, "echo", sampler := Echo(), requests("b", n=5000))
    assert [len(answer) for answer in answers] == [5000]
    assert sampler.asked == [["b"]]


def test_no_requests(stage):
    assert complete(stage, "echo", Echo(), []) == []


class Failing(Echo):
    """Answers all but what is bad."""

    def generate(self, requests, progress):
        for completion in super().generate(requests, progress):
            bad = "bad" in completion.text
            yield dataclasses.replace(completion, finish_reason="error") if bad else completion


class Refusing(Echo):
    """Refuses all, each request for itself or the model as a whole."""

    def __init__(self, model: bool):
        super().__init__()
        self._model = model

    def generate(self, requests, progress):
        if self._model:
            raise SamplerError("no such model")
        yield from ()
        raise AllRefused(
            "refused",
            [request.failure(i, "refused") for request in requests for i in range(request.n)],
        )


def test_where_nothing_was_ever_answered_refusals_end_it_and_are_asked_again(tmp_path):
    asked = requests("a", "b", n=3)
    with pytest.raises(AllRefused):
        generate_shards(tmp_path, "echo", Refusing(model=False), asked)
    generate_shards(tmp_path, "echo", sampler := Echo(), asked)
    assert sampler.asked == [["a", "b"]]


def test_where_others_were_answered_refusals_are_failed_rows(tmp_path):
    asked = requests("good", "bad")  # A shard each.
    with pytest.raises(OSError, match="device is lost"):
        generate_shards(tmp_path, "echo", Echo(breaks_at=1), asked)
    shards = generate_shards(tmp_path, "echo", Refusing(model=False), asked)
    reasons = [{c.finish_reason for c in read_shard(shard)} for shard in shards]
    assert reasons == [{"stop"}, {"error"}]


@pytest.mark.parametrize("model", [True, False])
def test_asking_again_in_vain_leaves_what_there_was(model, tmp_path):
    asked = requests("good", "bad", n=3)
    [before] = generate_shards(tmp_path, "echo", Failing(), asked)
    with contextlib.suppress(SamplerError):
        generate_shards(tmp_path, "echo", Refusing(model), asked, retry_failed=True)
    [after] = generate_shards(tmp_path, "echo", sampler := Echo(), asked)
    assert after == before
    assert sampler.asked == []
    assert sum(c.finish_reason == "error" for c in read_shard(after)) == 3


@pytest.mark.parametrize("moment", range(6))
def test_a_kill_while_asking_again_loses_nothing(moment, tmp_path, monkeypatch):
    asked = requests("good", "bad", n=3)
    generate_shards(tmp_path, "echo", Failing(), asked)
    replace, moments = os.replace, itertools.count()

    def dying(source, target):  # Before and after each of journal, rows and manifest.
        if next(moments) == moment:
            raise KeyboardInterrupt
        replace(source, target)
        if next(moments) == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        generate_shards(tmp_path, "echo", Echo(), asked, retry_failed=True)
    monkeypatch.setattr(os, "replace", replace)
    [shard] = generate_shards(tmp_path, "echo", sampler := Echo(), asked, retry_failed=True)
    asked_again = [text for texts in sampler.asked for text in texts]
    assert asked_again == (["bad"] if moment < 2 else [])
    completions = list(read_shard(shard))
    assert [c.text for c in completions] == [
        f"{text}/{i}" for text in ("bad", "good") for i in range(3)
    ]
    assert {c.finish_reason for c in completions} == {"stop"}
    assert not list(tmp_path.glob("*.journal"))
