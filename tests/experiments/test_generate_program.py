"""Generation as its users start it."""

import collections
import json
import pathlib
import shutil
import sys
from collections.abc import Callable

import pytest

from jaxcritique.rollout.journal import generate_shards
from jaxcritique.rollout.prompt_files import SamplingConfig, read_requests, write_batch
from jaxcritique.rollout.sampler import Completion, Request
from jaxcritique.tasks import TINY_BASE

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "rollout"))

from flaky import serve  # noqa: E402


def test_where_nothing_is_answered_the_exit_code_says_so(run, tmp_path):
    prompts = write(tmp_path / "p.jsonl", [{"id": text, "prompt": text} for text in "abc"])
    flags = (prompts, f"--output={tmp_path / 'out'}", "--engine=server", "--model=m")
    with serve(doomed=lambda text: "400" if refusing else None) as server:
        flags = (*flags, f"--endpoint={server.url}")
        refusing = True
        for again in ((), ("--retry_failed",)):
            done = run("generate", *flags, *again)
            assert done.returncode == 1
            assert "3 failed: " in done.stderr
            assert "Traceback" not in done.stderr
        refusing = False
        assert run("generate", *flags).returncode == 1  # What failed is kept until it is asked for.
        assert run("generate", *flags, "--retry_failed").returncode == 0


@pytest.fixture(scope="module")
def finish(run) -> Callable[..., None]:
    """Returns a function that runs the program with these flags to its end."""

    def finish(*flags: str) -> None:
        done = run("generate", *flags)
        assert done.returncode == 0, done.stderr

    return finish


def write(path: pathlib.Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"--prompts={path}"


def rows(folder: pathlib.Path) -> list[dict]:
    files = sorted(folder.glob("shard-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def samples(folder: pathlib.Path) -> dict[tuple[str, int], dict]:
    found = {(row["id"], row["sample"]): row for row in rows(folder)}
    assert len(found) == len(rows(folder))
    return found


@pytest.mark.slow
def test_a_thousand_prompts_to_a_flaky_server_and_killed_on_the_way(start, finish, tmp_path):
    flags = [
        write(tmp_path / "p.jsonl", ({"id": f"q{i}", "prompt": f"say {i}"} for i in range(1000))),
        "--engine=server",
        "--model=flaky",
        "--request_seconds=1",
    ]
    with serve(0.3, delay=0.01) as server:
        flags.append(f"--endpoint={server.url}")
        program = start("generate", *flags, f"--output={tmp_path / 'out'}")
        program.wait_until(lambda: server.answered.total() >= 200)
        program.kill()
        answered = collections.Counter(server.answered)
        finish(*flags, f"--output={tmp_path / 'out'}")
        # What was answered once is not asked again, but for the few whose answer was on its way.
        again = sum(server.answered[text] > 1 for text in answered)
        assert again <= 64
    found = samples(tmp_path / "out")
    assert found.keys() == {(f"q{i}", 0) for i in range(1000)}
    failed = [row for row in found.values() if row["finish_reason"] == "error"]
    for (name, sample), row in found.items():
        assert row["finish_reason"] in ("stop", "error")
        if row["finish_reason"] == "stop":
            assert row["text"] == f"say {name[1:]}/{sample}"
        else:
            assert row["error"].startswith("given up after 10 attempts")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["samples"], manifest["failed"]) == (1000, len(failed))
    assert not list((tmp_path / "out").glob("*.journal"))


def test_what_failed_is_asked_again_when_told_to(finish, tmp_path):
    flags = [
        write(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}]),
        "--engine=server",
        "--model=flaky",
        "--request_attempts=1",
        f"--output={tmp_path / 'out'}",
    ]
    with serve(doomed=lambda text: "500" if text == "a" else None) as server:
        flags.append(f"--endpoint={server.url}")
        finish(*flags)
        assert sorted(row["finish_reason"] for row in rows(tmp_path / "out")) == ["error", "stop"]
        server.doomed = lambda text: None
        finish(*flags)
        assert server.asked == {"a": 1, "b": 1}
        finish(*flags, "--retry_failed")
        assert server.asked == {"a": 2, "b": 1}
    assert sorted(row["text"] for row in rows(tmp_path / "out")) == ["a/0", "b/0"]


