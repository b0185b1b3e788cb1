"""Four graders side by side, as the benchmark prints them."""

import json

import pytest

ROWS = [
    {"gold": "72", "response": "The answer is 72, with 8 left over.", "expected": True},
    {"gold": "72", "prediction": "72 it is.\n#### 72", "expected": True},
    {
        "gold": "3",
        "response": "The answer is 2.\nQuestion: And then?\nThe answer is 3.",
        "expected": False,
    },
    {"gold": "1/2", "prediction": "0.5", "kind": "answer"},
    {"problem": {"answer": "5"}, "text": "So 5."},
    {"gold": "5", "prediction": None},
]


@pytest.fixture
def outputs(tmp_path):
    file = tmp_path / "outputs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


def test_graders_side_by_side(run, outputs, tmp_path):
    figures = tmp_path / "figures.json"
    done = run("benchmark", "--suite=grader", f"--outputs={outputs}", f"--output={figures}")
    assert done.returncode == 0, done.stderr
    lines = {line[:22].strip(): line[22:].split() for line in done.stdout.splitlines()}
    # right, as ours, right of the three with a known verdict, false positives, false negatives
    assert lines["strict (last ####)"] == ["16.7%", "50.0%", "66.7%", "0", "1"]
    assert lines["flexible (last number)"] == ["50.0%", "50.0%", "33.3%", "1", "1"]
    assert lines["jaxcritique"] == ["66.7%", "100.0%", "100.0%", "0", "0"]
    assert "line 1: flexible (last number) wrong, jaxcritique right: 72 |" in done.stdout
    rows = json.loads(figures.read_text())["agreement"]["verdicts"]
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["jaxcritique"] for row in rows] == [True, True, False, True, True, False]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"gold": "5"}', "outputs.jsonl:7: a row needs `gold` and `prediction`"),
        (
            '{"gold": "5", "response": "5", "expected": "yes"}',
            "outputs.jsonl:7: `expected` is 'yes'",
        ),
        ("five", "outputs.jsonl:7"),
    ],
)
def test_rows_that_cannot_be_graded(run, outputs, line, message):
    with outputs.open("a") as file:
        file.write(line + "\n")
    done = run("benchmark", "--suite=grader", f"--outputs={outputs}")
    assert done.returncode == 1
    assert message in done.stderr


def test_nothing_to_grade(run, tmp_path):
    done = run("benchmark", "--suite=grader")
    assert done.returncode == 1
    assert "--suite=grader needs --data_dir" in done.stderr
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert "has no rows" in run("benchmark", "--suite=grader", f"--outputs={empty}").stderr
