import dataclasses
import typing

import pytest

from jaxcritique.prompts.annotation import Mode, annotation_messages, hint, read_annotation
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.records import Problem, Solution

PROBLEM = Problem(
    "id",
    "How many?",
    "31",
    "He keeps <<48/2=24>>24.\nLeft: <<36-5=31>>31.\nThe answer is 31.",
    "gsm8k",
)
WRONG = Solution(PROBLEM, "Half is 26.\nSo 38.\nLeft: 33.\nThe answer is 33.", "wrong", "33", "RG1")
BRANCHED = dataclasses.replace(WRONG, source="RG2", error_step=1)
SPOILT = dataclasses.replace(
    WRONG, source="RG3", error_step=0, error="half of 48 is 24", error_type="calculation"
)
RIGHT = dataclasses.replace(WRONG, verdict="correct")


def asked(solution: Solution, mode="step_by_step") -> str:
    [message] = annotation_messages(COMPACT, solution, mode)
    return message["content"]


def test_the_hints_are_the_papers():
    reference, location = "He keeps 24.\nLeft: 31.", "goes wrong first at step 2"
    assert hint(RIGHT) == ""
    assert reference in hint(WRONG)
    assert "step 2" not in hint(WRONG)
    assert reference in hint(BRANCHED)
    assert location in hint(BRANCHED)
    assert reference not in hint(SPOILT)
    assert "step 1: half of 48 is 24 (calculation)" in hint(SPOILT)
    for mode in ("holistic", "step_by_step"):
        for solution in (WRONG, BRANCHED, SPOILT):
            assert hint(solution) in asked(solution, mode)
        assert "31" not in asked(RIGHT, mode)  # Nothing of the reference.


def test_a_right_response_is_always_labelled_step_by_step():
    assert asked(RIGHT, "holistic") == asked(RIGHT, "step_by_step")
    assert asked(WRONG, "holistic") != asked(WRONG, "step_by_step")
    assert "First wrong step" in asked(WRONG, "holistic")


def test_a_critic_is_asked_as_critics_are():
    assert annotation_messages(COMPACT, WRONG, "critic") == COMPACT.to_critique(WRONG)


def test_steps_are_numbered_and_the_answer_shown():
    assert "Step 1: Half is 26.\nStep 2: So 38.\nStep 3: Left: 33.\nThe answer is 33." in asked(
        WRONG
    )


@pytest.mark.parametrize("text", [
    "**Step 1:** Half is 26.\n**Explanation:** it is 24.\n**Correctness:** Wrong\nFinal answer: No",
    "Let me see.\n\n1. Step 1: half\n   Explanation: it is\n   24.\n   Correctness: Incorrect",
    "Step 1: Wrong. it is 24.",
])  # fmt: skip
def test_a_first_error_is_written_in_the_critics_format(text):
    read = read_annotation(WRONG, text, "step_by_step")
    assert read == (
        "Step 1: Half is 26.\nExplanation: it is 24.\nCorrectness: Wrong\nFinal answer: Wrong",
        False,
    )


def test_what_the_annotator_says_after_the_first_error_is_left_out():
    verdicts = ("Correct", "Wrong", "Wrong")
    labels = "\n".join(f"Step {i}: x\nCorrectness: {v}" for i, v in enumerate(verdicts, start=1))
    critique, says_correct = read_annotation(WRONG, labels, "step_by_step") or ("", True)
    assert "Step 2: So 38.\nCorrectness: Wrong\nFinal answer: Wrong" in critique
    assert "Step 3" not in critique
    assert not says_correct


@pytest.mark.parametrize("text", [
    "", "Hm.", "Step 1: a", "Final answer: Wrong",  # No step is called wrong.
    "Step 9: a\nCorrectness: Wrong",  # There is no such step.
    "Step 1: a\nCorrectness: Correct\nFinal answer: Correct",  # Steps 2 and 3 are not labelled.
])  # fmt: skip
def test_unusable_labels(text):
    assert read_annotation(WRONG, text, "step_by_step") is None
    assert read_annotation(RIGHT, text, "step_by_step") is None


def test_all_steps_correct():
    labels = "\n".join(f"Step {i}: x\nExplanation: fine.\nCorrectness: Correct" for i in (1, 2, 3))
    read = read_annotation(RIGHT, f"{labels}\nFinal answer: Correct", "holistic")
    assert read is not None
    assert read[1]
    assert read[0].count("Correctness: Correct") == 3


@pytest.mark.parametrize(("text", "first"), [
    ("First wrong step: 2\nExplanation: it is 36.\nFinal answer: Wrong", 1),
    ("**First wrong step:** Step 2\n**Explanation:** it is 36.\n**Final answer:** Wrong", 1),
    ("The first error is in step 2.\nExplanation: it is 36.", 1),
    ("First incorrect step is number 1.\n\nFeedback: it is 36.", 0),
])  # fmt: skip
def test_holistic_replies(text, first):
    critique, says_correct = read_annotation(WRONG, text, "holistic") or ("", True)
    assert not says_correct
    assert critique.count("Correctness: Correct") == first
    assert critique.endswith("Explanation: it is 36.\nCorrectness: Wrong\nFinal answer: Wrong")


@pytest.mark.parametrize(
    "text", ["", "Step 2 is wrong.", "First wrong step: 4\nExplanation: x", "First wrong step: 2"]
)
def test_unusable_holistic_replies(text):
    assert read_annotation(WRONG, text, "holistic") is None


def test_blanks_without_end_are_read_in_no_time():
    blanks = 100_000  # Minutes, where a pattern's time grows as their square.
    for blank in (" ", "\n", "# ", "*", "\u2003"):
        text = f"First wrong step: 2{blank * blanks}\nExplanation: it{blank * blanks}x"
        critique, says_correct = read_annotation(WRONG, text, "holistic") or ("", True)
        assert not says_correct
        assert "Explanation: it" in critique
        assert read_annotation(WRONG, f"First wrong step is{blank * blanks}x", "holistic") is None


def test_a_holistic_annotator_may_see_no_error():
    read = read_annotation(WRONG, "First wrong step: none\nFinal answer: Correct", "holistic")
    assert read is not None
    assert read[1]


@pytest.mark.parametrize("mode", typing.get_args(Mode))
@pytest.mark.parametrize("text", ["", "\n \n", "The answer is 5."])
def test_a_solution_without_steps_can_be_asked_about(text, mode):
    empty = dataclasses.replace(WRONG, text=text)
    assert annotation_messages(COMPACT, empty, mode)
    assert read_annotation(empty, "First wrong step: 1\nExplanation: x", mode) is None
