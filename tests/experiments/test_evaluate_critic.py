"""Evaluating critics as its users start it, at the smallest sizes."""

import json
import pathlib
import shutil

import pytest

from jaxcritique.records import to_json
from jaxcritique.store import write_rows
from jaxcritique.tasks import TEST_SEED, TINY_BASE, word_problems

EVALUATE = (
    "evaluate_critic",
    "--prompts=compact",
    "--actor_tokens=100",
    "--critic_tokens=120",
    "--slots=8",
    f"--actor={TINY_BASE}",
    f"--critic={TINY_BASE}",
)


def rows(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_table_2(run, run_process, tmp_path):
    data = tmp_path / "test_problems.jsonl"
    write_rows(data, map(to_json, word_problems.generate("test", 6, TEST_SEED)))
    flags = (f"--data={data}", f"--run_dir={tmp_path}", "--critic=checker")
    process = run(*EVALUATE, *flags)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    critics = results["critics"]
    assert [found["critic"] for found in critics] == [str(TINY_BASE), "checker"]
    for found in critics:
        report = found["table2"]
        assert report["n"] == 6 == sum(report[flow] for flow in ("c2c", "c2i", "i2c", "i2i"))
        assert report["accuracy_oracle"] >= report["accuracy_refine_all"]
        for column, bounds in report["ci95"].items():
            assert bounds is None or bounds[0] <= report[column] <= bounds[1]
    assert critics[1]["table2"]["accuracy_without"] == critics[0]["table2"]["accuracy_without"]
    scores = rows(tmp_path / "scores.jsonl")
    for found in critics:
        for column in found["table2"]["ci95"]:
            wanted = (found["critic"], column)
            of = [row["score"] for row in scores if (row["method"], row["metric"]) == wanted]
            mean = sum(of) / len(of) if of else None
            assert mean == (found["table2"][column] and pytest.approx(found["table2"][column]))
    assert "refine flagged" in process.stdout
    # Another critic joins them: what the first cost is not spent again.
    process = run(*EVALUATE, *flags, f"--critic={tmp_path / 'copy'}")
    assert "copy/config.json" in process.stderr  # There is none yet.
    shutil.copytree(TINY_BASE, tmp_path / "copy")
    process = run_process(*EVALUATE, *flags, f"--critic={tmp_path / 'copy'}")
    assert process.returncode == 0, process.stderr
    more = json.loads((tmp_path / "results.json").read_text())
    assert more["critics"][:2] == critics
    assert more["critics"][2]["table2"] == critics[0]["table2"]  # It is the first critic's copy.
    # The program asks no model.
    samples = {name: cost["samples"] for name, cost in results["costs"].items()}
    assert samples == {
        "respond": 6,
        f"criticise: {TINY_BASE}": 6,
        f"refine: {TINY_BASE}": 6,
        "criticise: checker": 0,
        "refine: checker": 6,
    }
    assert results["failed"] == 0


def test_localisation(run, tmp_path):
    data = tmp_path / "steps.jsonl"
    steps = ["Now there are <<3+4=8>>8 eggs.", "That leaves <<8-5=3>>3 eggs."]
    question = (
        "Ben has 3 eggs. Ben finds 4 eggs. Ben loses 5 eggs. How many eggs does Ben have now?"
    )
    right = ["Now there are <<3+4=7>>7 eggs.", "That leaves <<7-5=2>>2 eggs."]
    endless = "Ben has 3 eggs. " * 1000  # Longer than the critic's context: it cannot be asked.
    samples = [
        {"problem": question, "steps": steps, "first_error": 0},
        {"problem": question, "steps": right, "first_error": -1},
        {"problem": endless, "steps": right, "first_error": -1},
    ]
    data.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    process = run(*EVALUATE, f"--data={data}", f"--run_dir={tmp_path / 'run'}")
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    [found] = results["critics"]
    assert (found["localisation"]["n"], found["localisation"]["erroneous"]) == (3, 1)
    for bounds in found["localisation"]["ci95"].values():
        assert 0 <= bounds[0] <= bounds[1] <= 1
    assert set(found["localisation"]["ci95"]) == {"accuracy_erroneous", "accuracy_correct", "f1"}
    assert "table2" not in found
    assert results["failed"] == results["costs"][f"criticise: {TINY_BASE}"]["failed"] == 1
    assert "1 samples failed" in process.stderr
    assert "failed" in process.stdout


@pytest.mark.parametrize(("row", "flags", "message"), [
    ('{"problem": "?", "steps": ["a"], "first_error": 5}', (), "data.jsonl:1: its 'first_error'"),
    ('{"a": 1}', (), "data.jsonl:1: the row is no problem"),
    ("", (), "data.jsonl: the file has no rows"),
    ('{"question": "?", "answer": "#### 1"}\n' * 2, (), "is there twice ('?'); leave it once."),
    (
        '{"problem": "?", "steps": ["a"], "first_error": 0, "gold": 1}\n' * 2, (),
        "is there twice ('?')",
    ),
    ('{"question": "?", "answer": "#### 1"}', ("--critic=/nowhere",), "/nowhere/config.json: no"),
])  # fmt: skip
def test_bad_data_is_refused_in_a_line(row, flags, message, run, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text(row)
    process = run(*EVALUATE, f"--data={data}", f"--run_dir={tmp_path / 'run'}", *flags)
    assert process.returncode == 1
    [line] = process.stderr.strip().split("\n")
    assert line.startswith("error: ")
    assert message in line
