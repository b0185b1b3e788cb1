"""Figure 9 as its users start it, at the smallest sizes."""

import json

import pytest

from jaxcritique.models.config import ModelConfig
from jaxcritique.tasks import TINY_BASE

SMALL_BASE = TINY_BASE.with_name("tiny_base_64x3")
SMALLEST = (
    "--task=word_problems",
    "--prompts=compact",
    "--train_problems=8",
    "--test_problems=3",
    "--refine_examples=4",
    "--rows=4",
    "--micro_rows=4",
    "--sequence=384",
    "--actor_tokens=60",
    "--critic_tokens=30",
    "--slots=8",
)


@pytest.mark.slow
def test_actors_of_two_sizes_and_two_critics(run, run_process, tmp_path):
    flags = (
        *SMALLEST,
        f"--actor_base={SMALL_BASE}",
        f"--actor={TINY_BASE}",
        "--critic=checker",
        f"--critic={SMALL_BASE}",
        f"--run_dir={tmp_path}",
    )
    done = run("scaling", *flags)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    methods = ["no critic", *3 * ["checker"], *3 * [str(SMALL_BASE)]]
    assert [row["critic"] or "no critic" for row in results["rows"]] == 2 * methods
    assert [row["parameters"] for row in results["rows"][::7]] == [
        ModelConfig.load(folder).num_parameters for folder in (SMALL_BASE, TINY_BASE)
    ]
    table = {(row["actor"], row["critic"], row["method"]): row for row in results["rows"]}
    for (actor, critic, method), row in table.items():
        if method == "oracle":  # It never lets go of what is right.
            assert row["mean"] >= table[actor, None, "no critic"]["mean"]
        if critic:
            alone = table[actor, None, "no critic"]
            assert row["gain"] == pytest.approx(row["mean"] - alone["mean"])
    scores = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert len(scores) == 3 * len(table)
    assert "Figure 9" in done.stdout
    assert "<svg" in (tmp_path / "report.html").read_text()
    # Once more, with a critic fewer: nothing is trained or sampled again.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("stages/*/*")}
    done = run_process("scaling", *(flag for flag in flags if flag != "--critic=checker"))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("stages/*/*")} == before
    fewer = json.loads((tmp_path / "results.json").read_text())
    assert fewer["rows"] == [row for row in results["rows"] if row["critic"] != "checker"]


@pytest.mark.parametrize(("flags", "message"), [
    (["--critic=checker"], "error: name actors with --actor_base or --actor"),
    (["--critic=/nowhere", f"--actor={TINY_BASE}"], "error: --critic=/nowhere: "),
    (["--critic=checker", "--actor=/nowhere"], "error: --actor=/nowhere: "),
    (["--critic=checker", f"--actor={TINY_BASE}", f"--actor_base={TINY_BASE}/."],
     f"error: --actor_base={TINY_BASE}/. is also an --actor"),
])  # fmt: skip
def test_bad_input_is_refused_in_a_line(flags, message, run, tmp_path):
    run_dir = tmp_path / "run"
    done = run("scaling", f"--run_dir={run_dir}", *flags)
    assert done.returncode == 1
    [line] = done.stderr.strip().split("\n")
    assert message in line
    assert not run_dir.exists()
