"""Agreement on the real rows beside the repository, and on rewritings of MATH's answers."""

import json
from pathlib import Path

import dressing
import pytest
import rewriting

from jaxcritique.grading import Grader

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the data folder {DATA}")

# Rows of peer_cases.jsonl, counted from 0, whose expectation this grader does not share.
PEER_DISAGREEMENTS = {
    28: "a formula after a line break is still a formula",
    29: "a formula after a line break is still a formula",
    180: "row 179 is the same pair and expects the opposite",
    244: "row 243 is the same pair and expects the opposite; f(x) is not f(y)",
    254: "1 - 1/e is not 1 + 1/e",
    260: "a bare list has no order (strict: it has)",
    267: "a bare list has no order (strict: it has)",
    365: "one decimal is too coarse to stand for 2.333...",
}
# The grader that labelled the file could not read `\left( 10, \  2\right)`.
REALCRITIC_DISAGREEMENTS = {r"(10,2)"}
# The solutions box two answers side by side, the recorded gold answer is the second alone.
SOLUTION_DISAGREEMENTS = {
    "(8,38)", "(0, 1)", "-2x-1", r"-\frac{5}{2}", "9", "(-5, 1)", "18",
    "-3", r"150^\circ", "",
}  # fmt: skip


def rows(path):
    return [json.loads(line) for line in (DATA / path).read_text().splitlines()]


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=1, timeout=30) as grader:
        yield grader


@pytest.fixture(scope="module")
def math():
    return rows("math/train.jsonl") + rows("math/math500.jsonl")


def test_peer_cases(grader):
    disagreements = set()
    for index, row in enumerate(rows("grading/peer_cases.jsonl")):
        kind = "answer" if row["kind"] == "answer" else "response"
        prediction = "" if row["prediction"] is None else str(row["prediction"])
        grade = grader.grade(str(row["gold"]), prediction, kind)
        if (grade.verdict == "correct") != row["expected"]:
            disagreements.add(index)
    assert disagreements == set(PEER_DISAGREEMENTS)


def test_field_cases(grader):
    for row in rows("grading/field_cases.jsonl"):
        grade = grader.grade(row["gold"], row["prediction"], row["kind"])
        assert (grade.verdict == "correct") == row["expected"], row


def test_gsm8k_model_solutions(grader):
    solutions = rows("grading/gsm8k_model_solutions.jsonl")
    grades = grader.grade_all((row["gold"], row["response"]) for row in solutions)
    agree = [
        (grade.verdict == "correct") == row["expected"]
        for row, grade in zip(solutions, grades, strict=True)
    ]
    assert sum(agree) / len(agree) >= 0.999


def test_realcritic(grader):
    solutions = rows("grading/realcritic_math.jsonl")
    grades = grader.grade_all((row["gold"], row["response"]) for row in solutions)
    disagreements = {
        row["gold"]
        for row, grade in zip(solutions, grades, strict=True)
        if (grade.verdict == "correct") != row["expected"]
    }
    assert disagreements == REALCRITIC_DISAGREEMENTS


def test_gsm8k_gold_answers_equal_their_rationales(grader):
    problems = rows("gsm8k/test.jsonl")
    pairs = [(row["answer"].rpartition("#### ")[2], row["answer"]) for row in problems]
    assert {grade.verdict for grade in grader.grade_all(pairs)} == {"correct"}


def test_math_gold_answers_equal_themselves(grader, math):
    answers = {row["answer"] for row in math} - {""}
    grades = grader.grade_all([(answer, answer) for answer in answers], kind="answer")
    assert {grade.verdict for grade in grades} == {"correct"}


def test_math_gold_answers_equal_their_solutions(grader, math):
    grades = grader.grade_all((row["answer"], row["solution"]) for row in math)
    failed = [row for row, grade in zip(math, grades, strict=True) if grade.verdict != "correct"]
    assert {row["answer"] for row in failed} == SOLUTION_DISAGREEMENTS
    assert len(failed) <= 12


def test_rewritten_answers_stay_correct(grader, math):
    answers = {row["answer"] for row in math} - {""}
    pairs = [(answer, form) for answer in answers for form in rewriting.rewritings(answer)]
    assert len(pairs) > 20 * len(answers)
    failed = [grade for grade in grader.grade_all(pairs, "answer") if grade.verdict != "correct"]
    assert not failed


def test_near_misses_are_wrong(grader, math):
    answers = {row["answer"] for row in math} - {""}
    pairs = [(answer, form) for answer in answers for form in rewriting.near_misses(answer)]
    assert len(pairs) > 2000
    false = [grade for grade in grader.grade_all(pairs, "answer") if grade.verdict != "wrong"]
    assert not false
    dressed = [
        (gold, text)
        for index, (gold, form) in enumerate(pairs)
        for text in dressing.worn(form, dressing.DRESSES[index % 5 :: 5])
    ]
    assert len(dressed) > 10_000
    false = [grade for grade in grader.grade_all(dressed, "answer") if grade.verdict == "correct"]
    assert not false
