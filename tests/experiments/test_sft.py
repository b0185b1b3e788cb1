"""The trainer as a program: what it reads, refuses, and survives."""

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxcritique.tasks import TINY_BASE
from jaxcritique.training.data import Example
from jaxcritique.training.examples import read_examples


def write(path: pathlib.Path, *rows) -> pathlib.Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_rows_of_every_form(tmp_path):
    user, reply = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "四"}
    path = write(
        tmp_path / "data.jsonl",
        {"prompt": "2+2?", "target": "四"},
        {"messages": [user], "target": "四", "weight": 0.25},
        {"messages": [user, reply]},
    )
    expected = [Example([user], "四"), Example([user], "四", 0.25), Example([user], "四")]
    assert read_examples(path) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a"}, "there is no target"),
        ({"prompt": "a", "target": ""}, "there is no target"),
        ({"target": "b"}, "one of 'prompt' and 'messages'"),
        ({"prompt": "a", "messages": [], "target": "b"}, "one of 'prompt' and 'messages'"),
        ({"messages": [{"role": "user"}], "target": "b"}, "a message is"),
        ({"prompt": "a", "target": "b", "weight": -1}, "'weight' is -1"),
        ({"prompt": "a", "target": "b", "wieght": 1}, "unknown field 'wieght'"),
        (["a", "b"], "not a JSON object"),
        ({"prompt": 5, "target": "b"}, "role and content, are text"),
        ({"messages": "a", "target": "b"}, "'messages' is not a list"),
        ({"messages": ["a"], "target": "b"}, "a message is"),
    ],
)
def test_bad_row_is_named(row, message, tmp_path):
    path = write(tmp_path / "data.jsonl", {"prompt": "a", "target": "b"}, row)
    with pytest.raises(ValueError, match=rf"data\.jsonl:2: .*{message}"):
        read_examples(path)


def test_line_that_is_not_text_is_named(tmp_path):
    path = write(tmp_path / "data.jsonl", {"prompt": "a", "target": "b"})
    path.write_bytes(path.read_bytes() + b'{"prompt": "\xff"}\n')
    with pytest.raises(ValueError, match=r"data\.jsonl:2: not JSON \(column 13: not UTF-8"):
        read_examples(path)


def test_broken_json_is_named(tmp_path):
    path = write(tmp_path / "data.jsonl", {"prompt": "a", "target": "b"})
    path.write_text(path.read_text() + '{"prompt": "a\n')
    with pytest.raises(ValueError, match=r"data\.jsonl:2: not JSON \(column 12: Unterminated"):
        read_examples(path)


def test_empty_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="holds no examples"):
        read_examples(write(tmp_path / "data.jsonl"))
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_examples(tmp_path / "none.jsonl")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    rows = [
        {"prompt": f"What is {a} + {b}?", "target": f"{a}+{b}={a + b}.", "weight": 1 / (1 + a % 2)}
        for a in range(20)
        for b in range(10)
    ]
    return write(tmp_path_factory.mktemp("data") / "sums.jsonl", *rows)


