"""Self-improvement as a call, with scripted models; real ones: tests/experiments."""

import collections
import dataclasses
import json
import pathlib

import pytest
from scripted_engine import ScriptedEngineConfig

from jaxcritique.errors import InvalidInput
from jaxcritique.improvement.arms import ARMS, Arm, Feedback, register
from jaxcritique.improvement.results import SelfImprovement
from jaxcritique.improvement.self_improve import SelfImproveConfig, self_improve
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.tasks import TINY_BASE

CONFIG = SelfImproveConfig(
    prompts="compact",
    train_problems=10,
    explore_problems=5,
    test_problems=10,
    refine_examples=5,
    iterations=1,
    samples=2,
    critiques=2,
    max_flawed=8,
    rg1_samples=2,
    rg2_rounds=1,
    rg3_attempts=1,
    filter_refinements=2,
    tau=0,
    rows=4,
    sequence=256,
)
ENGINE = ScriptedEngineConfig(problems=(15, 10))
TIMES = {"wall_seconds", "peak_rss_bytes"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def results(run_dir) -> SelfImprovement:
    return self_improve(CONFIG, run_dir, ENGINE)


def lasting(results: SelfImprovement) -> dict:
    return {key: value for key, value in results.to_json().items() if key not in TIMES}


def manifests(run_dir: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in run_dir.glob("stages/*/manifest.json")}


def rows_of(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stages(manifests) -> list[str]:
    return [path.parent.name.rpartition("-")[0] for path in manifests]


def test_results_hold_what_is_promised(results, run_dir):
    assert results.wall_seconds > 0
    assert results.test_problems == 10
    assert [(row.method, row.iteration) for row in results.iterations] == [
        ("vanilla", 0), ("vanilla", 1), ("critique", 0), ("critique", 1),
    ]  # fmt: skip
    for row in results.iterations:
        low, high = row.ci95
        assert 0 <= low <= row.accuracy <= high <= 1
        assert set(row.accuracy_by_level) <= set("12345")
        assert sum(row.train_share_by_level.values()) == pytest.approx(1)
        assert row.train_size >= 10
        assert (row.generated_tokens > 0) == (row.iteration > 0)
    difference = results.iterations[3].accuracy - results.iterations[1].accuracy
    comparison = results.comparison
    assert comparison.critique_minus_vanilla == pytest.approx(difference)
    assert comparison.ci95[0] <= difference <= comparison.ci95[1]
    assert results.comparisons is None
    assert results.transcripts
    assert list(results.models) == ["sft actor", "critic", "vanilla actor", "critique actor"]
    assert "<svg" in results.report.read_text()
    written = json.loads((run_dir / "results.json").read_text())
    assert written == json.loads(json.dumps(results.to_json()))
    assert str(results) == "\n\n".join(
        [results.headline, results.table, f"{run_dir / 'results.json'}\n{results.report}"]
    )


def test_models_of_another_run_are_used_as_they_are(tmp_path):
    config = dataclasses.replace(CONFIG, actor=str(TINY_BASE), critic=str(TINY_BASE))
    results = self_improve(config, tmp_path, ENGINE)
    assert results.models["sft actor"] == results.models["critic"] == str(TINY_BASE)
    assert "critique_data" not in results.to_json()
    made = set(stages(manifests(tmp_path)))
    assert made >= {"explore-1", "actor-critique-1"}
    assert not made & {"actor-0", "critic", "rg1-1", "annotations", "filter"}


def test_the_same_call_again_samples_nothing(results, run_dir):
    before = manifests(run_dir)
    ENGINE.asked.clear()
    assert lasting(self_improve(CONFIG, run_dir, ENGINE)) == lasting(results)
    assert not ENGINE.asked
    assert manifests(run_dir) == before


def test_further_methods_join_a_run_and_share_its_stages(results, run_dir):
    before = manifests(run_dir)
    methods = (
        "vanilla_equal_tokens",
        "more_refinements",
        "no_difficulty_awareness",
        "critique",
        "vanilla",
    )
    more = dataclasses.replace(CONFIG, methods=methods, self_correction=True, difficulty_samples=2)
    again = self_improve(more, run_dir, ENGINE)
    assert before.items() <= manifests(run_dir).items()
    # All arms explore alike, and share what they request alike.
    assert collections.Counter(stages(manifests(run_dir).keys() - before.keys())) == {
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
    assert "self_correction actor" in again.models
    assert again.levels_by == "2 samples, fifths"
    # The budgets of Table 4: each arm differs from the critique method in one thing.
    last = {method: again.rows(method)[-1] for method in again.methods}
    ours, alike = last["critique"], last["no_difficulty_awareness"]
    deep, equal = last["more_refinements"], last["vanilla_equal_tokens"]
    wrong = ours.responses - ours.correct_responses
    assert wrong
    assert (ours.critiques, ours.refinements) == (2 * wrong, 2 * wrong)
    assert (alike.critiques, alike.refinements) == (2 * wrong, 2 * wrong)
    assert (deep.critiques, deep.refinements) == (wrong, 2 * wrong)
    assert equal.critiques == 0
    assert equal.generated_tokens == ours.generated_tokens > last["vanilla"].generated_tokens
    # Every method is compared with the paper's.
    assert [d.minus for d in again.comparisons] == [m for m in again.methods if m != "critique"]
    for row in again.comparisons:
        difference = ours.accuracy - last[row.minus].accuracy
        assert row.difference == pytest.approx(difference)
        assert row.ci95[0] <= difference <= row.ci95[1]
    # What was there before is unchanged, but for the levels.
    for row in results.iterations:
        same = again.rows(row.method)[row.iteration]
        levels = {
            "accuracy_by_level": row.accuracy_by_level,
            "train_share_by_level": row.train_share_by_level,
        }
        assert dataclasses.replace(same, **levels) == row


def test_scores_and_training_data_are_there_by_problem(results, run_dir):
    again = self_improve(CONFIG, run_dir, ENGINE)
    scores = collections.defaultdict(dict)
    for row in rows_of(run_dir / "scores.jsonl"):
        assert row["level"] in range(1, 6)
        scores[row["method"], row["iteration"]][row["problem"]] = row["score"]
    trained = collections.defaultdict(dict)
    for row in rows_of(run_dir / "training.jsonl"):
        trained[row["method"], row["iteration"]][row["problem"]] = row["rows"]
    assert len(scores) == len(trained) == len(again.iterations)
    for row in again.iterations:
        at = row.method, row.iteration
        assert len(scores[at]) == 10
        assert sum(scores[at].values()) / 10 == pytest.approx(row.accuracy)
        assert len(trained[at]) == 10 + 5
        assert sum(trained[at].values()) == row.train_size


@pytest.fixture
def second_opinion():
    """An arm that is registered here, and nowhere else mentioned."""
    arm = Arm(
        "second_opinion",
        "Second opinion",
        "three critiques of each right response",
        dataclasses.replace(ARMS["vanilla"].style, color="#123456"),
        lambda responses, critiques, seed: Feedback([r for r in responses if r.correct], 3, 1),
    )
    register(arm)
    yield arm
    del ARMS[arm.name]


def test_an_arm_is_added_in_one_place(tmp_path, second_opinion):
    methods = ("vanilla", "critique", "second_opinion")
    results = self_improve(dataclasses.replace(CONFIG, methods=methods), tmp_path, ENGINE)
    start, last = results.rows("second_opinion")
    assert start == dataclasses.replace(results.rows("vanilla")[0], method="second_opinion")
    assert last.critiques == last.refinements == 3 * last.correct_responses > 0
    assert results.comparisons[-1].minus == "second_opinion"
    assert "Second opinion" in results.table
    page = results.report.read_text()
    assert "Second opinion: three critiques of each right response" in page
    assert page.count("#123456") > 1  # In a figure.
    assert "second_opinion actor" in results.models


def test_results_are_written_before_the_page(tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("the page fails")

    monkeypatch.setattr(SelfImprovement, "write_report", fail)
    with pytest.raises(RuntimeError, match="the page fails"):
        self_improve(CONFIG, tmp_path, ENGINE)
    assert json.loads((tmp_path / "results.json").read_text())["test_problems"] == 10


@pytest.mark.parametrize(("settings", "message"), [
    ({"train_problems": 0}, "`explore_problems=5` needs `train_problems`"),
    ({"methods": ("vanilla", "critique", "best")}, "`methods=vanilla,critique,best`: there is no"),
    ({"methods": ("critique",)}, "`methods=critique` lacks vanilla, which every run compares"),
    (
        {"methods": ("vanilla", "critique", "more_refinements"), "critiques": 1},
        "`critiques=1`: more_refinements is then no different from critique. Give `critiques=2`",
    ),
    ({"tau": 1.0}, "`tau=1.0`: more than that share must be right"),
    ({"samples": 0}, "`samples=0` must be at least 1"),
])  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        dataclasses.replace(CONFIG, **settings)
    assert message in str(error.value)


@pytest.mark.parametrize(("settings", "engine", "message"), [
    ({"model": "/nowhere"}, {}, "`model=/nowhere`: /nowhere/config.json: no such file"),
    ({"critic": ""}, {}, "`critic=`: "),
    ({"train_problems": 0, "explore_problems": 0}, {}, "say how many"),
    ({"task": "gsm8k", "data_dir": "/nowhere"}, {}, "/nowhere/gsm8k/train.jsonl: no such file"),
    ({}, {"mesh": "data=3"}, "mesh=data=3"),
])  # fmt: skip
def test_bad_input_claims_no_folder(settings, engine, message, tmp_path):
    config = dataclasses.replace(CONFIG, **settings)
    with pytest.raises(InvalidInput) as error:
        self_improve(config, tmp_path / "run", EngineConfig(**engine))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_another_seed_in_the_same_folder_is_refused(results, run_dir):
    config = dataclasses.replace(CONFIG, seed=1)
    with pytest.raises(InvalidInput, match=r"holds a run with another `seed` \(0, now 1\)"):
        self_improve(config, run_dir, ENGINE)
