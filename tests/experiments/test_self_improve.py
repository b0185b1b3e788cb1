"""Self-improvement as its users start it, with real models at the smallest sizes.

What its results hold is tested in tests/improvement.
"""

import json
import pathlib
import shutil

import pytest

SMALLEST = (
    "--flagfile=experiments/flagfiles/quickstart.flags",
    "--train_problems=6",
    "--explore_problems=3",
    "--test_problems=6",
    "--refine_examples=5",
    "--iterations=1",
    "--samples=1",
    "--critiques=2",
    "--epochs=1",
    "--critic_epochs=1",
    "--max_flawed=6",
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
    "--slots=32",
)
# Where and how long it ran; memory depends on the process as time does.
VARYING = {"command", "wall_seconds", "peak_rss_bytes"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def results(run, run_dir) -> dict:
    done = run("self_improve", *SMALLEST, f"--run_dir={run_dir}")
    assert done.returncode == 0, done.stderr
    assert "After iteration 1, critique-in-the-loop solves" in done.stdout
    assert done.stdout.endswith(f"{run_dir / 'results.json'}\n{run_dir / 'report.html'}\n")
    return read_results(run_dir)


def read_results(run_dir: pathlib.Path) -> dict:
    """What must be the same however often a run was interrupted, and wherever it lies."""
    found = json.loads((run_dir / "results.json").read_text())
    return {key: value for key, value in found.items() if key not in VARYING}


@pytest.mark.slow
def test_a_killed_run_ends_as_the_uninterrupted(results, start, run_process, tmp_path):
    program = start("self_improve", *SMALLEST, f"--run_dir={tmp_path}")
    program.wait_until(lambda: list(tmp_path.glob("stages/filter-*")))
    program.kill()
    assert not list(tmp_path.glob("stages/filter-*/manifest.json"))
    done = run_process("self_improve", *SMALLEST, f"--run_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert read_results(tmp_path) == results
    command = json.loads((tmp_path / "results.json").read_text())["command"]
    assert command.startswith("python -m experiments.self_improve --flagfile=")


@pytest.mark.slow
def test_a_model_that_was_deleted_is_made_anew(results, run, run_dir):
    model = run_dir / results["models"]["vanilla actor"]
    weights = (model / "model.safetensors").read_bytes()
    shutil.rmtree(model)
    assert run("self_improve", *SMALLEST, f"--run_dir={run_dir}").returncode == 0
    assert read_results(run_dir) == results
    assert (model / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(("flags", "message"), [
    (["--model=/nowhere"], "error: --model=/nowhere: /nowhere/config.json: no such file"),
    (["--train_problems=0"], "error: --explore_problems=3 needs --train_problems"),
    (["--methods=vanilla,critique,best"], "error: --methods=vanilla,critique,best: there is no"),
])  # fmt: skip
def test_bad_input_is_refused_in_a_line(flags, message, run, tmp_path):
    done = run("self_improve", *SMALLEST, f"--run_dir={tmp_path}", *flags)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
