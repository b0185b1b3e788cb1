"""Table 5 as its users start it, at the smallest sizes."""

import json
import pathlib

import pytest

from jaxcritique.tasks import TINY_BASE
from jaxcritique.training.examples import read_examples

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
TIMES = {"wall_seconds", "peak_rss_bytes"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def finished(start, run, run_dir) -> tuple[dict, str]:
    """Results and what was printed, of a run that was killed once and started again."""
    flags = (*SMALLEST, f"--run_dir={run_dir}")
    program = start("self_talk", *flags)
    program.wait_until(lambda: list(run_dir.glob("stages/actor-self-talk-*")))
    program.kill()
    done = run("self_talk", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads((run_dir / "results.json").read_text()), done.stdout


def test_table_5_is_made(finished, run_dir):
    results, printed = finished
    points = {(p["method"], p["metric"], p["k"]): p for p in results["points"]}
    methods = ("no critic", "self-correction", "self-talk", "refine_all", "refine_flagged")
    columns = [("greedy", 1), *((metric, k) for metric in ("maj", "pass") for k in (1, 2))]
    assert list(points) == [(method, *column) for method in methods for column in columns]
    for point in points.values():
        low, high = point["ci95"]
        assert 0 <= low <= point["mean"] <= high <= 1
        assert point["tokens"] > 0
    for row in results["differences"]:
        ours, theirs = (points[row[side], row["metric"], row["k"]] for side in ("method", "minus"))
        assert row["difference"] == pytest.approx(ours["mean"] - theirs["mean"])
    rows = [json.loads(line) for line in (run_dir / "scores.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * len(points)
    assert set(rows[0]) == {"problem", "level", "method", "metric", "k", "score"}
    for folder in results["models"].values():
        assert (run_dir / folder / "config.json").is_file()
    assert "Self-talk via critique" in printed
    assert "Sample transcripts" in (run_dir / "report.html").read_text()


def test_the_data_is_counted_and_can_be_learnt_from(finished, run_dir):
    results, _ = finished
    counts = dict(results["counts"])
    assert counts["paths"] == 16
    kept, _ = counts.pop("kept"), counts.pop("kept with corrections")
    clean = counts.pop("clean at once") + counts.pop("clean after refining")
    # Every path is lost somewhere, or comes out clean and is then lost or kept.
    assert counts.pop("paths") == kept + sum(counts.values())
    assert clean >= kept > 0
    examples = read_examples(run_dir / "self_talk.jsonl")
    assert len(examples) == kept
    for example in examples:
        assert example.messages[-1]["content"].endswith("Think aloud.")
        assert "The answer is" in example.reply


def test_the_same_command_again_samples_nothing(finished, run, run_dir):
    results, _ = finished
    before = {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/*")}
    done = run("self_talk", *SMALLEST, f"--run_dir={run_dir}")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/*")} == before
    again = json.loads((run_dir / "results.json").read_text())
    lasting = [{k: v for k, v in r.items() if k not in TIMES} for r in (results, again)]
    assert lasting[0] == lasting[1]


@pytest.mark.parametrize(("flags", "message"), [
    (["--critic=/nowhere"], "error: --critic=/nowhere: /nowhere/config.json: no such file"),
    (["--data_critic=/nowhere"], "error: --data_critic=/nowhere: /nowhere/config.json: no such"),
    (["--k=0"], "error: --k=0: give whole numbers from 1"),
    (["--rounds=0"], "flag --rounds=0: 0 is not a positive integer"),
    (["--task=math", "--data_dir=MATH"], "error: --task=math: the annotator checks calculations"),
])  # fmt: skip
def test_bad_input_is_refused_in_a_line(flags, message, run, tmp_path):
    row = {"problem": "1+1?", "solution": r"It is $\boxed{2}$.", "answer": "2"}
    for name in ("train.jsonl", "math500.jsonl"):
        (tmp_path / "math").mkdir(exist_ok=True)
        (tmp_path / "math" / name).write_text(json.dumps(row) + "\n")
    given = [f.replace("--data_dir=MATH", f"--data_dir={tmp_path}") for f in flags]
    sizes = ("--train_problems=1", "--test_problems=1")
    critics = ("--critic=checker", "--data_critic=checker")
    run_dir = tmp_path / "run"
    done = run("self_talk", *critics, f"--run_dir={run_dir}", *sizes, *given, timeout=120)
    assert done.returncode == 1
    first, *rest = done.stderr.strip().split("\n")
    assert message in first
    assert rest in ([], ["Pass --helpshort or --helpfull to see help on flags."])
    assert not run_dir.exists()
