"""Self-talk as its users start it, with real models at the smallest sizes.

What its results hold is tested in tests/improvement.
"""

import json
import pathlib

import pytest

from jaxcritique.tasks import TINY_BASE

SMALLEST = (
    "--flagfile=experiments/flagfiles/laptop/self-talk.flags",
    "--critic=checker",
    f"--actor={TINY_BASE}",
    "--train_problems=8",
    "--test_problems=3",
    "--refine_examples=4",
    "--samples=2",
    "--rounds=1",
    "--k=1,2",
    "--rows=4",
    "--micro_rows=4",
    "--sequence=384",
    "--actor_tokens=100",
    "--self_talk_tokens=120",
    "--slots=8",
)
VARYING = {"command", "wall_seconds", "peak_rss_bytes"}


def read_results(run_dir: pathlib.Path) -> dict:
    found = json.loads((run_dir / "results.json").read_text())
    return {key: value for key, value in found.items() if key not in VARYING}


@pytest.mark.slow
def test_a_killed_run_resumes_and_the_same_command_again_samples_nothing(
    start, run_process, run, tmp_path
):
    flags = (*SMALLEST, f"--run_dir={tmp_path}")
    program = start("self_talk", *flags)
    program.wait_until(lambda: list(tmp_path.glob("stages/actor-self-talk-*")))
    program.kill()
    done = run_process("self_talk", *flags)
    assert done.returncode == 0, done.stderr
    assert "Self-talk via critique" in done.stdout
    results = read_results(tmp_path)
    for folder in results["models"].values():
        assert (tmp_path / folder / "config.json").is_file()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("stages/*/*")}
    assert run("self_talk", *flags).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("stages/*/*")} == before
    assert read_results(tmp_path) == results


@pytest.mark.parametrize(("flags", "message"), [
    (["--critic=/nowhere"], "error: --critic=/nowhere: /nowhere/config.json: no such file"),
    (["--data_critic=/nowhere"], "error: --data_critic=/nowhere: /nowhere/config.json: no such"),
    (["--k="], "error: --k=: give at least one"),
])  # fmt: skip
def test_bad_input_is_refused_in_a_line(flags, message, run, tmp_path):
    run_dir = tmp_path / "run"
    done = run("self_talk", *SMALLEST, f"--run_dir={run_dir}", *flags)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not run_dir.exists()
