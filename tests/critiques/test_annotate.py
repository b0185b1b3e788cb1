import collections
import dataclasses
import pathlib
import random

import pytest

from jaxcritique.critiques.annotate import ArithmeticAnnotator, ModelAnnotator, require_checker
from jaxcritique.critiques.arithmetic import calculations
from jaxcritique.critiques.program_mistakes import PROGRAM_TYPES, carry_on, insert_error
from jaxcritique.errors import InvalidInput
from jaxcritique.grading import Grader
from jaxcritique.prompts.critique import parse_critique, split_steps
from jaxcritique.prompts.templates import COMPACT, FULL
from jaxcritique.records import Critique, Problem, Solution
from jaxcritique.roles import Context
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.tasks import load_problems

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
STORY = ArithmeticAnnotator(one_plan=True)
REAL = ArithmeticAnnotator(one_plan=False)
PROBLEM = Problem(
    id="id",
    question="Tom has 10 eggs, buys 5, trades them for twice as many and eats 3.",
    answer="27",
    rationale="Now <<10+5=15>>15.\nThat makes <<15*2=30>>30.\n"
    "That leaves <<30-3=27>>27.\nThe answer is 27.",
    task="word_problems",
)


def solution(*lines: str, right: bool, problem: Problem = PROBLEM) -> Solution:
    return Solution(problem, "\n".join(lines), "correct" if right else "wrong", None)


def judged(
    annotator: ArithmeticAnnotator, *lines: str, right: bool, problem: Problem = PROBLEM
) -> Critique:
    critique = annotator.annotate(solution(*lines, right=right, problem=problem))
    assert critique is not None
    return critique


def step_verdicts(critique: Critique) -> tuple[bool, ...]:
    steps = parse_critique(critique.text).steps
    return tuple(step.correct for step in steps if step.correct is not None)


def test_references_are_called_correct(problems):
    for problem in problems:
        critique = STORY.annotate(Solution(problem, problem.rationale, "correct", problem.answer))
        assert critique is not None
        assert (critique.says_correct, critique.first_error) == (True, None)
        assert step_verdicts(critique) == (True,) * problem.level


@pytest.mark.parametrize("error_type", PROGRAM_TYPES)
def test_a_flaw_is_found_at_its_step(error_type, problems):
    rng = random.Random(error_type)
    found = 0
    for problem in problems:
        reference = split_steps(problem.rationale)
        for at in range(len(reference)):
            spoilt = insert_error(problem, reference, at, error_type, rng)
            if spoilt is None:
                continue
            missing = error_type == "missing_step"
            going_on = reference[:at] + reference[at + 1 :] if missing else reference
            steps = carry_on(spoilt[0], going_on)
            critique = STORY.annotate(solution(*steps, right=False, problem=problem))
            assert critique is not None
            assert (critique.says_correct, critique.first_error) == (False, at)
            assert step_verdicts(critique) == (True,) * at + (False,)
            found += 1
    assert found > len(problems)


def test_explanations_work_long_sums_out_in_parts():
    problem = Problem("id", "?", "51", "<<19+17=36>>36 and <<36+15=51>>51", "word_problems")
    critique = judged(STORY, "<<19+17=36>>36 and <<36+15=41>>41", right=False, problem=problem)
    assert critique.text.split("\n")[1] == "Explanation: 36+15: 36+10=46, 46+5=51, not 41."
    critique = judged(STORY, problem.rationale, right=True, problem=problem)
    assert critique.text.split("\n")[1] == (
        "Explanation: 19+17: 19+10=29, 29+7=36; 36+15: 36+10=46, 46+5=51."
    )


def test_text_of_a_critique():
    critique = judged(
        STORY, "Now <<10+5=15>>15.", "That makes <<15*2=35>>35.", "Never read.", right=False
    )
    assert critique.text == (
        "Step 1: Now 15.\nExplanation: 10+5=15.\nCorrectness: Correct\n"
        "Step 2: That makes 35.\nExplanation: 15*2: 10*2=20, 5*2=10, 20+10=30, not 35.\n"
        "Correctness: Wrong\n"
        "Final answer: Wrong"
    )


@pytest.mark.parametrize(("lines", "remark"), [
    (["Now <<10+5=15>>15.", "The answer is 15."], "the next step is 15*2."),
    ([*PROBLEM.rationale.split("\n")[:3], "The answer is 72."],
     "the answer is not what the steps come to."),
])  # fmt: skip
def test_sound_steps_to_a_wrong_answer_are_remarked_on(lines, remark):
    critique = judged(STORY, *lines, right=False)
    assert (critique.says_correct, critique.first_error) == (False, None)
    assert critique.text.endswith(f"Correct\nExplanation: {remark}\nFinal answer: Wrong")
    assert False not in step_verdicts(critique)


@pytest.mark.parametrize("annotator", [STORY, REAL], ids=["story", "real"])
@pytest.mark.parametrize(("lines", "right"), [
    (["Now <<10+5=16>>16.", "That makes <<15*2=30>>30.", "<<30-3=27>>27"], True),  # By luck.
    (["The answer is 27."], True),
    (["It is clear.", "The answer is 26."], False),
    ([""], False),
])  # fmt: skip
def test_what_the_program_cannot_vouch_for_is_discarded(lines, right, annotator):
    assert annotator.annotate(solution(*lines, right=right)) is None


