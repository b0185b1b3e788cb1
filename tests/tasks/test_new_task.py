"""A task of a user's own, defined here in one place, and all that is done with it."""

import dataclasses
import json
import random
import re

import pytest

from experiments.program import parse
from jaxcritique.critiques.build_critiques import BuildCritiquesConfig, build_critiques
from jaxcritique.errors import InvalidInput
from jaxcritique.prompts.templates import PROMPT_SETS
from jaxcritique.records import Problem, to_json
from jaxcritique.rollout.engines import Engine, EngineConfig
from jaxcritique.rollout.sampler import Completion
from jaxcritique.tasks import (
    TASKS,
    FileTask,
    GeneratedTask,
    TaskConfig,
    load_problems,
    read_any_problems,
    register,
)
from jaxcritique.testtime.evaluate import EvaluateConfig, evaluate


# ---- the task
def generate(split, count, seed):
    rng = random.Random(f"sums/{split}/{seed}")
    parity = split == "test"  # So that the splits share nothing.
    first = (2 * i + 10 + parity for i in rng.sample(range(1000), count))
    return [sum_of(a, rng.randint(2, 9), rng.randint(2, 9)) for a in first]


def sum_of(a, b, c):
    question = f"What is {a} + {b} + {c}?"
    return Problem(question, question, str(a + b + c), solution(a, b, c), "sums")


def solution(a, b, c, slip=0):
    steps = (f"First <<{a}+{b}={a + b}>>{a + b}.", f"Then <<{a + b}+{c}={a + b + c + slip}>>.")
    return "\n".join([*steps, f"The answer is $\\boxed{{{a + b + c + slip}}}$."])


@pytest.fixture(autouse=True)
def task():
    yield register(
        GeneratedTask(
            name="sums",
            answer_form=r"The answer is $\boxed{N}$.",
            licence="cc0-1.0",
            checkable=True,
            one_plan=True,
            generate=generate,
        )
    )
    del TASKS["sums"]


# ---- and what is done with it
class Adder:
    """Adds: every second time wrongly, but right after a critique."""

    def __init__(self, key):
        self.key = key
        self.shown = []

    def generate(self, requests, progress=None):
        for request in requests:
            self.shown.append(request.messages[-1]["content"])
            a, b, c = map(int, re.findall(r"\d+", request.messages[0]["content"])[:3])
            for sample in range(request.n):
                slip = 2 if request.prefix else sample % 2
                slip = slip if len(request.messages) == 1 else 0
                rest = solution(a, b, c, slip).split("\n")[request.prefix.count("\n") :]
                text = request.prefix + "\n".join(rest)
                yield Completion(request.id, sample, text, "stop", 9, 9)

    def close(self):
        pass


class Scripted(EngineConfig):
    def start(self):
        return Engine(self, lambda model: Adder(model.key))


def test_critiques_are_built_and_published(tmp_path):
    config = BuildCritiquesConfig(
        task="sums", train_problems=8, test_problems=4, rg1_samples=2, filter_refinements=2
    )
    data = build_critiques(config, tmp_path, Scripted())
    assert {row.dataset for row in data.table1} == {"sums"}
    assert {row.strategy for row in data.table1} == {"RG1", "RG2", "RG3"}
    wrong = [c for c in data.critiques if not c.solution.correct]
    assert len(data.critiques) > len(wrong) > 8
    assert data.filter["none"].false == 0
    assert "license: cc0-1.0\n" in (data.dataset / "README.md").read_text()
    assert "dataset, strategy" in data.table
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(
        json.dumps(data.to_json())
    )


def test_it_is_evaluated_with_the_checker_as_critic(tmp_path):
    config = EvaluateConfig(
        task="sums", test_problems=6, critic="checker", k=(1, 2), difficulty_samples=0
    )
    results = evaluate(config, tmp_path, Scripted())
    best = max(point["mean"] for point in results.points)
    assert best == 1.0  # Each answer is right once the checker has criticised it.


def test_prompts_ask_for_its_answer_form():
    [problem] = load_problems("sums", None, "test", 1, 0)
    [message] = PROMPT_SETS["full"].to_solve(problem)
    assert message["content"].endswith(r"'The answer is $\boxed{N}$.'")


def test_its_records_are_read_from_a_file_only_while_it_is_known(tmp_path, monkeypatch):
    problems = generate("train", 3, 0)
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(to_json(problem)) + "\n" for problem in problems))
    assert read_any_problems(path) == problems
    monkeypatch.delitem(TASKS, "sums")
    with pytest.raises(InvalidInput, match=r"own\.jsonl:1: `task=sums`: there are .*gsm8k"):
        read_any_problems(path)
    monkeypatch.undo()


def test_configs_and_flags_know_it_once_it_is_registered(monkeypatch):
    assert parse(["--task=sums"], TaskConfig) == [TaskConfig(task="sums")]
    monkeypatch.delitem(TASKS, "sums")
    with pytest.raises(ValueError, match=r"--task=sums: there are .*gsm8k"):
        parse(["--task=sums"], TaskConfig)
    monkeypatch.undo()


PROBLEM = sum_of(2, 3, 4)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([PROBLEM], "1 were generated where 2 are wanted"),
        ([PROBLEM, PROBLEM], "is there twice"),
        ([PROBLEM, dataclasses.replace(PROBLEM, id="b", answer=" ")], "number 1, 'b': .*'answer'"),
        ([PROBLEM, dataclasses.replace(PROBLEM, id="b", answer=9)], "'answer' is not text"),
        ([PROBLEM, dataclasses.replace(PROBLEM, id="b", rationale=None)], "'rationale' is None"),
        ([PROBLEM, dataclasses.replace(PROBLEM, id="b", task="sum")], "its 'task' is 'sum'"),
    ],
)
def test_what_a_generator_gets_wrong_is_said(made, message):
    broken = GeneratedTask(name="sums", licence="cc0-1.0", generate=lambda *_: made)
    with pytest.raises(InvalidInput, match=f"`task=sums`, test problems.*{message}"):
        broken.load("test", None, 2, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1}, "the row has no 'q'"),
        ({"q": "How many?", "a": 1}, "its 'answer' is not text"),
        ({"q": "How many?", "a": " "}, "the row has no 'answer'"),
    ],
)
def test_what_a_reader_of_rows_gets_wrong_is_said(row, message, tmp_path):
    task = FileTask(
        name="rows",
        licence="cc0-1.0",
        files={"test": "test.jsonl"},
        column="q",
        convert=lambda row: Problem(row["q"], row["q"], row["a"], "", "rows"),
    )
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"q": "Ok?", "a": "1"}) + "\n" + json.dumps(row)
    )
    with pytest.raises(InvalidInput, match=rf"test\.jsonl:2: {message}"):
        task.load("test", str(tmp_path), 0, 0)
    with pytest.raises(InvalidInput, match="`data_dir=hub`: rows is not there"):
        task.load("test", "hub", 0, 0)