@pytest.fixture(scope="module")
def story_flags(tmp_path_factory):
    """Ten prompts, one of them twice, and one in chat format."""
    folder = tmp_path_factory.mktemp("stories")
    prompts = [{"prompt": f"Tom has {i} apples. That"} for i in (1, 2, 3, 1)]
    prompts += [{"id": i, "messages": [{"role": "user", "content": "Tö has 5."}]} for i in (7, 8)]
    flags = (f"--model={TINY_BASE}", "--n=2", "--max_tokens=12", "--seed=3", "--slots=8")
    return (write(folder / "p.jsonl", prompts), *flags)


@pytest.fixture(scope="module")
def stories(finish, story_flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(*story_flags, f"--output={folder}")
    return folder


def test_ids_are_given_or_of_the_content(stories):
    counts = collections.Counter(name for name, _ in samples(stories))
    assert sorted(counts.values()) == [2, 2, 2, 2, 4]
    assert (counts["7"], counts["8"]) == (2, 2)
    for row in rows(stories):
        keys = {"id", "sample", "text", "finish_reason", "prompt_tokens", "completion_tokens"}
        assert row.keys() == keys
        assert row["completion_tokens"] > 0
    manifest = json.loads((stories / "manifest.json").read_text())
    assert (manifest["rows_read"], manifest["requests"], manifest["samples"]) == (6, 5, 12)


def test_parts_make_the_whole(finish, story_flags, stories, tmp_path):
    for index in range(2):
        finish(*story_flags, f"--output={tmp_path}", f"--shard={index}/2")
    assert samples(tmp_path) == samples(stories)
    assert (tmp_path / "manifest-1-of-2.json").is_file()


@pytest.mark.slow
def test_a_killed_program_with_our_engine_ends_with_the_same_rows(start, finish, tmp_path):
    prompts = [{"id": f"q{i}", "prompt": f"Tom has {i} apples. That"} for i in range(40)]
    flags = (
        write(tmp_path / "p.jsonl", prompts),
        *(f"--model={TINY_BASE}", "--n=3", "--max_tokens=60", "--min_tokens=60", "--slots=4"),
    )
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    program = start("generate", *flags, f"--output={killed}")

    def journal() -> list[str]:
        return [line for path in killed.glob("*.journal") for line in path.open()]

    program.wait_until(lambda: len(journal()) >= 30)
    program.kill()
    kept = len(journal())
    assert kept < 120
    again = start("generate", *flags, f"--output={killed}")
    assert again.process.wait(600) == 0
    assert f"| {kept}/120 [00:00<?" in again.errors.read_text()  # The bar begins where it stood.
    finish(*flags, f"--output={whole}")
    assert samples(killed) == samples(whole)
    assert len(samples(whole)) == 120


def test_a_batch_in_and_out(finish, tmp_path):
    body = {"model": "m", "messages": [{"role": "user", "content": "Tom has 5."}], "n": 2,
            "max_completion_tokens": 5, "temperature": 0}  # fmt: skip
    batch = [
        {"custom_id": "b", "method": "POST", "url": "/v1/chat/completions", "body": body},
        {"custom_id": "a", "method": "POST", "url": "/v1/completions",
         "body": {"prompt": "Tom has " * 2000, "max_tokens": 3}},
    ]  # fmt: skip
    finish(write(tmp_path / "in", batch), f"--model={TINY_BASE}", f"--output={tmp_path / 'out'}")
    lines = (tmp_path / "out" / "batch.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["custom_id"], first["error"], second["custom_id"]) == ("b", None, "a")
    reply = first["response"]["body"]
    assert first["response"]["status_code"] == 200
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    assert reply["choices"][0]["message"] == reply["choices"][1]["message"]
    assert reply["usage"]["completion_tokens"] <= 10
    assert second["response"] is None
    assert second["error"]["message"].endswith("tokens, the context 1024")


def test_a_batch_row_has_logprobs_and_the_samples_that_did_not_fail(tmp_path):
    class HalfFails:
        key = "half fails"

        def generate(self, requests, progress):
            for request in requests:
                for sample in range(request.n):
                    if sample and request.name != "fine":
                        yield request.failure(sample, f"no sample {sample}", 7)
                    else:
                        likely = (-0.5, -0.25) if request.logprobs else None
                        yield Completion(request.id, sample, "t", "stop", 7, 2, logprobs=likely)

    messages = [{"role": "user", "content": "a"}]
    asked = [
        Request(messages, 2, 8, 1.0, 0, name="fine", logprobs=True),
        Request([], 1, 8, 1.0, 0, text="a", name="text", logprobs=True),
        Request([], 3, 8, 1.0, 0, text="a", name="half"),
    ]
    shards = generate_shards(tmp_path, "batch", HalfFails(), asked)
    write_batch(tmp_path / "batch.jsonl", asked, shards, "m")
    fine, text, half = map(json.loads, (tmp_path / "batch.jsonl").read_text().splitlines())
    assert fine["error"] is None
    likely = {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}
    assert [c["logprobs"] for c in fine["response"]["body"]["choices"]] == [likely, likely]
    [choice] = text["response"]["body"]["choices"]
    assert choice["logprobs"] == {"token_logprobs": [-0.5, -0.25]}
    [choice] = half["response"]["body"]["choices"]
    assert (choice["index"], choice["text"], "logprobs" in choice) == (0, "t", False)
    assert half["response"]["body"]["usage"]["prompt_tokens"] == 7
    assert half["error"]["message"] == "2 of 3 samples failed: no sample 1"


def asking(**settings) -> str:
    return json.dumps({"custom_id": "x", "body": {"prompt": "a", **settings}})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "there are no rows"),
        ('{"prompt": "a"}\n{"prompt": 3}\n', "p.jsonl:2: 'prompt' is not a text"),
        ("not json\n", r"p.jsonl:1: not JSON \(column 1: Expecting value\)"),
        ('{"prompt": "a"}\n{"prompt": ""}\n', "p.jsonl:2: 'prompt' is empty"),
        ('{"text": "a"}\n', "p.jsonl:1: a row needs either .* and this has neither"),
        ('{"prompt": "a", "messages": []}\n', "p.jsonl:1: a row needs either .* and this has both"),
        ('{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n', ":2: line 1 has the same"),
        ("\xff\n".encode("latin-1"), "p.jsonl:1: "),
        ('{"id": "x", "prompt": "\\ud800"}\n', "p.jsonl:1: 'utf-8' codec can't encode"),
        (asking(temperature=float("nan")), "p.jsonl:1: temperature=nan: give a finite number"),
        (asking(top_p=0), "p.jsonl:1: top_p=0 must be above 0"),
        (asking(stop=["a", ""]), "p.jsonl:1: stop="),
        (asking(stop_token_ids=[-1]), "p.jsonl:1: stop_token_ids="),
        (asking(max_tokens=1, min_tokens=2), "p.jsonl:1: min_tokens=2"),
        (asking(tools=[]), "'tools' is not supported"),
    ],
)
def test_bad_prompts_are_refused_by_line(lines, message, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    with pytest.raises(ValueError, match=message) as refused:
        read_requests(path, SamplingConfig())
    assert str(path) in str(refused.value)


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n{"prompt": "b"}\r\n')
    assert [r.text for r in read_requests(path, SamplingConfig()).requests] == ["a", "b"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine=server", "--vllm_python=/nowhere/python"], "--vllm_python=/nowhere/python: No"),
        (["--endpoint=http://127.0.0.1:9"], "--endpoint is for --engine=server"),
    ],
)
def test_bad_flags_are_refused_in_a_line(flags, message, run, tmp_path):
    prompts = write(tmp_path / "p.jsonl", [{"prompt": "a"}])
    given = (prompts, f"--model={TINY_BASE}", f"--output={tmp_path / 'out'}", *flags)
    done = run("generate", *given, timeout=120)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_another_run_s_folder_is_refused(run, story_flags, stories):
    flags = (*story_flags, f"--output={stories}", "--temperature=0.5")
    done = run("generate", *flags, timeout=120)
    assert "holds a run with another --temperature (1.0, now 0.5)" in done.stderr


