"""The whole loop as its users start it, at the smallest sizes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALLEST = (
    "--flagfile=experiments/flagfiles/quickstart.flags",
    "--train_problems=10",
    "--explore_problems=5",
    "--test_problems=10",
    "--refine_examples=5",
    "--iterations=1",
    "--samples=1",
    "--critiques=1",
    "--critic_epochs=1",
    "--max_flawed=8",
    "--rg1_samples=1",
    "--rg2_rounds=1",
    "--rg3_attempts=1",
    "--filter_refinements=2",
    "--tau=0",
    "--rows=4",
    "--micro_rows=4",
    "--sequence=256",
    "--actor_tokens=100",
    "--critic_tokens=100",
    "--slots=8",
)
TIMES = {"wall_seconds", "peak_rss_bytes"}  # Memory is no more a matter of the seed than time is.


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Returns a function: (run folder, further flags) -> the started program."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def run(run_dir: pathlib.Path, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "experiments.self_improve", *SMALLEST]
        return subprocess.Popen(
            [*command, f"--run_dir={run_dir}", *flags],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.fixture(scope="module")
def finish(start):
    """Returns a function that runs the program to its end and returns its results.

    The folder they lie in is called RUN_DIR in them.
    """

    def run(run_dir: pathlib.Path) -> dict:
        process = start(run_dir)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        text = (run_dir / "results.json").read_text()
        return json.loads(text.replace(str(run_dir), "RUN_DIR"))

    return run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def results(finish, run_dir) -> dict:
    return finish(run_dir)


def lasting(results: dict) -> dict:
    """What must be the same however often a run was interrupted, and wherever it lies."""
    return {key: value for key, value in results.items() if key not in TIMES}


def manifests(run_dir: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/manifest.json")}


def test_results_hold_what_is_promised(results, run_dir):
    assert results["wall_seconds"] > 0
    assert results["peak_rss_bytes"] > 100_000_000
    assert results["test_problems"] == 10
    rows = results["iterations"]
    assert [(row["method"], row["iteration"]) for row in rows] == [
        ("vanilla", 0), ("vanilla", 1), ("critique", 0), ("critique", 1),
    ]  # fmt: skip
    for row in rows:
        low, high = row["ci95"]
        assert 0 <= low <= row["accuracy"] <= high <= 1
        assert set(row["accuracy_by_level"]) <= set("12345")
        assert sum(row["train_share_by_level"].values()) == pytest.approx(1)
        assert row["train_size"] >= 10
        assert (row["generated_tokens"] > 0) == (row["iteration"] > 0)
    comparison = results["comparison"]
    difference = rows[3]["accuracy"] - rows[1]["accuracy"]
    assert comparison["critique_minus_vanilla"] == pytest.approx(difference)
    assert comparison["ci95"][0] <= difference <= comparison["ci95"][1]
    assert comparison["paired_by"] == "problem"
    assert "<svg" in (run_dir / "report.html").read_text()
    assert results["models"]
    for folder in results["models"].values():
        assert (run_dir / folder.removeprefix("RUN_DIR/") / "config.json").is_file()


def test_the_same_command_again_redoes_nothing(results, finish, run_dir):
    before = manifests(run_dir)
    again = finish(run_dir)
    assert lasting(again) == lasting(results)
    assert manifests(run_dir) == before
    assert again["wall_seconds"] < results["wall_seconds"] / 2


def test_killed_runs_end_as_the_uninterrupted(results, start, finish, tmp_path):
    for stage in ("actor-0", "filter"):  # As a training begins, and as a sampling does.
        process = start(tmp_path)
        while not list(tmp_path.glob(f"stages/{stage}-*")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not list(tmp_path.glob(f"stages/{stage}-*/manifest.json"))
    assert lasting(finish(tmp_path)) == lasting(results)


@pytest.mark.parametrize(("flags", "message"), [
    (["--model=/nowhere"], "error: /nowhere/config.json: no such file"),
    (["--train_problems=0"], "flag --explore_problems=5: --explore_problems needs"),
    (["--train_problems=0", "--explore_problems=0"], "error: --train_problems: say how many"),
    (["--samples=0"], "flag --samples=0: 0 is not a positive integer"),
    (["--task=gsm8k", "--data_dir=/nowhere"], "error: /nowhere/gsm8k/train.jsonl: no such file"),
])  # fmt: skip
def test_bad_input_is_refused_in_a_line(flags, message, start, tmp_path):
    process = start(tmp_path, *flags)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    first, *rest = errors.strip().split("\n")
    assert message in first
    assert rest in ([], ["Pass --helpshort or --helpfull to see help on flags."])
    assert not list(tmp_path.iterdir())


def test_another_seed_in_the_same_folder_is_refused(results, start, run_dir):
    process = start(run_dir, "--seed=1")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith(f"error: {run_dir} holds a run with another --seed (0, now 1).")
    assert errors.count("\n") == 1
