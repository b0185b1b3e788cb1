import pytest

from jaxcritique.prompts.critique import split_steps
from jaxcritique.prompts.mistakes import (
    ERROR_TYPES,
    EXAMPLES,
    Mistake,
    mistake_messages,
    read_mistake,
)
from jaxcritique.records import Problem, Solution

PROBLEM = Problem("id", "How many?", "12", "", "gsm8k")
PATH = Solution(PROBLEM, "Half is 24.\nOf these 12 are red.\nThe answer is 12.", "correct", "12")


def test_there_are_nine_kinds_and_an_example_of_each():
    assert len(ERROR_TYPES) == 9
    assert [example.error_type for example in EXAMPLES] == list(ERROR_TYPES)
    for example in EXAMPLES:
        steps = split_steps(example.reference)
        assert 1 <= example.step <= len(steps)
        assert example.flawed_step not in steps


@pytest.mark.parametrize("kind", ERROR_TYPES)
def test_the_prompt_has_the_kinds_and_the_example_that_is_wanted(kind):
    [message] = mistake_messages(PATH, 1, kind)
    prompt = message["content"]
    assert all(name in prompt for name in ERROR_TYPES)
    [wanted] = [example for example in EXAMPLES if example.error_type == kind]
    assert wanted.question in prompt
    assert wanted.flawed_step in prompt
    assert prompt.endswith(f"Put the mistake into: step 2\nKind of mistake: {kind}")
    assert "Step 2: Of these 12 are red." in prompt


@pytest.mark.parametrize(("text", "mistake"), [
    ("Flawed step: Of these 14 are red.\nMistake: 24/2 is 12.",
     Mistake("Of these 14 are red.", "24/2 is 12.")),
    ("Sure!\n**Flawed step:** Step 2: Of these 14 are red.\n\n**Mistake:** 24/2 is 12.\nBye",
     Mistake("Of these 14 are red.", "24/2 is 12.")),
    ("- Flawed step: \"Of these 14 are red.\"", Mistake("Of these 14 are red.", "")),
    ("", None), ("I cannot do that.", None), ("Mistake: 24/2", None), ("Flawed step:", None),
    ("Flawed step: Of  these 12 are red.\nMistake: none", None),  # As it was.
])  # fmt: skip
def test_reading_what_models_write(text, mistake):
    assert read_mistake(PATH, 1, text) == mistake
