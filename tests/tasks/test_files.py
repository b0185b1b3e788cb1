import dataclasses
import json
import pathlib
import sys

import pytest

from jaxcritique.records import Problem, to_json
from jaxcritique.tasks import load_problems, read_any_problems

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = {
    ("gsm8k", "train"): "gsm8k/train.jsonl",
    ("gsm8k", "test"): "gsm8k/test.jsonl",
    ("math", "train"): "math/train.jsonl",
    ("math", "test"): "math/math500.jsonl",
}
GSM8K = {"question": "How many €? ", "answer": "Half: <<2400/2=1200>>1200 €.\n#### 1,200"}
MATH = {
    "problem": "Was ist $\\frac{1}{2}+1$?",
    "solution": "Also $\\boxed{9}$, nein: $\\boxed{\\frac{3}{2}}$ – fertig.",
    "level": "Level 4",
}
ROWS = {"gsm8k": GSM8K, "math": MATH}


@pytest.fixture
def load(tmp_path):
    """Returns a function that writes lines (rows or text) as a task's file and loads it."""

    def write_and_load(task: str, *lines: dict | str | bytes, split="train", count=0):
        path = tmp_path / FILES[task, split]
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [json.dumps(x, ensure_ascii=False) if isinstance(x, dict) else x for x in lines]
        path.write_bytes(
            b"".join((t if isinstance(t, bytes) else t.encode()) + b"\n" for t in texts)
        )
        return load_problems(task, str(tmp_path), split, count, seed=0)

    return write_and_load


def without(row: dict, field: str) -> dict:
    return {key: value for key, value in row.items() if key != field}


@pytest.mark.parametrize("split", ["train", "test"])
def test_gsm8k_row(split, load):
    [problem] = load("gsm8k", GSM8K, split=split)
    assert problem == Problem(
        id=problem.id,
        question="How many €?",
        answer="1200",
        rationale="Half: <<2400/2=1200>>1200 €.\nThe answer is 1200.",
        task="gsm8k",
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_math_row(split, load):
    row = MATH if split == "train" else {**MATH, "answer": "\\frac{3}{2}", "level": 4}
    [problem] = load("math", row, split=split)
    assert problem == Problem(
        id=problem.id,
        question=MATH["problem"],
        answer="\\frac{3}{2}",
        rationale=MATH["solution"] + "\nThe answer is $\\boxed{\\frac{3}{2}}$.",
        task="math",
        level=4,
    )


@pytest.mark.parametrize("level", ["Level ?", "Level 6", None, ""])
def test_a_level_that_is_none_is_left_open(level, load):
    [problem] = load("math", {**MATH, "level": level})
    assert problem.level is None


def test_empty_box_is_left_out(load, caplog):
    empty = {**MATH, "problem": "?", "solution": "So it is $\\boxed{}$."}
    [problem] = load("math", empty, MATH)
    assert problem.question == MATH["problem"]
    assert "1 rows without an answer are left out" in caplog.text


@pytest.mark.parametrize(
    "boxed", ["\\boxed 5", "\\boxed5", "\\fbox{5}", "\\boxed {5}", "\\boxed{ 5 }"]
)
def test_other_forms_of_a_box(boxed, load):
    [problem] = load("math", {**MATH, "solution": f"Not $\\boxed{{4}}$ but ${boxed}$."})
    assert problem.answer == "5"


def many(task, count):
    question = "question" if task == "gsm8k" else "problem"
    return [{**ROWS[task], question: f"What is {i}?"} for i in range(count)]


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_a_row_among_many_that_cannot_be_read_is_named_and_left_out(task, load, caplog):
    rows = many(task, 299)
    problems = load(task, *rows[:100], "{}", *rows[100:200], "not JSON", *rows[200:])
    assert problems == load(task, *rows)
    for message in (
        "train.jsonl:101: the row has no",
        "train.jsonl:202: not JSON",
        "2 rows cannot",
    ):
        assert message in caplog.text


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_a_file_with_many_rows_that_cannot_be_read_is_the_wrong_one(task, load):
    with pytest.raises(ValueError, match=r"train\.jsonl:1: .*\(3 rows cannot be read\)"):
        load(task, "{}", "{}", "{}", *many(task, 200))


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_ids_follow_the_question_alone(task, load):
    question = "question" if task == "gsm8k" else "problem"
    first = load(task, ROWS[task], {**ROWS[task], question: "Another?"})
    assert [p.id for p in load(task, "", ROWS[task])] == [first[0].id]
    assert first[0].id != first[1].id


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_a_question_that_is_there_twice_is_named(task, load):
    with pytest.raises(ValueError, match=rf"the train split of {task}: problem .* is there twice"):
        load(task, ROWS[task], ROWS[task])


def test_the_hub_without_its_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"`data_dir=hub` needs pip install 'jaxcritique\[hub\]'"):
        load_problems("gsm8k", "hub", "test", 0, 0)


