"""`python -m jaxcritique.grading`."""

import json
import subprocess
import sys

import pytest


def run(tmp_path, lines, *flags):
    source, target = tmp_path / "rows.jsonl", tmp_path / "verdicts.jsonl"
    source.write_text("\n".join(lines) + "\n")
    command = [
        sys.executable,
        "-m",
        "jaxcritique.grading",
        f"--input={source}",
        f"--output={target}",
        *flags,
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    rows = [json.loads(line) for line in target.read_text().splitlines()] if target.exists() else []
    return result, rows


def test_rows_keep_their_order_and_their_fields(tmp_path):
    lines = [
        json.dumps({"gold": "18", "prediction": "#### 18", "id": "a"}),
        json.dumps({"gold": "1,2", "prediction": "2,1", "kind": "answer"}),
        json.dumps({"gold": 5, "prediction": None}),
    ]
    result, rows = run(tmp_path, lines)
    assert result.returncode == 0
    assert [row["verdict"] for row in rows] == ["correct", "correct", "unparsable"]
    assert rows[0] == {"gold": "18", "prediction": "#### 18", "id": "a", "verdict": "correct",
                       "rule": "string", "extracted": "18"}  # fmt: skip
    assert "3 rows (correct 2, unparsable 1), 0 corrupt" in result.stderr
    assert run(tmp_path, lines[1:2], "--strict")[1][0]["verdict"] == "wrong"


def test_corrupt_rows_are_named_and_counted(tmp_path):
    good = json.dumps({"gold": "1", "prediction": "1"})
    bad = [
        "{",
        "[]",
        '{"gold": "1"}',
        '{"gold": [1], "prediction": "1"}',
        "[" * 100_000,
        '{"gold": "1", "prediction": "1", "kind": "x"}',
        '{"gold": NaN, "prediction": "1"}',
        '{"gold": "1", "prediction": Infinity}',
        '{"gold": "1", "prediction": ' + "9" * 5000 + "}",
    ]
    result, rows = run(tmp_path, [good, *bad, good])
    assert result.returncode == 1
    assert len(rows) == 2
    for line in range(2, 11):
        assert f"rows.jsonl:{line}: not a row" in result.stderr
    assert "9 corrupt" in result.stderr


def test_odd_but_readable_rows_are_graded(tmp_path):
    rows = [
        '{"gold": 7, "prediction": "\\ud800 \\\\boxed{7}"}',
        '{"gold": true, "prediction": "True", "kind": "answer"}',
        '{"gold": "1", "prediction": "1", "logprob": NaN, "deep": ' + "[" * 300 + "]" * 300 + "}",
        "",
    ]
    result, graded = run(tmp_path, rows)
    assert result.returncode == 0
    assert [row["verdict"] for row in graded] == ["correct"] * 3


def test_many_rows_keep_their_order(tmp_path):
    lines = [json.dumps({"gold": str(n), "prediction": f"#### {n % 7}"}) for n in range(2500)]
    result, rows = run(tmp_path, lines)
    assert [row["gold"] for row in rows] == [str(n) for n in range(2500)]
    assert "2500 rows (correct 7, wrong 2493)" in result.stderr


def test_an_empty_file_gives_an_empty_file(tmp_path):
    result, rows = run(tmp_path, [])
    assert (result.returncode, rows) == (0, [])
    assert "0 rows (none), 0 corrupt" in result.stderr


def test_a_file_of_corrupt_rows_gives_an_empty_file_and_says_so(tmp_path):
    result, rows = run(tmp_path, ["not", "json"])
    assert (result.returncode, rows) == (1, [])
    assert "0 rows (none), 2 corrupt" in result.stderr


@pytest.mark.parametrize("flag", ["--workers=0", "--timeout=nan", "--timeout=0", "--nope", "stray"])
def test_a_wrong_flag_is_one_line_and_leaves_no_output(tmp_path, flag):
    result, _ = run(tmp_path, ['{"gold": "1", "prediction": "1"}'], flag)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    row = '{"gold": "1", "prediction": "1"}'
    (tmp_path / "file").touch()
    for target in (tmp_path, tmp_path / "file" / "out.jsonl"):
        result, _ = run(tmp_path, [row], f"--output={target}")
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert str(tmp_path) in result.stderr
        assert ".tmp" not in result.stderr


def test_a_missing_input_is_an_error(tmp_path):
    command = [
        sys.executable,
        "-m",
        "jaxcritique.grading",
        f"--input={tmp_path}/none",
        f"--output={tmp_path}/out",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "none" in result.stderr


def test_the_input_is_not_written_over(tmp_path):
    lines = ["no row", json.dumps({"gold": "1", "prediction": "1"})]
    result, _ = run(tmp_path, lines, f"--output={tmp_path / 'rows.jsonl'}")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --output is --input")
    assert (tmp_path / "rows.jsonl").read_text().splitlines() == lines