def test_a_folder_of_other_prompts_or_parts_is_refused_by_flag(run, tmp_path):
    with serve() as server:
        served = ("--engine=server", "--model=flaky", f"--endpoint={server.url}")
        flags = (*served, f"--output={tmp_path / 'out'}")
        prompts = write(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
        assert run("generate", prompts, *flags, timeout=120).returncode == 0
        done = run("generate", prompts, *flags, "--shard=0/2", timeout=120)
        assert "another --shard ('i/1', now 'i/2')" in done.stderr
        fewer = write(tmp_path / "p.jsonl", [{"prompt": "a"}])
        done = run("generate", fewer, *flags, timeout=120)
        assert "another --prompts ('2 rows, sha256 " in done.stderr


def test_servers_with_habits_of_their_own(run, tmp_path):
    def habit(answer, text):
        first, *_ = answer["choices"]
        match text:
            case "spelled":
                return {"choices": [{**c, "finish_reason": "eos_token"} for c in answer["choices"]]}
            case "one":
                return {**answer, "choices": answer["choices"][-1:]}
            case "thought":
                first |= {
                    "message": {"content": None, "reasoning": "Hm"},
                    "finish_reason": "length",
                }
                return answer
            case _:
                return {"error": {"message": "no such thing", "code": 400}}

    texts = ("spelled", "one", "thought", "error")
    prompts = write(
        tmp_path / "p.jsonl", [{"messages": [{"role": "user", "content": t}]} for t in texts]
    )
    with serve(habit=habit) as server:
        flags = ("--engine=server", "--model=odd", f"--endpoint={server.url}", "--n=2")
        done = run("generate", prompts, *flags, f"--output={tmp_path / 'out'}", timeout=120)
        assert server.asked == {"spelled": 1, "one": 2, "thought": 1, "error": 1}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["stopped"], manifest["cut_off"], manifest["failed"]) == (5, 1, 2)
    assert "no such thing" in done.stdout + done.stderr
    assert "odd does not say how many tokens its replies have" in done.stderr


