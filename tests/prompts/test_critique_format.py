import json
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcritique.prompts.critique import (
    ParsedCritique,
    StepVerdict,
    parse_critique,
    render_critique,
    split_steps,
    without_calculations,
)

RELEASED = (
    pathlib.Path(__file__).resolve().parents[3]
    / "shared/data/critique/mathcritique_release_200.json"
)
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)
LABELS = st.sampled_from([
    "Correctness:", "Correctness of the step", "Final answer", "Correctness of the final answer: ",
    "Correct", "wrong", "INCORRECT", "Step 1:", "**", " ", "\n", "_", "is", "\u2028", "\0",
])  # fmt: skip


def step_verdicts(parsed: ParsedCritique) -> tuple[bool, ...]:
    return tuple(step.correct for step in parsed.steps if step.correct is not None)


def test_a_verdict_on_the_line_after_its_label_may_have_lines_behind_it():
    text = (
        "Step 1: a\nCorrectness:\nCorrect\nStep 2: b\nCorrectness:\n\nWrong\nExplanation: bad\n"
        "Final answer:\nWrong\nbecause"
    )
    for parsed in (parse_critique(text), parse_critique(text.replace("\n", "\r\n"))):
        assert step_verdicts(parsed) == (True, False)
        assert parsed.says_correct is False
    assert parse_critique("Final answer:\n\nCorrect\n\nThanks").says_correct is True


def test_blanks_without_end_are_read_in_no_time():
    many = 100_000  # A quarter of an hour, where a pattern's time grows as their square.
    for blank in (" ", "\n", "/", "* ", "_", "\u2003", "# "):
        blanks = blank * many
        for text in (
            blanks,
            f"Correctness:\n{blanks}",
            f"Correctness: {blanks}x",
            f"Correctness: Correct {blanks}x",
            f"Final answer: correct {blanks}x",
            f"Step{blanks}x",
            f"Step 1:{blanks}x",
            f"Explanation: {blanks}x\nFinal answer",
        ):
            assert parse_critique(text).says_correct in (None, True)


@pytest.mark.parametrize(("solution", "steps"), [
    ("", []),
    ("\n \n", []),
    ("one\n\n  two  \r\nThe answer is 5.", ["one", "two"]),
    ("one\n#### 5", ["one"]),
    ("one\n**The final answer is 5**", ["one"]),
    ("one\nSo the answer is 5\nTherefore, the answer is 6", ["one"]),
    ("The answer is near.\ntwo", ["two"]),
    ("She knows the answer is 5.\nThe answers are 5.", None),
])  # fmt: skip
def test_split_steps(solution, steps):
    assert split_steps(solution) == (solution.split("\n") if steps is None else steps)


@pytest.mark.parametrize(("text", "expected"), [
    ("She has <<12+15=27>>27 apples, <<27/3=9>>9 each.", "She has 27 apples, 9 each."),
    ("1 << 2", "1 << 2"),
    ("<<1+1\n=2>>2", "<<1+1\n=2>>2"),
])  # fmt: skip
def test_calculator_marks_are_dropped(text, expected):
    assert without_calculations(text) == expected


def test_rendered_critique():
    steps = [
        StepVerdict("Tom has <<3*4=12>>12 apples.", "3*4=12.", correct=True),
        StepVerdict("He eats <<12-5=8>>8.", "12-5=7, not 8.", correct=False),
    ]
    assert render_critique(steps, says_correct=False) == (
        "Step 1: Tom has 12 apples.\nExplanation: 3*4=12.\nCorrectness: Correct\n"
        "Step 2: He eats 8.\nExplanation: 12-5=7, not 8.\nCorrectness: Wrong\n"
        "Final answer: Wrong"
    )
    assert render_critique([], True, remark="nothing to do.") == (
        "Explanation: nothing to do.\nFinal answer: Correct"
    )


@given(st.lists(st.builds(StepVerdict, LINES, LINES, st.booleans())), st.booleans(), LINES)
def test_what_was_rendered_is_parsed(steps, says_correct, remark):
    parsed = parse_critique(render_critique(steps, says_correct, remark))
    assert step_verdicts(parsed) == tuple(step.correct for step in steps)
    assert parsed.says_correct == says_correct
    wrong = [i for i, step in enumerate(steps) if not step.correct]
    assert parsed.first_error == (wrong[0] if wrong else None)


