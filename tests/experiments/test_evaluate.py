"""Test-time scaling as its users start it, at the smallest sizes."""

import json
import pathlib
from statistics import fmean

import pytest

from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.tasks import TINY_BASE
from jaxcritique.testtime.evaluate import EvaluateConfig, evaluate

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
ENGINE = EngineConfig(slots=8)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_another_figure_of_the_same_samples_samples_nothing(finished, finish, run_dir):
    results, _ = finished
    before = {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/*")}
    again, _ = finish(run_dir, "--difficulty=quantiles")
    assert {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/*")} == before
    assert again["points"] == results["points"]
    assert again["levels_by"] == "4 samples, quantiles"


def small(**settings) -> EvaluateConfig:
    """Settings of the smallest evaluation, as a notebook gives them."""
    sizes = {"prompts": "compact", "test_problems": 2, "k": (1, 2), "difficulty_samples": 0}
    return EvaluateConfig(**{**sizes, "actor_tokens": 60, "critic_tokens": 60, **settings})


def test_without_equal_compute_the_actor_alone_is_sampled_no_more(tmp_path):
    settings = small(critic="checker", equal_compute=False, samples=3)
    results = evaluate(settings, tmp_path, ENGINE)
    methods = {point["method"] for point in results.points if point["metric"] == "maj"}
    assert methods == {"no critic", "parallel, refine_all"}
    assert results.costs["respond"]["samples"] == 2 * 3
    assert "respond-more" not in results.costs
    assert results.report.is_file()
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == json.loads(json.dumps(results.to_json()))


def test_a_page_that_cannot_be_rendered_loses_no_results(monkeypatch, tmp_path):
    monkeypatch.setattr("jaxcritique.analysis.page.write_page", None)
    with pytest.raises(TypeError):
        evaluate(small(k=(1,)), tmp_path, ENGINE)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["critic"] is None
    assert {point["method"] for point in results["points"]} == {"no critic"}


@pytest.mark.slow
def test_a_killed_run_ends_as_the_uninterrupted(start, tmp_path):
    config = small(test_problems=8, critic=str(TINY_BASE), equal_compute=False)
    killed = tmp_path / "killed"
    flags = ("--prompts=compact", "--test_problems=8", "--k=1,2", "--difficulty_samples=0")
    flags += ("--actor_tokens=60", "--critic_tokens=60", "--noequal_compute", "--slots=8")
    program = start("evaluate", *flags, f"--critic={TINY_BASE}", f"--run_dir={killed}")
    program.wait_until(lambda: list(killed.glob("stages/parallel-criticise-1-*")))
    program.kill()
    assert not list(killed.glob("stages/parallel-criticise-1-*/manifest.json"))
    again, whole = (
        json.loads(json.dumps(evaluate(config, folder, ENGINE).to_json()))
        for folder in (killed, tmp_path / "whole")
    )
    assert lasting(again) == lasting(whole)


def test_self_correction_asks_no_critic(tmp_path):
    results = evaluate(small(critic="self", k=(1,), equal_compute=False), tmp_path, ENGINE)
    assert results.critic == "self"
    assert results.costs["greedy-criticise-1"]["requests"] == 0
    assert results.costs["greedy-refine-1"]["samples"] == 2
    assert "refine_all" in results.table


@pytest.mark.parametrize(("flags", "message"), [
    (["--k=1,8", "--samples=4"], "error: --k=8 needs as many samples of each"),
    (["--k=1,x"], "error: --k=1,x: give whole numbers, separated by commas."),
    (["--k=0"], "error: --k=0 must be at least 1."),
    (["--actor=/nowhere"], "error: --actor=/nowhere: /nowhere/config.json: no such file"),
    (["--critic="], "error: --critic= names no critic; leave it out for the actor alone."),
    (["--critic=/nowhere"], "error: --critic=/nowhere: /nowhere/config.json: no such file"),
    (["--protocol=refine_some"], "flag --protocol=refine_some: value should be one of <refine_all"),
    (["--scaling=sequential"], "error: --scaling is about a critic: name one with --critic."),
    (["--test_problems=0"], "error: --test_problems=0: word_problems is generated; say how many"),
    (["--task=gsm8k", "--data_dir=/nowhere"], "error: /nowhere/gsm8k/test.jsonl: no such file"),
    (["--task=math", "--data_dir=MATH", "--critic=checker"], "--critic=checker: the checker works"),
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
    done = run("evaluate", *sizes, f"--run_dir={run_dir}", *given)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not run_dir.exists()
