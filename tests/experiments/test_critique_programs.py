"""Building critiques as its users start it, at the smallest sizes."""

import json
import pathlib
import re
import shutil
import sys
import zlib

import pytest

from jaxcritique.tasks import TINY_BASE

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "rollout"))

from flaky import serve  # noqa: E402

BUILD = (
    "build_critiques",
    "--flagfile=experiments/flagfiles/critiques_laptop.flags",
    "--train_problems=10",
    "--test_problems=6",
    "--rg1_samples=2",
    "--rg2_rounds=1",
    "--rg3_attempts=2",
    "--filter_refinements=2",
    "--alone_samples=1",
    "--tau=0",
    "--slots=8",
)


@pytest.fixture(scope="module")
def built(run, tmp_path_factory) -> tuple[pathlib.Path, dict]:
    run_dir = tmp_path_factory.mktemp("critiques")
    process = run(*BUILD, f"--run_dir={run_dir}")
    assert process.returncode == 0, process.stderr
    return run_dir, json.loads((run_dir / "results.json").read_text())


def rows(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_the_dataset_and_its_statistics_agree(built):
    run_dir, results = built
    counts = results["counts"]
    train = rows(run_dir / "dataset/train.jsonl")
    assert len(train) == results["rows"] > 0
    assert sum(not row["correct"] for row in train) == counts["kept by the filter"]
    assert sum(row["correct"] for row in train) == counts["critiques of right paths"]
    for row in train:
        assert (row["first_error"] == -1) == row["correct"]
        assert row["annotator"] == "arithmetic checker"
        if not row["correct"]:
            assert row["filter_counts"]["right"] > 0
            assert row["filter_counts"]["refinements"] == 2
    assert results["filter"]["none"]["false_share"] == 0.0
    discarded = [row["outcome"] for row in rows(run_dir / "discarded.jsonl")]
    assert discarded.count("leaking") == counts["leaking critiques"]
    assert discarded.count("unchecked") == counts["discarded by the annotator"]
    assert len(discarded) == counts["leaking critiques"] + counts["discarded by the annotator"]
    assert len(rows(run_dir / "test_problems.jsonl")) == 6
    learnt = rows(run_dir / "critic.jsonl")
    assert [row["target"] for row in learnt] == [row["critique"] for row in train]
    assert all(
        row["query"] in shown["messages"][0]["content"]
        for row, shown in zip(train, learnt, strict=True)
    )
    assert results["costs"]["filter"]["samples"] == 2 * counts["critiques of flawed paths"]
    by_filter = {kind: rows(run_dir / f"critic-{kind}.jsonl") for kind in ("soft", "hard", "none")}
    assert by_filter["soft"] == learnt
    kept = [{row["target"] for row in by_filter[kind]} for kind in ("soft", "hard", "none")]
    assert len(kept[0]) <= len(kept[1]) <= len(kept[2])
    assert len(by_filter["none"]) >= counts["critiques of flawed paths"]


def test_all_of_a_test_file_is_kept_out(run, tmp_path):
    """Also what lies beyond --test_problems, here the second test problem."""
    task = tmp_path / "gsm8k"
    task.mkdir()
    questions = [
        f"Ben has {n} eggs. Ben finds 4 eggs. Ben loses 1 egg. How many eggs does Ben have now?"
        for n in range(2, 5)
    ]
    lines = [
        json.dumps({"question": question, "answer": f"Now <<{n}+3={n + 3}>>{n + 3}.\n#### {n + 3}"})
        for n, question in enumerate(questions, start=2)
    ]
    (task / "train.jsonl").write_text("\n".join(lines[1:]))
    (task / "test.jsonl").write_text("\n".join(lines[:2]))
    flags = (
        "--task=gsm8k", f"--data_dir={tmp_path}", "--train_problems=0", "--test_problems=1",
        "--rg1_samples=1", "--rg2_rounds=0", "--rg3_attempts=0", "--contaminated=1",
        "--actor_tokens=40",
    )  # fmt: skip
    process = run(*BUILD, f"--run_dir={tmp_path / 'run'}", *flags)
    assert process.returncode == 0, process.stderr
    counts = json.loads((tmp_path / "run/results.json").read_text())["counts"]
    assert (counts["problems"], counts["contaminated problems"]) == (2, 1)
    assert [row["question"] for row in rows(tmp_path / "run/test_problems.jsonl")] == questions[:1]
    # Nothing left is said, not only counted.
    (task / "train.jsonl").write_text(lines[1])
    process = run(*BUILD, f"--run_dir={tmp_path / 'none'}", *flags)
    assert process.returncode == 0, process.stderr
    assert "No critique was kept" in process.stderr
    assert (tmp_path / "none/critic.jsonl").read_text() == ""


@pytest.mark.slow
def test_another_threshold_samples_nothing(built, run):
    run_dir, results = built
    before = {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/*")}
    process = run(*BUILD, f"--run_dir={run_dir}", "--tau=0.9")
    assert process.returncode == 0, process.stderr
    after = {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/*")}
    assert after == before
    stricter = json.loads((run_dir / "results.json").read_text())
    assert stricter["costs"] == results["costs"]
    counts = stricter["counts"]
    assert counts["critiques of right paths"] <= counts["kept by the filter"]
    kept = counts["kept by the filter"] + counts["critiques of right paths"]
    assert stricter["rows"] == kept <= results["rows"]


@pytest.mark.slow
def test_fewer_critiques_are_chosen_in_the_same_folder(built, run):
    """Only the filter is asked anew."""
    run_dir, _ = built
    before = {path.name for path in run_dir.glob("stages/*")}
    flags = ("--max_flawed=2", "--mixture=RG1=1", "--filter_refinements=1", "--alone_samples=0")
    process = run(*BUILD, f"--run_dir={run_dir}", *flags)
    assert process.returncode == 0, process.stderr
    new = {path.name for path in run_dir.glob("stages/*")} - before
    assert {name.partition("-")[0] for name in new} == {"candidates", "filter"}
    counts = json.loads((run_dir / "results.json").read_text())["counts"]
    assert counts["critiques of flawed paths"] == 2
    cut = [row for row in rows(run_dir / "discarded.jsonl") if row["outcome"] == "cut"]
    assert len(cut) == counts["critiques cut by maximum or mixture"] > 0


def hosted(text: str, index: int) -> str:
    """What a hosted annotator says; of some solutions nothing that can be read."""
    if zlib.crc32(text.encode()) % 10 == 0:
        return "I would rather not say."
    if "for you alone" in text:  # There is a hint: the solution is wrong.
        return "First wrong step: 1\nExplanation: It is not so.\nFinal answer: Wrong"
    steps = re.findall(r"^(Step \d+): ", text, re.M)
    labels = [f"{step}: so\nExplanation: It is so.\nCorrectness: Correct" for step in steps]
    return "\n".join([*labels, "Final answer: Correct"])


@pytest.mark.slow
def test_a_flaky_annotator_and_kills_lose_nothing(built, run, start, tmp_path):
    """The actor's paths are those of `built`, so that only annotator and filter are asked."""
    kinds = ("429", "500", "reset", "truncated", "malformed", "choices")
    found = []
    with serve(0.3, kinds, delay=0.05, reply=hosted) as server:
        flags = (
            *BUILD,
            "--annotator=hosted",
            f"--annotator_endpoint={server.url}/v1",
            "--annotation=holistic",
            "--filter=none",  # Whatever the untrained actor makes of these critiques.
            "--concurrency=2",
        )
        for name in ("whole", "killed"):
            run_dir = tmp_path / name
            for stage in built[0].glob("stages/*"):
                if not stage.name.startswith(("annotations-", "candidates-", "filter-", "alone-")):
                    shutil.copytree(stage, run_dir / "stages" / stage.name)
            if name == "killed":
                for answers in (3, 3):
                    enough = server.answered.total() + answers
                    program = start(*flags, f"--run_dir={run_dir}")
                    program.wait_until(lambda enough=enough: server.answered.total() >= enough)
                    program.kill()
            process = run(*flags, f"--run_dir={run_dir}")
            assert process.returncode == 0, process.stderr
            found.append(json.loads((run_dir / "results.json").read_text()))
        assert server.failures.total() > server.failures[None]
    whole, killed = found
    differing = {key for key in whole if whole[key] != killed[key]}
    assert differing <= {"command", "wall_seconds", "peak_rss_bytes"}
    for file in ("dataset/train.jsonl", "critic.jsonl", "discarded.jsonl"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert whole["costs"]["annotate"]["failed"] == 0
    counts = whole["counts"]
    outcomes = [row["outcome"] for row in rows(tmp_path / "whole/discarded.jsonl")]
    assert outcomes.count("unparsable") == counts["discarded by the annotator"]
    # Each path was answered once, in each of the two folders; more only what a kill cut off.
    asked = whole["costs"]["annotate"]["requests"]
    assert 2 * asked <= server.answered.total() <= 2 * asked + 2 * 2
    for row in rows(tmp_path / "whole/dataset/train.jsonl"):
        assert row["annotator"] == "hosted"
        assert row["first_error"] == (-1 if row["correct"] else 0)


def test_a_dry_run_estimates_and_shows_the_prompts(run, tmp_path):
    process = run(*BUILD, f"--run_dir={tmp_path}", "--dry_run", "--mistakes=model")
    assert process.returncode == 0, process.stderr
    for part in ("==== rg1", "==== rg3: put in a mistake", "==== filter", "prompt tokens", "all "):
        assert part in process.stdout
    assert f"the actor's tokenizer ({TINY_BASE})" in process.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flag", "message"), [
    ("--mixture=RG1=1,RG4=1", "--mixture: 'RG4=1' is not NAME=WEIGHT with a name of RG1, RG2,"),
    ("--error_types=formula=1", "--error_types: 'formula=1' is not NAME=WEIGHT"),
    ("--positions=1,2", "--positions: give three weights, not 2."),
    ("--annotator=/nowhere", "/nowhere/config.json: no such file"),
    ("tau=0.5", "'tau=0.5' is no flag: they are written --name=value."),
    ("--tau=1", "--tau=1.0: more than that share must be right; give 0 to less than 1."),
    ("--tau=nan", "--tau=nan: give a finite number."),
    ("--temperature=nan", "--temperature=nan: give a finite number."),
    ("--temperature=inf", "--temperature=inf: give a finite number."),
    ("--annotator_endpoint=http://host/v1", "name the model it serves with --annotator."),
])  # fmt: skip
def test_bad_flags_are_refused_in_a_line(flag, message, run, tmp_path):
    process = run(*BUILD, f"--run_dir={tmp_path}", flag)
    assert process.returncode == 1
    [line] = process.stderr.strip().split("\n")
    assert line.startswith("error: ")
    assert message in line
    assert not list(tmp_path.iterdir())
