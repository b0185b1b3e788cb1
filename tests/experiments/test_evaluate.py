"""Test-time scaling as its users start it, at the smallest sizes."""

import json
import pathlib
from statistics import fmean

import pytest

from jaxcritique.tasks import TINY_BASE

SMALLEST = (
    "--flagfile=experiments/flagfiles/laptop/evaluate.flags",
    "--critic=checker",
    "--test_problems=6",
    "--k=1,2",
    "--samples=3",
    "--difficulty_samples=4",
    "--actor_tokens=100",
    "--slots=8",
)
TIMES = {"wall_seconds", "peak_rss_bytes"}


@pytest.fixture(scope="module")
def finish(run):
    """Returns a function that runs the program to its end: its results and what it printed."""

    def finish(run_dir: pathlib.Path, *flags: str) -> tuple[dict, str]:
        done = run("evaluate", *SMALLEST, f"--run_dir={run_dir}", *flags)
        assert done.returncode == 0, done.stderr
        text = (run_dir / "results.json").read_text()
        return json.loads(text.replace(str(run_dir), "RUN_DIR")), done.stdout

    return finish


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def finished(finish, run_dir) -> tuple[dict, str]:
    return finish(run_dir)


def lasting(results: dict) -> dict:
    return {key: value for key, value in results.items() if key not in TIMES}


def test_results_agree_with_each_other(finished, run_dir):
    results, printed = finished
    points = {(p["method"], p["metric"], p["k"]): p for p in results["points"]}
    for point in points.values():
        low, high = point["ci95"]
        assert 0 <= low <= point["mean"] <= high <= 1
        assert point["tokens"] > 0
    # One sample votes for itself.
    for method in ("no critic", "parallel, refine_all", "parallel, oracle"):
        assert points[method, "maj", 1]["mean"] == pytest.approx(points[method, "pass", 1]["mean"])
        assert points[method, "pass", 1]["mean"] <= points[method, "pass", 2]["mean"] + 1e-9
    # An oracle never lets go of what is right.
    assert points["oracle", "greedy", 1]["mean"] >= points["no critic", "greedy", 1]["mean"]
    # Of the same responses it has fewer refined.
    oracle, refine_all = (points[f"parallel, {p}", "pass", 2] for p in ("oracle", "refine_all"))
    assert oracle["tokens"] < refine_all["tokens"]
    equal = points["no critic, tokens of parallel, refine_all", "maj", 2]
    assert equal["tokens"] == pytest.approx(points["parallel, refine_all", "maj", 2]["tokens"])
    for row in results["differences"]:
        ours = points[row["method"], row["metric"], row["k"]]
        theirs = points[row["minus"], row["minus_metric"], row["k"]]
        assert row["difference"] == pytest.approx(ours["mean"] - theirs["mean"])
    assert {row["level"] for row in results["by_level"]} <= set("12345")
    scores = [json.loads(line) for line in (run_dir / "scores.jsonl").read_text().splitlines()]
    # And, of all samples before and after a round (three protocols), the share right and the vote.
    assert len(scores) == 6 * (len(points) + 4 * 2)
    for method in ("no critic", "parallel, refine_all"):
        shares = [s["score"] for s in scores if (s["method"], s["metric"]) == (method, "share")]
        assert len(shares) == 6
        if method != "no critic":  # Which has six samples, and three that are refined.
            assert fmean(shares) == pytest.approx(points[method, "pass", 1]["mean"])
    assert results["costs"]["respond"]["samples"] == 6 * 6  # Three times the largest K.
    assert results["costs"]["parallel-refine-1"]["samples"] == 6 * 3
    assert "Maj@K" in printed
    assert "<svg" in (run_dir / "report.html").read_text()
    assert (run_dir / "figures/maj_at_k.csv").is_file()


