"""The trainer as a program: what it reads, refuses, and survives."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.sft import read_examples
from jaxcritique.tasks import TINY_BASE
from jaxcritique.training.data import Example

ROOT = pathlib.Path(__file__).resolve().parents[2]


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
    ],
)
def test_bad_row_is_named(row, message, tmp_path):
    path = write(tmp_path / "data.jsonl", {"prompt": "a", "target": "b"}, row)
    with pytest.raises(ValueError, match=rf"data\.jsonl:2: .*{message}"):
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


def command(data: pathlib.Path, run_dir: pathlib.Path, *flags: str) -> list[str]:
    return [
        sys.executable, "-m", "experiments.sft", f"--model={TINY_BASE}", f"--data={data}",
        f"--run_dir={run_dir}", "--rows=4", "--sequence=64", "--epochs=4", "--learning_rate=1e-3",
        "--checkpoint_steps=4", *flags,
    ]  # fmt: skip


def environment(devices: int = 1) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }


def run(arguments: list[str], devices: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> pathlib.Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("finished")
    result = run(command(data, folder))
    assert result.returncode == 0, result.stderr
    return folder


def weights(run_dir: pathlib.Path) -> dict[str, np.ndarray]:
    return load_file(run_dir / "model" / "model.safetensors")


def losses(run_dir: pathlib.Path) -> list[float]:
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows]


def test_training_learns_and_leaves_a_model(finished):
    found = losses(finished)
    assert found[-1] < 0.7 * found[0]
    base = load_file(next(TINY_BASE.glob("*.safetensors")))
    assert {k: v.dtype for k, v in weights(finished).items()} == {
        k: v.dtype for k, v in base.items()
    }


def kill_until_done(arguments: list[str], seconds: list[float], devices: list[int]) -> None:
    """Starts the command again and again, killing it so many seconds after it first trains."""
    metrics = next(pathlib.Path(a[10:]) for a in arguments if a.startswith("--run_dir="))
    metrics = metrics / "metrics.jsonl"
    for wait, count in zip(seconds, devices, strict=True):
        before = metrics.stat().st_mtime_ns if metrics.exists() else 0
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=environment(count),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None and not (
            metrics.exists() and metrics.stat().st_mtime_ns > before
        ):
            time.sleep(0.02)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_killed_at_any_moment_it_ends_the_same(data, finished, tmp_path):
    moments = np.random.default_rng(0).uniform(0, 2, 3).tolist()
    kill_until_done(command(data, tmp_path), moments, [1] * 3)
    result = run(command(data, tmp_path))
    assert result.returncode == 0, result.stderr
    for name, tensor in weights(finished).items():
        np.testing.assert_array_equal(tensor, weights(tmp_path)[name])


def test_going_on_with_fewer_devices(data, finished, tmp_path):
    kill_until_done(command(data, tmp_path), [1.0], [4])
    result = run(command(data, tmp_path), devices=2)
    assert result.returncode == 0, result.stderr
    # Sums are added up in another order, and over 80 steps that grows.
    np.testing.assert_allclose(losses(tmp_path), losses(finished), atol=1e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed=1"], "holds a run with another --seed (0, now 1)"),
        (["--from_step=3"], "there is no checkpoint of step 3"),
        (["--sequence=8"], "examples exceed --sequence=8"),
        (["--mesh=fsdp=2"], "--mesh=fsdp=2 asks for 2 devices; there are 1"),
        (["--micro_rows=3"], "--micro_rows=3 must divide"),
        (["--model=nowhere"], "nowhere/config.json: no such file"),
    ],
)
def test_what_cannot_go_on_is_refused_in_a_line(flags, message, data, finished, tmp_path):
    folder = finished if flags[0].startswith(("--seed", "--from_step")) else tmp_path
    result = run(command(data, folder, *flags))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert message in result.stderr


def test_changed_data_does_not_go_on(data, finished, tmp_path):
    other = tmp_path / "sums.jsonl"
    other.write_text(data.read_text().replace("0+0=0.", "0+0=1."))
    result = run(command(other, finished))
    assert result.returncode == 1
    assert "holds a run with another --data" in result.stderr
