"""Annotators that fail, and processes that are killed: no row lost, none doubled."""

import collections
import contextlib
import json
import pathlib
import random
import subprocess
import sys
import time

import pytest
from scripted import ScriptedModel, build

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """What a model that fails on 30% of all samples comes to, and the model."""
    model = ScriptedModel(failing=0.3)
    return *build(tmp_path_factory.mktemp("failing"), model), model


def test_every_path_is_annotated_once(failing):
    annotations, *_ = failing
    paths = [(a.solution.problem.id, a.solution.text) for a in annotations]
    assert len(paths) == len(set(paths)) > 100
    outcomes = collections.Counter(a.outcome for a in annotations)
    # 0.37 of all replies fail or are of no use, four times in a row 2% of them.
    assert outcomes["failed"] + outcomes["unparsable"] < 0.06 * len(annotations)
    assert all(a.text for a in annotations)  # The error, or what was written.
    assert annotations.facts["counts"]["discarded by the annotator"] == sum(
        count for outcome, count in outcomes.items() if outcome != "accepted"
    )


def test_a_path_with_a_mistake_put_in_is_never_called_right(failing):
    annotations, *_ = failing
    assert annotations.facts["counts"]["RG3: right in spite of its mistake"] > 10
    assert {a.solution.correct for a in annotations if a.solution.source == "RG3"} == {False}


def test_what_failed_is_neither_a_path_nor_a_refinement(failing):
    _, candidates, kept, _ = failing
    assert kept
    assert all(c.critique.solution.text for c in candidates)
    tallies = [c.refined for c in candidates if c.refined]
    assert {tally.answered for tally in tallies} > {2, 3, 4}
    assert all(tally.right + tally.leaked <= tally.answered for tally in tallies)
    assert candidates.facts["costs"]["filter"]["samples"] == 4 * len(tallies)


def test_costs_are_of_every_sample_once(failing):
    _, candidates, _, model = failing
    costs = candidates.facts["costs"]
    assert set(costs) == {"RG1", "RG2", "RG3", "annotate", "filter", "alone"}
    assert sum(cost["samples"] for cost in costs.values()) == model.asked
    failed = sum(cost["failed"] for cost in costs.values())
    assert 0.25 < failed / model.asked < 0.35
    assert sum(c["generated_tokens"] for c in costs.values()) == 4 * (model.asked - failed)


def test_a_second_run_asks_nothing(failing, tmp_path):
    first = build(tmp_path, ScriptedModel(failing=0.3), count=8)
    model = ScriptedModel(failing=0.3)
    again = build(tmp_path, model, count=8)
    assert model.asked == 0
    assert [list(part) for part in again] == [list(part) for part in first]


@pytest.mark.slow
def test_killed_at_ten_random_moments(failing, program_environment, tmp_path):
    """SIGKILL while paths are made, annotated or filtered; the end is as if nothing had been."""
    rng = random.Random(6)
    command = [sys.executable, str(ROOT / "tests/critiques/scripted.py"), str(tmp_path)]
    done = tmp_path / "done.json"
    kills = 0

    def written() -> set[tuple[pathlib.Path, int]]:
        with contextlib.suppress(FileNotFoundError):  # A file was moved meanwhile.
            return {(path, path.stat().st_mtime_ns) for path in tmp_path.glob("stages/*/*")}
        return set()

    while not done.exists():
        before = written()
        process = subprocess.Popen(
            command, env=program_environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if kills < 10:
            # It imports for seconds, and reads what is finished, before it gets on.
            while written() <= before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.8))
            process.kill()
            kills += 1
            process.communicate()
        else:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()
    assert kills == 10
    annotations, candidates, _, _ = failing
    found = json.loads(done.read_text())
    assert [row["text"] for row in found["annotations"]] == [a.text for a in annotations]
    assert found["facts"]["counts"] == candidates.facts["counts"]
    assert found["facts"]["costs"] == candidates.facts["costs"]
    assert [row["critique"]["text"] for row in found["candidates"]] == [
        candidate.critique.text for candidate in candidates
    ]