def test_another_figure_of_the_same_samples_samples_nothing(finished, finish, run_dir):
    results, _ = finished
    before = {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/*")}
    again, _ = finish(run_dir, "--difficulty=quantiles")
    assert {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/*")} == before
    assert again["points"] == results["points"]
    assert again["levels_by"] == "4 samples, quantiles"


def test_without_equal_compute_the_actor_alone_is_sampled_no_more(finish, tmp_path):
    flags = ("--noequal_compute", "--scaling=parallel", "--difficulty_samples=0")
    results, _ = finish(tmp_path, *flags)
    methods = {point["method"] for point in results["points"] if point["metric"] == "maj"}
    assert methods >= {"no critic", "parallel, refine_all"}
    assert not any(method.startswith("no critic,") for method in methods)
    assert results["costs"]["respond"]["samples"] == 6 * 3
    assert "respond-more" not in results["costs"]


def test_a_killed_run_ends_as_the_uninterrupted(finish, start, tmp_path):
    results, _ = finish(tmp_path / "whole", f"--critic={TINY_BASE}", "--critic_tokens=60")
    run_dir = tmp_path / "killed"
    flags = (*SMALLEST, f"--run_dir={run_dir}", f"--critic={TINY_BASE}", "--critic_tokens=60")
    program = start("evaluate", *flags)
    program.wait_until(lambda: list(run_dir.glob("stages/parallel-criticise-1-*")))
    program.kill()
    assert not list(run_dir.glob("stages/parallel-criticise-1-*/manifest.json"))
    again, _ = finish(run_dir, f"--critic={TINY_BASE}", "--critic_tokens=60")
    assert lasting(again) == lasting(results)


def test_self_correction_asks_no_critic(finish, tmp_path):
    flags = ("--test_problems=2", "--k=1", "--samples=1", "--difficulty_samples=0")
    results, printed = finish(tmp_path, "--critic=self", *flags)
    assert results["critic"] == "self"
    assert results["costs"]["greedy-criticise-1"]["requests"] == 0
    assert results["costs"]["greedy-refine-1"]["samples"] == 2
    assert "refine_all" in printed


@pytest.mark.parametrize(("flags", "message"), [
    (["--k=1,8", "--samples=4"], "error: --k=8 needs as many samples a problem, and --samples=4"),
    (["--k=1,x"], "error: --k=1,x: give whole numbers from 1"),
    (["--k=0"], "error: --k=0: give whole numbers from 1"),
    (["--actor=/nowhere"], "error: --actor=/nowhere: /nowhere/config.json: no such file"),
    (["--critic=/nowhere"], "error: --critic=/nowhere: /nowhere/config.json: no such file"),
    (["--protocol=refine_some"], "flag --protocol=refine_some: value should be one of <refine_all"),
    (["--scaling=sequential"], "error: --scaling is about a critic: name one with --critic."),
    (["--test_problems=0"], "error: --test_problems: say how many stories to generate"),
    (["--task=gsm8k", "--data_dir=/nowhere"], "error: /nowhere/gsm8k/test.jsonl: no such file"),
    (["--task=math", "--data_dir=MATH", "--critic=checker"], "error: --critic=checker works out"),
    (["--task=gsm8k", "--data_dir=EMPTY"], "the test split of gsm8k is empty"),
])  # fmt: skip
def test_bad_input_is_refused_in_a_line(flags, message, run, tmp_path):
    row = {"problem": "1+1?", "solution": r"It is $\boxed{2}$.", "answer": "2"}
    for file, text in (("gsm8k/test", ""), ("math/math500", json.dumps(row) + "\n")):
        path = tmp_path / f"{file}.jsonl"
        path.parent.mkdir()
        path.write_text(text)
    run_dir = tmp_path / "run"
    data_dirs = {"--data_dir=EMPTY": tmp_path, "--data_dir=MATH": tmp_path}
    given = [f"--data_dir={data_dirs[f]}" if f in data_dirs else f for f in flags]
    sizes = ("--prompts=compact", "--test_problems=1")
    done = run("evaluate", *sizes, f"--run_dir={run_dir}", *given, timeout=120)
    assert done.returncode == 1
    first, *rest = done.stderr.strip().split("\n")
    assert message in first
    assert rest in ([], ["Pass --helpshort or --helpfull to see help on flags."])
    assert not run_dir.exists()