@pytest.mark.parametrize("task", ["gsm8k", "math"])
@pytest.mark.parametrize(("line", "problem"), [
    ("{'question': 1}", "not JSON"),
    (b'{"question": "\xff"}', "not JSON"),
    ("[1, 2]", "not a JSON object"),
    ("{}", "the row has no '(question|problem)'"),
])  # fmt: skip
def test_unusable_line_is_named(line, problem, task, load):
    with pytest.raises(ValueError, match=rf"train\.jsonl:3: {problem}"):
        load(task, ROWS[task], "", line, ROWS[task])


@pytest.mark.parametrize(("task", "row", "problem"), [
    ("gsm8k", without(GSM8K, "answer"), "no 'answer'"),
    ("gsm8k", {**GSM8K, "answer": "  "}, "no 'answer'"),
    ("gsm8k", {**GSM8K, "question": 7}, "its 'question' is not text"),
    ("gsm8k", {**GSM8K, "answer": "It is 5."}, "does not end with '#### N'"),
    ("gsm8k", {**GSM8K, "answer": "It is 5.\n####"}, "does not end with '#### N'"),
    ("math", without(MATH, "solution"), "no 'solution'"),
    ("math", {**MATH, "solution": "It is 5."}, "its solution boxes none"),
    ("math", {**MATH, "solution": "It is $\\boxed{5"}, "its solution boxes none"),
    ("math", {**MATH, "answer": None}, "no 'answer'"),
])  # fmt: skip
def test_row_without_its_parts_is_named(task, row, problem, load):
    with pytest.raises(ValueError, match=rf"train\.jsonl:2: .*{problem}.*Mend or remove"):
        load(task, ROWS[task], row)


@pytest.mark.parametrize(("change", "problem"), [
    ({"answer": 2}, "its 'answer' is not text"),
    ({"rationale": None}, "no 'rationale'"),
    ({"task": "algebra"}, "`task=algebra`: there are .*gsm8k"),
    ({"task": []}, "its 'task' is not text"),
    ({"level": "3"}, "its 'level' is neither"),
    ({"levels": 3}, "Problem has no field"),
])  # fmt: skip
def test_row_of_our_own_form_is_checked(change, problem, tmp_path):
    path = tmp_path / "own.jsonl"
    own = Problem("a", "How many?", "2", "1+1=2", "gsm8k", 3)
    of_no_task = dataclasses.replace(own, task="")
    path.write_text("".join(f"{json.dumps(to_json(p))}\n" for p in (own, of_no_task)))
    assert read_any_problems(path) == [own, of_no_task]
    with path.open("a") as file:
        file.write(json.dumps({**to_json(own), **change}))
    with pytest.raises(ValueError, match=rf"own\.jsonl:3: .*{problem}"):
        read_any_problems(path)


@pytest.mark.parametrize("task", ["gsm8k", "math"])
def test_missing_data_is_refused(task, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.jsonl: no such file; `data_dir`"):
        load_problems(task, str(tmp_path), "train", 0, 0)
    with pytest.raises(ValueError, match=f"`task={task}` needs `data_dir`"):
        load_problems(task, None, "train", 0, 0)


@pytest.mark.parametrize("lines", [(), ("", " ")])
def test_empty_file_is_refused(lines, load):
    with pytest.raises(ValueError, match="the train split of gsm8k is empty"):
        load("gsm8k", *lines)


def test_count(load):
    rows = [{**GSM8K, "question": f"Number {i}?"} for i in range(3)]
    assert [p.question for p in load("gsm8k", *rows, count=2)] == ["Number 0?", "Number 1?"]
    assert len(load("gsm8k", *rows, count=0)) == 3
    with pytest.raises(ValueError, match=r"the train split of gsm8k has 3 problems; 4 were asked"):
        load("gsm8k", *rows, count=4)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data is not in {SHARED}")
@pytest.mark.parametrize(("task", "split", "count"), [
    ("gsm8k", "train", 7473),
    ("gsm8k", "test", 1319),
    ("math", "train", 7498),
    ("math", "test", 500),
])  # fmt: skip
def test_real_data(task, split, count):
    problems = load_problems(task, str(SHARED), split, 0, 0)
    assert len({p.id for p in problems}) <= len(problems) == count
    assert all(p.question and p.answer and p.rationale for p in problems)
