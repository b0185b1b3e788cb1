import dataclasses
import json
import typing

import pytest

from jaxcritique.records import (
    Critique,
    Problem,
    Refinement,
    Solution,
    Verdict,
    digest,
    from_json,
    to_json,
)

PROBLEM = Problem("p1", "What is 2 + 2?", "4", "2 + 2 = 4\nThe answer is 4.", "gsm8k")
SOLUTION = Solution(PROBLEM, "5", "wrong", "5", source="RG1", error_step=0, error="added wrongly")
CRITIQUE = Critique(SOLUTION, "Step 1 is wrong.", says_correct=False, first_error=0)
RECORDS = [
    PROBLEM,
    dataclasses.replace(PROBLEM, level=3, question="√2\u2028\n\r\t{x} 🍎"),
    SOLUTION,
    Solution(PROBLEM, "", "unparsable", None),
    CRITIQUE,
    Critique(SOLUTION, "", None, None),
    Refinement(CRITIQUE, "4", "correct", "4"),
]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A record of a kind that is not there yet: others in a field that may be None."""

    first: Solution
    second: Solution | None


@pytest.mark.parametrize("record", [*RECORDS, Pair(SOLUTION, SOLUTION), Pair(SOLUTION, None)])
def test_round_trip(record):
    assert from_json(type(record), json.loads(json.dumps(to_json(record)))) == record


def test_optional_fields_may_be_absent():
    row = {k: v for k, v in to_json(PROBLEM).items() if k != "level"}
    assert from_json(Problem, row) == PROBLEM


def test_missing_field_is_named():
    row = to_json(CRITIQUE)
    del row["solution"]["problem"]["question"]
    with pytest.raises(ValueError, match="Problem lacks the field 'question'"):
        from_json(Critique, row)


def test_unknown_field_is_named():
    row = to_json(CRITIQUE)
    row["solution"]["grade"] = "A"
    with pytest.raises(ValueError, match=r"Solution has no field \['grade'\]"):
        from_json(Critique, row)


@pytest.mark.parametrize("verdict", typing.get_args(Verdict))
def test_only_the_verdict_says_what_is_correct(verdict):
    solution = Solution(PROBLEM, "4", verdict, answer="4")
    assert solution.correct == Refinement(CRITIQUE, "4", verdict, "4").correct
    assert solution.correct == (verdict == "correct")


def test_digest_is_the_same_in_every_process_and_release():
    # Pinned: another value would make every stage of every run folder anew.
    assert digest("sample", {"n": 4, "t": 0.7}, [1, None]) == "64e11b1474f04cbf"
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(CRITIQUE) == digest(from_json(Critique, to_json(CRITIQUE)))


@pytest.mark.parametrize(
    "parts",
    [
        (),
        ("b", 1),
        ("a", "1"),
        ("a", 1.0),
        ("a", True),
        ("a", None),
        (["a", 1],),
        (1, "a"),
        ("a", 1, None),
        ("a1",),
        ({"a": 1},),
    ],
)
def test_digest_tells_apart(parts):
    assert digest(*parts) != digest("a", 1)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Solution)])
def test_digest_sees_every_field(field):
    value = dataclasses.replace(PROBLEM, id="p2") if field == "problem" else "something else"
    assert digest(dataclasses.replace(SOLUTION, **{field: value})) != digest(SOLUTION)


def test_digest_refuses_what_has_no_stable_content():
    with pytest.raises(TypeError, match="cannot hash a object"):
        digest("a", object())
