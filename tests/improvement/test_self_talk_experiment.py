"""Table 5 as a call, with scripted models; real ones: tests/experiments."""

import collections
import dataclasses
import json
import pathlib

import pytest
from scripted_engine import ScriptedEngineConfig

from jaxcritique.errors import InvalidInput
from jaxcritique.improvement.self_talk import SelfTalkConfig, SelfTalkResults, self_talk
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.tasks import TINY_BASE
from jaxcritique.training.examples import read_examples

CONFIG = SelfTalkConfig(
    prompts="compact",
    critic="checker",
    actor=str(TINY_BASE),
    train_problems=8,
    test_problems=3,
    refine_examples=4,
    samples=2,
    rounds=1,
    k=(1, 2),
    protocol=("refine_all", "refine_flagged"),
    rows=4,
    sequence=256,
)
ENGINE = ScriptedEngineConfig(problems=(8, 3))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def results(run_dir) -> SelfTalkResults:
    return self_talk(CONFIG, run_dir, ENGINE)


def test_table_5_is_made(results, run_dir):
    points = {(p["method"], p["metric"], p["k"]): p for p in results.points}
    methods = ("no critic", "self-correction", "self-talk", "refine_all", "refine_flagged")
    columns = [("greedy", 1), *((metric, k) for metric in ("maj", "pass") for k in (1, 2))]
    assert list(points) == [(method, *column) for method in methods for column in columns]
    for point in points.values():
        low, high = point["ci95"]
        assert 0 <= low <= point["mean"] <= high <= 1
        assert point["tokens"] > 0
    for row in results.differences:
        ours, theirs = (points[row[side], row["metric"], row["k"]] for side in ("method", "minus"))
        assert row["difference"] == pytest.approx(ours["mean"] - theirs["mean"])
    rows = [json.loads(line) for line in (run_dir / "scores.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * len(points)
    assert set(rows[0]) == {"problem", "level", "method", "metric", "k", "score"}
    assert list(results.models) == ["sft actor", "self_correction actor", "self-talk actor"]
    assert "Self-talk via critique" in str(results)
    assert "Sample transcripts" in results.report.read_text()
    written = json.loads((run_dir / "results.json").read_text())
    assert written == json.loads(json.dumps(results.to_json()))


def test_the_data_is_counted_and_can_be_learnt_from(results, run_dir):
    counts = collections.Counter(results.counts)
    assert counts["paths"] == 16
    kept, _ = counts.pop("kept"), counts.pop("kept with corrections")
    clean = counts.pop("clean at once") + counts.pop("clean after refining")
    # Every path is lost somewhere, or comes out clean and is then lost or kept.
    assert counts.pop("paths") == kept + counts.total()
    assert clean >= kept > 0
    examples = read_examples(run_dir / "self_talk.jsonl")
    assert len(examples) == kept
    for example in examples:
        assert example.messages[-1]["content"].endswith("Think aloud.")
        assert "The answer is" in example.reply
    assert any(transcript.of == "Training example" for transcript in results.transcripts)


def test_results_are_written_before_the_page(run_dir, results, tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("the page fails")

    monkeypatch.setattr(SelfTalkResults, "write_report", fail)
    with pytest.raises(RuntimeError, match="the page fails"):
        self_talk(CONFIG, tmp_path, ENGINE)
    assert json.loads((tmp_path / "results.json").read_text())["problems"] == 3


def test_no_example_to_learn_from_ends_with_what_was_lost_where(tmp_path):
    unsolvable = ScriptedEngineConfig(problems=(8, 3), wrong=1.0)
    with pytest.raises(InvalidInput, match=r"No self-talk example is left.*never clean 1"):
        self_talk(CONFIG, tmp_path, unsolvable)


def test_a_task_without_calculations_is_refused(tmp_path):
    row = {"problem": "1+1?", "solution": r"It is $\boxed{2}$.", "answer": "2"}
    for name in ("train.jsonl", "math500.jsonl"):
        (tmp_path / "math").mkdir(exist_ok=True)
        (tmp_path / "math" / name).write_text(json.dumps(row) + "\n")
    sizes = {"train_problems": 1, "test_problems": 1}
    config = dataclasses.replace(CONFIG, task="math", data_dir=str(tmp_path), **sizes)
    with pytest.raises(InvalidInput, match="`task=math`: the checker works out calculations"):
        self_talk(config, tmp_path / "run", EngineConfig())
    assert not (tmp_path / "run").exists()