def test_a_tampered_shard_is_refused_in_a_line(run, finish, story_flags, stories, tmp_path):
    folder = shutil.copytree(stories, tmp_path / "out")
    [path] = folder.glob("shard-*.jsonl")
    path.write_text(path.read_text()[:-9])
    done = run("generate", *story_flags, f"--output={folder}", timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {path}:12: not JSON")
    assert "Traceback" not in done.stderr
    path.unlink()  # As the message says.
    finish(*story_flags, f"--output={folder}")
    assert samples(folder) == samples(stories)


def test_two_at_once_on_one_folder_are_refused(start, run, finish, tmp_path):
    flags = [
        write(tmp_path / "p.jsonl", [{"prompt": "a"}]),
        *("--engine=server", "--model=flaky", f"--output={tmp_path / 'out'}"),
    ]
    with serve(kinds=("hang",), failing=1.0) as server:
        flags.append(f"--endpoint={server.url}")
        first = start("generate", *flags)
        first.wait_until(lambda: server.asked)
        second = run("generate", *flags, timeout=120)
        assert second.returncode == 1
        refusal = f"{tmp_path / 'out'} is in use by process {first.process.pid} on"
        assert refusal in second.stderr.splitlines()[-1]
        first.kill()
        server.failing = 0.0
        finish(*flags)  # Of a killed process no lock is left.
    assert [row["text"] for row in rows(tmp_path / "out")] == ["a/0"]
