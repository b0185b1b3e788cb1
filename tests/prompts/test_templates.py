import dataclasses

import pytest

from jaxcritique.prompts.templates import COMPACT, FULL
from jaxcritique.records import Critique, Problem, Solution
from jaxcritique.roles import no_critique

HOSTILE = "{question} {0} {} {{x}} {answer_form!r:>9} %s $x {solution.problem.answer}"
# Each part is a text of its own, so that any of them can be looked for in a prompt.
PROBLEM = Problem("id", f"Q {HOSTILE}", "GOLD", "RATIONALE", "gsm8k")
SOLUTION = Solution(
    PROBLEM, f"Y {HOSTILE}", "wrong", "EXTRACTED", "RG3", error_step=77, error="MISTAKE"
)
CRITIQUE = Critique(SOLUTION, f"C {HOSTILE}", says_correct=False, first_error=78)

pytestmark = pytest.mark.parametrize("prompts", [FULL, COMPACT], ids=["full", "compact"])


def test_the_actor_sees_the_question_alone(prompts):
    [message] = prompts.to_solve(PROBLEM)
    assert message["role"] == "user"
    assert message["content"].count(PROBLEM.question) == 1


def test_the_critic_sees_question_and_solution(prompts):
    [message] = prompts.to_critique(SOLUTION)
    assert message["role"] == "user"
    assert message["content"].count(PROBLEM.question) == 1
    assert message["content"].count(SOLUTION.text) == 1


def test_the_refining_actor_sees_its_own_turn_and_the_critique(prompts):
    first, own, last = prompts.to_refine(CRITIQUE)
    assert [first] == prompts.to_solve(PROBLEM)
    assert own == {"role": "assistant", "content": SOLUTION.text}
    assert last["role"] == "user"
    assert last["content"].count(CRITIQUE.text) == 1


@pytest.mark.parametrize("silence", ["", " \n"])
def test_without_a_critique_the_actor_corrects_itself(prompts, silence):
    messages = prompts.to_refine(dataclasses.replace(no_critique(SOLUTION), text=silence))
    first, own, last = messages
    assert [first, own] == prompts.to_refine(CRITIQUE)[:2]
    assert last["role"] == "user"
    assert "solution" in last["content"]
    # Neither is a critique spoken of, nor is there a gap where one was left out.
    assert "critique" not in last["content"]
    assert "reader" not in last["content"]
    assert last["content"] == last["content"].strip()


def test_nobody_is_shown_what_only_the_grader_knows(prompts):
    for messages in (
        prompts.to_solve(PROBLEM),
        prompts.to_critique(SOLUTION),
        prompts.to_refine(CRITIQUE),
        prompts.to_refine(no_critique(SOLUTION)),
    ):
        shown = "\n".join(message["content"] for message in messages)
        for secret in ("GOLD", "RATIONALE", "EXTRACTED", "RG3", "MISTAKE", "77", "78"):
            assert secret not in shown


def test_the_verdict_changes_no_prompt(prompts):
    right = Solution(PROBLEM, SOLUTION.text, "correct", "GOLD")
    assert prompts.to_critique(right) == prompts.to_critique(SOLUTION)


@pytest.mark.parametrize(("task", "form"), [
    ("word_problems", "'The answer is N.'"),
    ("gsm8k", "'The answer is N.'"),
    ("math", r"'The answer is $\boxed{N}$.'"),
])  # fmt: skip
def test_the_final_form_is_asked_for_in_full_only(task, form, prompts):
    problem = Problem("id", "Why?", "1", "", task)
    solution = Solution(problem, "So.", "wrong", None)
    for messages in (
        prompts.to_solve(problem),
        prompts.to_refine(Critique(solution, "No.", False, None)),
        prompts.to_refine(no_critique(solution)),
    ):
        assert (form in messages[-1]["content"]) == (prompts is FULL)