def flags_of(data: pathlib.Path, run_dir: pathlib.Path, *flags: str) -> list[str]:
    return [
        f"--model={TINY_BASE}", f"--data={data}", f"--run_dir={run_dir}", "--rows=8",
        "--sequence=64", "--epochs=4", "--learning_rate=1e-3", "--checkpoint_steps=4", *flags,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def train(run) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function: data, run folder, further flags, devices -> the program as it ended."""

    def train(data, run_dir, *flags, devices: int = 1) -> subprocess.CompletedProcess[str]:
        environment = {} if devices == 1 else {"JAX_NUM_CPU_DEVICES": str(devices)}
        return run("sft", *flags_of(data, run_dir, *flags), **environment)

    return train


@pytest.fixture(scope="module")
def finished(data, train, tmp_path_factory) -> pathlib.Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("finished")
    result = train(data, folder)
    assert result.returncode == 0, result.stderr
    return folder


def weights(run_dir: pathlib.Path) -> dict[str, np.ndarray]:
    return load_file(run_dir / "model" / "model.safetensors")


def metrics(run_dir: pathlib.Path) -> list[dict]:
    return [json.loads(row) for row in (run_dir / "metrics.jsonl").read_text().splitlines()]


def losses(run_dir: pathlib.Path) -> list[float]:
    return [row["loss"] for row in metrics(run_dir)]


@pytest.mark.slow
def test_training_learns_and_leaves_a_model(finished):
    found = losses(finished)
    assert found[-1] < 0.7 * found[0]
    base = load_file(next(TINY_BASE.glob("*.safetensors")))
    assert {k: v.dtype for k, v in weights(finished).items()} == {
        k: v.dtype for k, v in base.items()
    }


def last_step(run_dir: pathlib.Path) -> int:
    path = run_dir / "metrics.jsonl"
    *rows, _ = path.read_text().split("\n") if path.exists() else [""]
    return json.loads(rows[-1])["step"] if rows else 0


@pytest.fixture(scope="module")
def kill(start) -> Callable[..., None]:
    """Returns a function that runs the program and kills it.

    That is so many seconds after the metrics have that step, or at once where an earlier start got
    further: then it dies while it starts.
    """

    def kill(data, run_dir, step: int, wait: float, devices: int) -> None:
        program = start("sft", *flags_of(data, run_dir), JAX_NUM_CPU_DEVICES=str(devices))
        program.wait_until(lambda: last_step(run_dir) >= step)
        time.sleep(wait)
        program.kill()

    return kill


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(data, finished, train, kill, tmp_path):
    """JAXCRITIQUE_KILLS says how often; the moments are drawn anew each time, and printed."""
    rng = np.random.default_rng()
    kills = int(os.environ.get("JAXCRITIQUE_KILLS", 3))
    steps = sorted(rng.choice(len(losses(finished)) - 8, kills, replace=False))
    for step in steps:
        kill(data, tmp_path, step, wait := rng.uniform(0, 0.1), devices=1)
        print(f"killed {wait:.3f} s after step {step} was asked for, at {last_step(tmp_path)}")
    result = train(data, tmp_path)
    assert result.returncode == 0, result.stderr
    assert losses(tmp_path) == losses(finished)
    for name, tensor in weights(finished).items():
        np.testing.assert_array_equal(tensor, weights(tmp_path)[name])


@pytest.mark.slow
def test_killed_on_eight_devices_it_goes_on_with_four(data, finished, train, kill, tmp_path):
    kill(data, tmp_path, 20, 0.0, devices=8)
    assert len(losses(tmp_path)) < len(losses(finished))
    result = train(data, tmp_path, devices=4)
    assert result.returncode == 0, result.stderr
    # Each start says what compiling took: this one went on from a checkpoint.
    first, second = (row["step"] for row in metrics(tmp_path) if "compile_seconds" in row)
    assert first == 1
    assert second > 4
    # Sums are added up in another order, and over so many steps that grows.
    np.testing.assert_allclose(losses(tmp_path), losses(finished), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed=1"], "holds a run with another --seed (0, now 1)"),
        (["--compute_dtype=bfloat16"], "another --compute_dtype (None, now 'bfloat16')"),
        (["--clip_norm=0"], "--clip_norm=0.0 must be above 0"),
        (["--from_step=3"], "there is no checkpoint of step 3"),
        (["--sequence=16"], "examples exceed --sequence=16"),
        (["--mesh=fsdp=2"], "--mesh=fsdp=2 asks for 2 devices; there are 1"),
        (["--micro_rows=3"], "--micro_rows=3 must divide"),
        (["--attention=splash"], "--attention=splash does not run on cpu"),
        (["--model=nowhere"], "nowhere/config.json: no such file"),
    ],
)
def test_what_cannot_go_on_is_refused_in_a_line(flags, message, data, finished, train, tmp_path):
    folder = finished if flags[0].startswith(("--seed", "--compute", "--from_step")) else tmp_path
    result = train(data, folder, *flags)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert message in result.stderr


@pytest.mark.slow
def test_each_device_works_on_a_row_at_least(data, train, tmp_path):
    """Also where --micro_rows says fewer; rows that cannot be divided are refused."""
    result = train(data, tmp_path / "fits", "--micro_rows=2", "--epochs=1", devices=4)
    assert result.returncode == 0, result.stderr
    result = train(data, tmp_path / "not", devices=3)
    assert result.returncode == 1
    message = "error: --rows=8 cannot be divided over data x fsdp = 3 devices; use a multiple of it"
    assert message in result.stderr
    assert not (tmp_path / "not").exists()


def test_what_was_refused_claims_no_folder(data, train, tmp_path):
    for flags, code in ((["--sequence=16"], 1), ([], 0)):
        result = train(data, tmp_path, *flags, "--epochs=1")
        assert result.returncode == code, result.stderr


@pytest.mark.slow
def test_changed_data_does_not_go_on(data, finished, train, tmp_path):
    other = tmp_path / "sums.jsonl"
    other.write_text(data.read_text().replace("0+0=0.", "0+0=1."))
    result = train(other, finished)
    assert result.returncode == 1
    assert "holds a run with another --data" in result.stderr


def test_a_row_beyond_the_model_context_is_named(data, train, tmp_path):
    longer = tmp_path / "longer.jsonl"
    longer.write_text(data.read_text() + json.dumps({"prompt": "1+" * 900, "target": "2"}) + "\n")
    result = train(longer, tmp_path / "run", "--sequence=4096", "--too_long=error")
    assert result.returncode == 1
    assert "exceed the model's context of 1024 tokens (example " in result.stderr
    assert "Leave them out with --too_long=drop." in result.stderr