def test_a_reference_without_calculations_is_no_help():
    blank = Problem("id", "?", "27", "The answer is 27.", "math")
    assert REAL.annotate(solution("<<1+1=2>>2", right=False, problem=blank)) is None


def test_a_right_answer_must_take_every_step_of_the_only_plan():
    lines = "Now <<10+5=15>>15.", "That leaves <<30-3=27>>27."
    assert STORY.annotate(solution(*lines, right=True)) is None
    assert judged(REAL, *lines, right=True).says_correct


def test_another_way_is_right_only_where_there_are_several():
    lines = "<<2*5=10>>10 and <<2*10=20>>20.", "Both: <<20+10=30>>30.", "Left: <<30-3=27>>27."
    assert judged(REAL, *lines, right=True).says_correct
    assert STORY.annotate(solution(*lines, right=True)) is None
    assert judged(STORY, *lines, right=False).first_error == 0


def test_steps_after_the_first_error_are_not_judged():
    lines = "Now <<10+5=16>>16.", "That makes <<15*2=30>>30.", "Left: <<30-3=26>>26."
    critique = judged(STORY, *lines, right=False)
    assert step_verdicts(critique) == (False,)
    assert (critique.says_correct, critique.first_error) == (False, 0)


def test_another_way_to_a_wrong_answer_is_unchecked_where_there_are_several():
    lines = "<<2*5=10>>10 and <<2*10=20>>20.", "Both: <<20+10=30>>30.", "Left: <<30-3=26>>26."
    assert judged(STORY, *lines, right=False).first_error == 0
    assert REAL.annotate(solution(*lines, right=False)) is None


def test_a_slip_is_wrong_on_any_way():
    critique = judged(REAL, "Now <<10+5=15>>15.", "Twice: <<15+15=31>>31.", right=False)
    assert critique.first_error == 1
    assert "Explanation: 15+15: 15+10=25, 25+5=30, not 31." in critique.text


def test_a_mistake_put_in_is_known_to_be_one():
    made = solution("Now <<10+5=15>>15.", "So <<15-2=13>>13.", right=False)
    assert REAL.annotate(made) is None
    spoilt = dataclasses.replace(made, source="RG3", error_step=1)
    critique = REAL.annotate(spoilt)
    assert critique is not None
    assert critique.first_error == 1
    assert REAL.annotate(dataclasses.replace(spoilt, error_step=0)) is None
    assert REAL.annotate(dataclasses.replace(spoilt, source="RG2")) is None


def test_a_step_too_many_is_wrong():
    critique = judged(STORY, *PROBLEM.rationale.split("\n")[:3], "<<27+1=28>>28", right=False)
    assert critique.first_error == 3
    assert "Explanation: no step is left to do." in critique.text


@pytest.mark.parametrize(("mark", "readable"), [
    ("<<1/0=0>>", False), ("<<10+five=15>>", False), ("<<9*9*9*9*9*9*9*9/7=1>>", True),
])  # fmt: skip
def test_odd_calculations_are_only_wrong_or_unchecked(mark, readable):
    assert judged(STORY, f"So {mark}.", right=False).first_error == 0
    critique = REAL.annotate(solution(f"So {mark}.", right=False))
    assert (critique is not None and critique.first_error == 0) == readable


def test_a_program_needs_problems_of_a_task():
    with pytest.raises(InvalidInput, match="`annotator`: the checker works out calculations"):
        require_checker("annotator", [Problem.asked("What is 1+1?", "2")])
    assert require_checker("annotator", [PROBLEM, Problem.asked("What is 1+1?", "2")]) == STORY


@pytest.mark.parametrize("prompts", [None, FULL])
def test_a_model_is_asked_with_its_own_prompts(prompts):
    asked = []

    class Critic:
        key = "critic"

        def generate(self, requests, progress):
            asked.extend(request.messages for request in requests)
            return [Completion(r.id, 0, "Final answer: Wrong", "stop", 9, 9) for r in requests]

    annotator = ModelAnnotator(Critic(), "critic", "critic", 99, 0.0, 1, prompts)
    flawed = solution("So <<10-5=5>>5.", right=False)
    context = Context(Store(None), Grader(), COMPACT, 0, actor_tokens=99, critic_tokens=99)
    annotator.annotate_all(context, [flawed])
    assert asked == [(prompts or COMPACT).to_critique(flawed)]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data is not in {SHARED}")
def test_gsm8k_references():
    """All but those whose lines hold no calculation, or a slip: 20/3=6 people, 1 hour for 60."""
    counts = collections.Counter()
    for problem in load_problems("gsm8k", str(SHARED), "train", 0, 0):
        critique = REAL.annotate(Solution(problem, problem.rationale, "correct", problem.answer))
        if critique is not None:
            assert critique.says_correct
            counts["accepted"] += 1
        else:
            counts["slip" if calculations(problem.rationale) else "no calculation"] += 1
    assert counts == {"accepted": 7262, "no calculation": 160, "slip": 51}