@pytest.mark.parametrize(("text", "verdicts", "says_correct"), [
    ("", (), None),
    ("I like this solution. It is correct.", (), None),
    ("Correctness: Correct", (True,), None),
    ("Correctness: Correct\nCorrectness: Wrong", (True, False), False),  # It says so, in effect.
    ("Correctness: Wrong\nFinal answer: Correct", (False,), True),
    ("correctness:   WRONG\nFINAL ANSWER - incorrect", (False,), False),
    ("**Correctness:** Correct\n**Final answer: Correct**", (True,), True),
    ("- *Correctness*: **Wrong**\n## Final Answer: **Wrong**", (False,), False),
    ("1. Correctness of the step: Correct.\n2. Final answer is correct.", (True,), True),
    ("Correctness: Correctly copied\nFinal answer: wrongly put", (), None),
    ("Final answer: Wrong\nFinal answer: Correct", (), True),  # The last word counts.
    ("Final answer: 42", (), None),
    ("Step 1: Correct\nStep 2: Wrong. It should be 5.\nOverall: Wrong", (True, False), False),
    ("### Step 1 (Correct)\n### Step 2 — incorrect", (True, False), False),
    ("**Step 1:** is correct.\n**Step 2:** is not correct.", (True, False), False),
    ("Step 1: a\nVerdict: right\nOverall verdict: Correct", (True,), True),
    ("Step sentence: 21 eggs.\nCorrectness of the step: Wrong", (False,), False),
    ("Correctness: Correct for the equation but wrong in context", (False,), False),
    ("Correctness: partially correct", (False,), False),
    ("Step-by-step check:\nThe final answer is wrong.", (), False),
    ("Step 1: a\nStep 2: b\nStep 1: a\nCorrectness: Correct\nStep 2: b\nCorrectness: Wrong",
     (True, False), False),
    # A sentence like a label stands before the step's label.
    ("Step 1: a\nExplanation: 24.\nThis step is correct.\nCorrectness: Correct\n"
     "Step 2: b\nCorrectness: Wrong", (True, False), False),
    ("Step 1: a\nThis step is correct?\nCorrectness: Wrong", (False,), False),
    ("Step 1: a\nCorrectness: Wrong\nThis step is right about the eggs only.", (False,), False),
    ("This step is correct.\nThis step is wrong.", (True, False), False),
    # A step repeated once and two explanations, each with a verdict, are two steps.
    ("Step 1: a\nExplanation: 1.\nCorrectness: Correct\nExplanation: 2.\nCorrectness: Wrong",
     (True, False), False),
    # An explanation speaks of an earlier step.
    ("Step 1: a\nCorrectness: Correct\nStep 2: b\nExplanation: see above.\n"
     "Step 1 gave 24, so it is 12.\nCorrectness: Wrong", (True, False), False),
    ("Step 1: Correct\nStep 2: Wrong. It is 5.\nStep 1: a\nCorrectness: Correct",
     (True, False), False),
    # The prompt's own lines are no verdicts.
    ("Step 1: a\nCorrectness: Correct or Wrong\nFinal answer: Correct or Wrong", (), None),
    ("Correctness: Correct/Wrong\nFinal answer: [Correct | Incorrect]", (), None),
    ("'Final answer: Correct' or 'Final answer: Wrong'.", (), None),
    ("Correctness: Correct or Wrong\nFinal answer: Wrong", (), False),
    ("Correctness: Correct, or right\nFinal answer: Wrong/Incorrect", (True,), False),
    # A label in the midst of a line, at its end, or on the next.
    ("Step 1: a. Explanation: good. Correctness: Correct\n"
     "Step 2: b. Explanation: bad. **Correctness:** Wrong", (True, False), False),
    ("1. Explanation: good. Correctness: Correct\n2. Correctness: Wrong", (True, False), False),
    ("Step 1: a - Correct\nStep 2: b → **Wrong**\nStep 3: turn right", (True, False), False),
    ("Step 1: a - Correct\nCorrectness: Wrong", (False,), False),
    ("Step 1: a\nCorrectness:\nCorrect\n**Final answer**\n\n**Correct**", (True,), True),
    ("Step 1: a\nCorrectness:\nStep 2: b\nCorrectness:\nWrong", (False,), False),
    ("Final answer: Correct? No, it is wrong.", (), False),
    ("Final answer: Correct? Yes.", (), True),
])  # fmt: skip
def test_parsing_what_models_write(text, verdicts, says_correct):
    parsed = parse_critique(text)
    assert (step_verdicts(parsed), parsed.says_correct) == (verdicts, says_correct)


@pytest.mark.parametrize(("text", "first_error", "explanation"), [
    ("Step 1: a\nExplanation: 24.\nThis step is correct.\nCorrectness: Correct\n"
     "Step 2: b\nCorrectness: Wrong", 1, ""),
    ("Step 1: a\nCorrectness: Correct\nStep 2: b\nExplanation: see above.\n"
     "Step 1 gave 24, so it is 12.\nCorrectness: Wrong",
     1, "see above. Step 1 gave 24, so it is 12."),
    ("Step 3: b. Explanation: it is 5. Correctness: Wrong", 2, "it is 5."),
])  # fmt: skip
def test_the_first_error_and_what_explains_it(text, first_error, explanation):
    parsed = parse_critique(text)
    assert parsed.first_error == first_error
    assert [s.explanation for s in parsed.steps if s.number == first_error] == [explanation]


@given(st.lists(st.one_of(LABELS, st.text()), max_size=20).map("".join))
def test_any_text_parses(text):
    parsed = parse_critique(text)
    assert parsed.says_correct in (True, False, None)
    assert (parsed.first_error is not None) == (False in step_verdicts(parsed))


@pytest.mark.skipif(not RELEASED.is_file(), reason=f"the released samples are not at {RELEASED}")
def test_all_released_critiques_are_parsed():
    rows = json.loads(RELEASED.read_text())
    texts = [row["instruction"].rpartition("step-by-step critic")[2] for row in rows]
    parsed = [parse_critique(text) for text in texts]
    assert [len(step_verdicts(p)) for p in parsed] == [
        len(re.findall("Correctness of the step", text)) for text in texts
    ]
    assert all(step_verdicts(p) for p in parsed)
    assert [p.says_correct for p in parsed].count(False) == 199
    assert [p.says_correct for p in parsed].count(True) == 1
    assert sum(len(p.steps) for p in parsed) == 932  # Four repeat the answer line as a step.
    assert sum(step_verdicts(p).count(False) for p in parsed) == 685
    firsts = [p.first_error for p in parsed]
    assert [firsts.count(step) for step in (0, 1, 2, 3, 4, 5, None)] == [89, 64, 28, 10, 5, 3, 1]
