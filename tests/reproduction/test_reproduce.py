"""The reproduction as its users start it: one small part for real, others made by the test."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

import pytest
from absl import flags as absl_flags

from experiments import reproduce as program
from experiments.program import call, define_flags
from experiments.reproduction.parts import PARTS
from experiments.reproduction.plan import ReproductionPlan
from jaxcritique import run_folder
from jaxcritique.records import to_json
from jaxcritique.tasks import TINY_BASE, load_problems

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def reproduce(program_environment) -> Callable[..., tuple[int, str]]:
    """Returns a function: flags -> exit code, and all that was printed, of a call in this process.

    The parts are processes of their own.
    """

    def reproduce(*flags: str) -> tuple[int, str]:
        values = absl_flags.FlagValues()
        define_flags(program.CONFIGS, values)
        printed = io.StringIO()
        with (
            contextlib.redirect_stdout(printed),
            contextlib.chdir(ROOT),
            mock.patch.dict(os.environ, program_environment, COLUMNS="200"),
        ):
            try:
                call(program.main, program.CONFIGS, values(["reproduce", *flags]), values)
            except SystemExit as end:
                if isinstance(end.code, int):
                    return end.code, printed.getvalue()
                return 1, f"{printed.getvalue()}{end.code}"
            finally:
                run_folder._HELD.clear()
        return 0, printed.getvalue()

    return reproduce


def finish(plan: ReproductionPlan, name: str, **results) -> None:
    run = plan.run(name, 0)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "results.json").write_text(json.dumps(results))
    run.note(run.wanted(), 10.0)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> ReproductionPlan:
    """The models and the questions are there; five parts are left, of which one can run."""
    run_dir = tmp_path_factory.mktemp("reproduction")
    settings = run_dir / "settings"
    settings.mkdir()
    texts = {
        "improve.flags": "",
        "critiques.flags": "",
        "combinations.flags": "--test_problems=2\n",
        "critics.flags": "--prompts=compact\n--actor_tokens=60\n--critic_tokens=40\n--slots=8\n",
        "critic.flags": "",
    }
    for name, text in texts.items():
        (settings / name).write_text(text)
    plan = ReproductionPlan(run_dir / "run", settings, str(TINY_BASE))
    critic = run_dir / "critic"
    shutil.copytree(TINY_BASE, critic)
    models = {"sft actor": str(TINY_BASE), "critic": str(critic), "vanilla actor": "nowhere"}
    models |= {"critique actor": "nowhere", "self_correction actor": "nowhere"}
    finish(plan, "improve", models=models)
    effect = ("kept", "of", "refined_right", "alone_right", "false_share")
    finish(plan, "critiques", table1=[], filter={"none": dict.fromkeys(effect, 1)})
    problems = load_problems("word_problems", None, "test", 3, 5)
    text = "".join(json.dumps(to_json(problem)) + "\n" for problem in problems)
    (plan.run("critiques", 0).folder / "test_problems.jsonl").write_text(text)
    return plan


def flags(plan: ReproductionPlan, *more: str) -> list[str]:
    return [
        f"--run_dir={plan.run_dir}", f"--settings={plan.settings}", f"--model={plan.model}",
        "--seeds=0", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ran(reproduce, plan) -> tuple[int, str]:
    wanted = "critics,evaluate-vanilla,critic-none,critic-soft,filters"
    return reproduce(*flags(plan, f"--only={wanted}", "--jobs=2"))


@pytest.mark.slow
def test_what_can_run_does_and_what_fails_is_named_with_its_last_words(ran, plan):
    code, printed = ran
    assert code == 1
    assert "critics, seed 0: done in" in printed
    assert "evaluate-vanilla, seed 0: failed with exit code 1" in printed
    assert "nowhere" in printed.split("failed with exit code 1")[1]  # The log's end.
    # What it reads was waited for, though the first of it had failed.
    before, after = printed.split("filters, seed 0: left out, since critic-none is not done")
    assert all(f"critic-{kind}, seed 0: failed" in before for kind in ("none", "soft"))
    assert "1 of 5 parts done, 4 failed or left out" in after
    assert (plan.run("critics", 0).folder / "scores.jsonl").is_file()


@pytest.mark.slow
def test_the_report_holds_what_is_done(ran, plan):
    results = json.loads((plan.run_dir / "results.json").read_text())
    claims = {claim["id"]: claim for claim in results["claims"]}
    assert claims["C2"]["n"] == 3
    assert "3 problems are too few" in claims["C2"]["why"]
    assert claims["C7"]["effect"] is None
    assert [cost["part"] for cost in results["cost"]] == ["improve", "critiques", "critics"]
    assert results["cost"][2]["generated_tokens"] > 0
    assert (plan.run_dir / "report.html").is_file()


@pytest.mark.slow
def test_what_is_done_is_not_run_again(ran, reproduce, plan):
    path = plan.run("critics", 0).folder / "results.json"
    before = path.stat().st_mtime_ns
    code, printed = reproduce(*flags(plan, "--only=critics"))
    assert code == 0
    assert "python -m experiments.evaluate_critic" not in printed
    assert "1 of 1 parts done" in printed
    assert path.stat().st_mtime_ns == before


@pytest.mark.slow
def test_where_nothing_is_done_a_report_stays(ran, reproduce, plan):
    report = plan.run_dir / "results.json"
    before = report.read_bytes()
    code, printed = reproduce(*flags(plan, "--seeds=7", "--only=critics"))
    assert code == 1
    assert "critics, seed 7: left out, since improve is not done" in printed
    assert "no part is done: no report is written" in printed
    assert report.read_bytes() == before


@pytest.mark.slow
def test_what_cannot_be_read_costs_the_report_not_the_parts(ran, reproduce, plan):
    scores = plan.run("critics", 0).folder / "scores.jsonl"
    whole = scores.read_text()
    scores.write_text(whole[:-20])
    try:
        code, printed = reproduce(*flags(plan, "--only=evaluate-critique,critics"))
    finally:
        scores.write_text(whole)
    assert code == 1
    assert "evaluate-critique, seed 0: failed with exit code 1" in printed  # It was run.
    assert f"error: no report: {scores}:" in printed


def test_seconds_of_a_part_that_is_stopped_are_kept(plan, program_environment):
    stopped = dataclasses.replace(plan, run_dir=plan.run_dir.parent / "stopped")
    shutil.copytree(plan.run_dir, stopped.run_dir, ignore=shutil.ignore_patterns("critics*"))
    for name in ("improve", "critiques"):
        results = json.loads((stopped.run(name, 0).folder / "results.json").read_text())
        finish(stopped, name, **results)
    # Where a shell runs the tests in the background, Ctrl-C is ignored, and would be by this too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.reproduce", *flags(stopped, "--only=critics")],
        cwd=ROOT,
        env=program_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    run = stopped.run("critics", 0)
    while not run.log.is_file():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    printed = process.communicate()[0]
    assert process.returncode == 128 + signal.SIGINT
    assert "stopped; the same command goes on" in printed
    assert run.record().failed
    assert run.record().seconds >= 1
    assert not run.done()


def test_the_paper_scale_is_checked_without_its_models(reproduce, tmp_path):
    code, printed = reproduce(
        "--flagfile=experiments/flagfiles/reproduce_paper.flags", f"--run_dir={tmp_path}/run",
        "--dry_run",
    )  # fmt: skip
    assert code == 0, printed
    assert not (tmp_path / "run").exists()
    for part in PARTS:
        assert f"# {part.name}, seed 0: " in printed
        assert f"--run_dir={tmp_path}/run/seed-0/{part.name}" in printed
    checks = [line for line in printed.splitlines() if "launchers.plan" in line]
    assert len(checks) == sum(bool(part.trains) for part in PARTS)
    assert all("--topology=h100:8,h100:64" in check for check in checks)
    assert any("--model=llama3-70b" in check for check in checks)


def test_a_pipe_that_is_closed_early_gives_no_traceback(program_environment):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "experiments.reproduce", "--dry_run"),
            "--flagfile=experiments/flagfiles/reproduce_laptop.flags",
        ],
        cwd=ROOT,
        env={**program_environment, "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()  # As `head` does, once it has its lines.
    printed = process.stderr.read()
    assert "Traceback" not in printed
    assert "BrokenPipeError" not in printed
    assert process.wait() == 1


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--seeds=0,x", "--seeds=0,x: give whole numbers"),
        ("--seeds=", "--seeds=: give at least one, as 0,1,2"),
        ("--only=evalaute", "--only=evalaute: there is no part 'evalaute'"),
        ("--run_dir=", "--run_dir is empty: name a folder."),
        ("--jobs=9999", "--jobs=9999: cores this process may use: "),
        ("--settings=/nowhere", "--settings=/nowhere: no flagfile of a part"),
    ],
)
def test_wrong_flags_are_refused(reproduce, plan, flag, words):
    code, printed = reproduce(*flags(plan, flag))
    assert code == 1
    assert f"error: {words}" in printed


def test_a_flagfile_that_is_named_but_missing_is_refused_before_anything_runs(
    reproduce, plan, tmp_path
):
    settings = tmp_path / "settings"
    shutil.copytree(plan.settings, settings)
    (settings / "critics.flags").write_text(f"--flagfile={tmp_path / 'nowhere.flags'}\n")
    code, printed = reproduce(*flags(dataclasses.replace(plan, settings=settings)))
    assert code == 1
    assert "error: " in printed
    assert "nowhere.flags" in printed


@pytest.mark.parametrize("more", [[], ["--dry_run"]])
def test_a_flag_that_a_later_part_does_not_take_is_refused_before_anything_runs(
    reproduce, plan, tmp_path, more
):
    settings, run_dir = tmp_path / "settings", tmp_path / "run"
    shutil.copytree(plan.settings, settings)
    (settings / "critic.flags").write_text("--lerning_rate=1e-3\n")
    later = dataclasses.replace(plan, settings=settings, run_dir=run_dir)
    code, printed = reproduce(*flags(later, "--only=improve,critic-none", *more))
    assert code == 1
    assert f"error: {settings}/critic.flags: sft does not take its flags: Unknown" in printed
    assert "lerning_rate" in printed
    assert "python -m experiments.self_improve" not in printed
