"""Figure 9 as its users start it, at the smallest sizes, and the bases it needs."""

import json
import pathlib

import pytest

from jaxcritique.models.config import ModelConfig
from jaxcritique.tasks import TINY_BASE

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


@pytest.fixture(scope="module")
def small(run, tmp_path_factory) -> pathlib.Path:
    """A base of another size, trained for a step."""
    run_dir = tmp_path_factory.mktemp("base")
    sizes = ("--dim=64", "--layers=1", "--steps=1", "--stop_at=1", "--rows=2", "--sequence=320")
    done = run("pretrain_tiny", f"--run_dir={run_dir}", *sizes)
    assert done.returncode == 0, done.stderr
    return run_dir / "tiny_base"


def test_the_sizes_of_a_base_are_what_was_asked_for(small):
    config = ModelConfig.load(small)
    assert (config.dim, config.num_layers, config.num_heads, config.mlp_dim) == (64, 1, 1, 192)
    record = json.loads((small / "pretraining.json").read_text())
    assert record["parameters"] == config.num_parameters
    assert (record["dim"], record["layers"]) == (64, 1)
    # The shipped base is of the sizes that are the defaults.
    shipped = ModelConfig.load(TINY_BASE)
    assert (shipped.dim, shipped.num_layers, shipped.mlp_dim) == (192, 5, 512)


def test_actors_of_two_sizes_and_two_critics(small, run, tmp_path):
    flags = (
        *SMALLEST,
        f"--actor_base={small}",
        f"--actor={TINY_BASE}",
        "--critic=checker",
        f"--critic={small}",
        f"--run_dir={tmp_path}",
    )
    done = run("scaling", *flags)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    methods = ["no critic", *3 * ["checker"], *3 * [str(small)]]
    assert [row["critic"] or "no critic" for row in results["rows"]] == 2 * methods
    assert [row["parameters"] for row in results["rows"][::7]] == [
        ModelConfig.load(folder).num_parameters for folder in (small, TINY_BASE)
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
    done = run("scaling", *(flag for flag in flags if flag != "--critic=checker"))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("stages/*/*")} == before
    fewer = json.loads((tmp_path / "results.json").read_text())
    assert fewer["rows"] == [row for row in results["rows"] if row["critic"] != "checker"]


@pytest.mark.parametrize(("program", "flags", "message"), [
    ("scaling", ["--critic=checker"], "error: name actors with --actor_base or --actor"),
    ("scaling", ["--critic=/nowhere", f"--actor={TINY_BASE}"], "error: --critic=/nowhere: "),
    ("scaling", ["--critic=checker", "--actor=/nowhere"], "error: --actor=/nowhere: "),
    ("scaling", ["--critic=checker", f"--actor={TINY_BASE}", f"--actor_base={TINY_BASE}/."],
     f"error: --actor_base={TINY_BASE}/. is also an --actor"),
    ("scaling", [*4 * ["--critic=checker"], f"--actor={TINY_BASE}"], "at the most"),
    ("pretrain_tiny", ["--rows=17"], "flag --rows=17: --rows must be even."),
    ("pretrain_tiny", ["--dim=100"], "flag --dim=100: --dim must be a multiple of 64"),
])  # fmt: skip
def test_bad_input_is_refused_in_a_line(program, flags, message, run, tmp_path):
    run_dir = tmp_path / "run"
    done = run(program, f"--run_dir={run_dir}", *flags)
    assert done.returncode == 1
    first, *rest = done.stderr.strip().split("\n")
    assert message in first
    assert rest in ([], ["Pass --helpshort or --helpfull to see help on flags."])
    assert not run_dir.exists()
