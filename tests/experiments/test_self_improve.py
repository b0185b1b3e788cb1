"""The whole loop as its users start it, at the smallest sizes."""

import collections
import json
import pathlib
import shutil

import pytest

SMALLEST = (
    "--flagfile=experiments/flagfiles/quickstart.flags",
    "--train_problems=10",
    "--explore_problems=5",
    "--test_problems=10",
    "--refine_examples=5",
    "--iterations=1",
    "--samples=1",
    "--critiques=2",
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
    "--slots=32",
)
TIMES = {"wall_seconds", "peak_rss_bytes"}  # Memory is no more a matter of the seed than time is.


@pytest.fixture(scope="module")
def finish(run):
    """Returns a function: (run folder, further flags) -> the results of the program run to its end.

    The folder they lie in is called RUN_DIR in them.
    """

    def finish(run_dir: pathlib.Path, *flags: str) -> dict:
        done = run("self_improve", *SMALLEST, f"--run_dir={run_dir}", *flags)
        assert done.returncode == 0, done.stderr
        text = (run_dir / "results.json").read_text()
        return json.loads(text.replace(str(run_dir), "RUN_DIR"))

    return finish


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


def rows_of(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_players_of_another_run_are_taken_as_they_are(results, finish, run_dir, tmp_path):
    names = {"actor": "sft actor", "critic": "critic"}
    folders = {
        flag: run_dir / results["models"][name].removeprefix("RUN_DIR/")
        for flag, name in names.items()
    }
    found = finish(tmp_path, *(f"--{flag}={folder}" for flag, folder in folders.items()))
    assert found["iterations"] == results["iterations"]
    assert found["critic"] == results["critic"]
    assert "critique_data" not in found
    made = {path.parent.name.rpartition("-")[0] for path in manifests(tmp_path)}
    assert not made & {"actor-0", "critic", "rg1-1", "annotations", "filter"}


def test_further_methods_join_a_run_and_share_its_stages(results, finish, run_dir):
    before = manifests(run_dir)
    found = finish(
        run_dir,
        "--methods=vanilla,critique,vanilla_equal_tokens,more_refinements,no_difficulty_awareness",
        "--self_correction",
        "--difficulty_samples=2",
    )
    assert before.items() <= manifests(run_dir).items()
    made = collections.Counter(
        path.parent.name.rpartition("-")[0] for path in manifests(run_dir).keys() - before.keys()
    )
    # One exploration has been sampled, and of the critiques those that others do not ask for.
    assert made == {
        "actor-self_correction": 1,
        "difficulty-train": 1,
        "difficulty-test": 1,
        "criticise-1": 2,
        "refine-1": 2,
        "explore-more-1": 1,
        "actor-no_difficulty_awareness-1": 1,
        "actor-more_refinements-1": 1,
        "actor-vanilla_equal_tokens-1": 1,
        "test-no_difficulty_awareness-1": 1,
        "test-more_refinements-1": 1,
        "test-vanilla_equal_tokens-1": 1,
    }
    assert found["levels_by"] == "2 samples, fifths"
    last = {row["method"]: row for row in found["iterations"] if row["iteration"] == 1}
    # The budgets of Table 4: each compares what it should, and nothing else.
    ours, alike, deep = (
        last[name] for name in ("critique", "no_difficulty_awareness", "more_refinements")
    )
    wrong = ours["responses"] - ours["correct_responses"]
    assert wrong
    assert (ours["critiques"], ours["refinements"]) == (2 * wrong, 2 * wrong)
    assert (alike["critiques"], alike["refinements"]) == (2 * wrong, 2 * wrong)
    assert (deep["critiques"], deep["refinements"]) == (wrong, 2 * wrong)
    equal = last["vanilla_equal_tokens"]
    assert equal["critiques"] == 0
    assert equal["responses"] > last["vanilla"]["responses"]
    # Within what a response may be longer than the mean.
    assert equal["generated_tokens"] == pytest.approx(ours["generated_tokens"], rel=0.25)
    # Every method against the paper's, from the scores that are left for others to compare.
    scores = {}
    for row in rows_of(run_dir / "scores.jsonl"):
        assert row["level"] in range(1, 6)
        scores.setdefault((row["method"], row["iteration"]), {})[row["problem"]] = row["score"]
    assert len(scores) == 5 * 2
    for row in found["iterations"]:
        of_row = scores[row["method"], row["iteration"]]
        assert len(of_row) == 10
        assert sum(of_row.values()) / 10 == pytest.approx(row["accuracy"])
    assert {row["minus"] for row in found["comparisons"]} == last.keys() - {"critique"}
    for row in found["comparisons"]:
        difference = last["critique"]["accuracy"] - last[row["minus"]]["accuracy"]
        assert row["difference"] == pytest.approx(difference)
        assert row["ci95"][0] <= difference <= row["ci95"][1]
    trained = rows_of(run_dir / "training.jsonl")
    for row in found["iterations"]:
        name = row["method"], row["iteration"]
        of_row = [r for r in trained if (r["method"], r["iteration"]) == name]
        assert len({r["problem"] for r in of_row}) == 10 + 5
        assert sum(r["rows"] for r in of_row) == row["train_size"]
    assert (run_dir / found["models"]["self_correction actor"] / "config.json").is_file()
    # What was there before is what it was, but for the levels.
    for row in results["iterations"]:
        again = next(
            r for r in found["iterations"]
            if (r["method"], r["iteration"]) == (row["method"], row["iteration"])
        )  # fmt: skip
        levels = {"accuracy_by_level", "train_share_by_level"}
        assert all(again[key] == row[key] for key in row.keys() - levels)


def test_the_same_command_again_redoes_nothing(results, finish, run_dir):
    before = manifests(run_dir)
    again = finish(run_dir)
    assert lasting(again) == lasting(results)
    assert manifests(run_dir) == before


def test_a_model_that_was_deleted_is_made_anew(results, finish, run_dir):
    model = run_dir / results["models"]["vanilla actor"]
    weights = (model / "model.safetensors").read_bytes()
    shutil.rmtree(model)
    assert lasting(finish(run_dir)) == lasting(results)
    assert (model / "model.safetensors").read_bytes() == weights


def test_rows_that_devices_do_not_divide_claim_no_folder(run, tmp_path):
    flags = *SMALLEST, f"--run_dir={tmp_path}"
    done = run("self_improve", *flags, "--rows=9", "--micro_rows=9", JAX_NUM_CPU_DEVICES="2")
    assert done.stderr.startswith("error: --rows=9 cannot be divided over data x fsdp = 2 devices")
    assert not list(tmp_path.iterdir())


def test_killed_runs_end_as_the_uninterrupted(results, start, finish, tmp_path):
    for stage in ("actor-0", "filter"):  # As a training begins, and as a sampling does.
        program = start("self_improve", *SMALLEST, f"--run_dir={tmp_path}")
        program.wait_until(lambda stage=stage: list(tmp_path.glob(f"stages/{stage}-*")))
        program.kill()
        assert not list(tmp_path.glob(f"stages/{stage}-*/manifest.json"))
    assert lasting(finish(tmp_path)) == lasting(results)


@pytest.mark.parametrize(("flags", "message"), [
    (["--model=/nowhere"], "error: --model=/nowhere: /nowhere/config.json: no such file"),
    (["--train_problems=0"], "flag --explore_problems=5: --explore_problems needs"),
    (["--train_problems=0", "--explore_problems=0"], "error: --train_problems: say how many"),
    (["--methods=vanilla,critique,best"], "error: --methods=vanilla,critique,best: there is no"),
    (["--tau=1"], "error: --tau=1.0: more than that share must be right"),
    (["--methods=critique"], "error: --methods=critique lacks vanilla, which every run compares"),
    (["--methods=vanilla,critique,more_refinements", "--critiques=1"], "--critiques=1: with one"),
    (["--samples=0"], "flag --samples=0: 0 is not a positive integer"),
    (["--task=gsm8k", "--data_dir=/nowhere"], "error: /nowhere/gsm8k/train.jsonl: no such file"),
])  # fmt: skip
def test_bad_input_is_refused_in_a_line(flags, message, run, tmp_path):
    done = run("self_improve", *SMALLEST, f"--run_dir={tmp_path}", *flags, timeout=60)
    assert done.returncode == 1
    first, *rest = done.stderr.strip().split("\n")
    assert message in first
    assert rest in ([], ["Pass --helpshort or --helpfull to see help on flags."])
    assert not list(tmp_path.iterdir())


def test_another_seed_in_the_same_folder_is_refused(results, run, run_dir):
    done = run("self_improve", *SMALLEST, f"--run_dir={run_dir}", "--seed=1", timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {run_dir} holds a run with another --seed (0, now 1).")
    assert done.stderr.count("\n") == 1
