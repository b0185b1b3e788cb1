"""Self-talk's three steps on made-up critiques and refinements; no model is needed."""

import random

import pytest

from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.critiques.supervision import actor_examples
from jaxcritique.grading import Grader
from jaxcritique.improvement.self_talk_data import (
    SelfTalk,
    SelfTalkDataConfig,
    ThinkingChain,
    build_self_talk,
    judge,
    revise,
    self_talk_examples,
)
from jaxcritique.prompts import thinking
from jaxcritique.prompts.critique import StepVerdict, render_critique
from jaxcritique.prompts.templates import COMPACT, FULL
from jaxcritique.prompts.thinking import Thought, think_aloud
from jaxcritique.records import Critique, Problem, Refinement, Solution
from jaxcritique.roles import COSTS, Context, criticise, no_critique, read_critique
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.tasks.word_problems import generate

PROBLEM = Problem("p", "19 and 27 books, half of them?", "23", "", "gsm8k")
FIRST, SLIP, MENDED = "That makes 46 books.", "That leaves 32 books.", "That leaves 23 books."
GOOD, BAD = Thought(FIRST, "19+27=46.", True), Thought(SLIP, "46/2=23, not 32.", False)
ENDS = "The answer is 23."


def path(*lines: str, problem: Problem = PROBLEM) -> Solution:
    return Solution(problem, "\n".join(lines), "wrong", None)


def critique(solution: Solution, *verdicts: tuple[str, bool], remark: str = "", correct=None):
    """Verdicts are of the first steps: explanation, and whether it is right."""
    steps = [StepVerdict("...", *verdict) for verdict in verdicts]
    says_correct = all(right for _, right in verdicts) if correct is None else correct
    return read_critique(solution, render_critique(steps, says_correct, remark))


def refined(solution: Solution, *lines: str) -> Refinement:
    return Refinement(no_critique(solution), "\n".join(lines), "wrong", None)


def spoken(chain: ThinkingChain) -> str:
    return think_aloud(chain.thoughts, chain.ending, random.Random(0))


# ---- one chain


def test_a_clean_path_gets_its_feedback_at_once():
    solution = path(FIRST, MENDED, ENDS)
    chain, clean = judge(
        ThinkingChain(solution),
        critique(solution, ("19+27=46.", True), ("46/2=23.", True)),
    )
    assert clean
    assert chain.thoughts == (GOOD, Thought(MENDED, "46/2=23.", True))
    assert chain.ending == ENDS
    lines = spoken(chain).split("\n")
    assert [lines[0], lines[2], lines[4]] == [FIRST, MENDED, ENDS]
    assert "19+27=46." in lines[1]
    assert "46/2=23." in lines[3]
    assert len(lines) == 5


def test_the_first_wrong_step_is_given_up_and_what_stood_stays():
    solution = path(FIRST, SLIP, "The answer is 32.")
    chain, clean = judge(
        ThinkingChain(solution), critique(solution, ("19+27=46.", True), (BAD.feedback, False))
    )
    assert not clean
    assert chain.thoughts == (GOOD, BAD)
    assert chain.sound == (GOOD,)
    # The critic is to go on from its own verdict on what stands.
    assert chain.verdicts == f"Step 1: {FIRST}\nExplanation: 19+27=46.\nCorrectness: Correct\n"
    chain = revise(chain, refined(solution, FIRST, MENDED, ENDS))
    assert chain.rounds == 1
    chain, clean = judge(chain, critique(chain.path, ("other words.", True), ("46/2=23.", True)))
    assert clean
    # Of the step that stood, the first feedback counts.
    assert chain.thoughts == (GOOD, BAD, Thought(MENDED, "46/2=23.", True))
    text = spoken(chain)
    assert [text.index(line) for line in (FIRST, SLIP, MENDED, ENDS)] == sorted(
        text.index(line) for line in (FIRST, SLIP, MENDED, ENDS)
    )
    assert text.count("Wait") == 1
    assert "The answer is 32." not in text


def test_an_answer_without_a_wrong_step_is_taken_back():
    solution = path(FIRST, "The answer is 46.")
    chain, clean = judge(
        ThinkingChain(solution),
        critique(solution, ("19+27=46.", True), remark="the next step is 46/2.", correct=False),
    )
    assert not clean
    assert chain.thoughts == (GOOD, Thought("The answer is 46.", "the next step is 46/2.", False))
    chain = revise(chain, refined(solution, FIRST, MENDED, ENDS))
    chain, clean = judge(chain, critique(chain.path, ("", True), ("46/2=23.", True)))
    assert clean
    lines = spoken(chain).split("\n")
    assert (lines[2], lines[4], lines[6]) == ("The answer is 46.", MENDED, ENDS)
    assert "the next step is 46/2." in lines[3]
    with Grader() as grader:
        assert grader.grade("23", spoken(chain)).verdict == "correct"


def test_an_answer_that_is_missing_is_found_fault_with():
    solution = path(FIRST)
    chain, _ = judge(
        ThinkingChain(solution), critique(solution, ("46.", True), remark="go on.", correct=False)
    )
    assert chain.thoughts[-1] == Thought("", "go on.", False)
    assert spoken(chain).count("\n") == 2


@pytest.mark.parametrize("text", [
    "",  # What the checker cannot vouch for.
    "Fine.",
    "Step 1: a\nCorrectness: Correct\nFinal answer: Correct",  # The second step is left out.
    "Step 1: a\nStep 2: b\nCorrectness: Correct\nFinal answer: Correct",  # The first has none.
    "Step 3: c\nCorrectness: Wrong\nFinal answer: Wrong",  # There is no third step.
])  # fmt: skip
def test_a_critique_that_cannot_be_used_ends_the_chain(text):
    solution = path(FIRST, SLIP, ENDS)
    assert judge(ThinkingChain(solution), read_critique(solution, text)) is None


def test_a_step_that_stands_is_not_judged_again():
    chain = ThinkingChain(path(FIRST, MENDED, ENDS), (GOOD, BAD), 1)
    assert judge(chain, critique(chain.path, ("no.", False))) is None


@pytest.mark.parametrize("lines", [
    (),
    (FIRST,),  # Nothing follows.
    (SLIP, MENDED, ENDS),  # It does not begin with what stands.
])  # fmt: skip
def test_a_refinement_that_does_not_go_on_ends_the_chain(lines):
    chain = ThinkingChain(path(FIRST, SLIP), (GOOD, BAD))
    assert revise(chain, refined(chain.path, *lines)) is None


def test_an_answer_may_be_all_that_follows():
    chain = ThinkingChain(path(FIRST, "The answer is 46."), (GOOD, BAD))
    revised = revise(chain, refined(chain.path, FIRST, ENDS))
    assert (revised.ending, revised.rounds) == (ENDS, 1)


def test_text_of_any_script_and_without_reasons():
    line = "Пять книг — {5} 本 \\frac{1}{2}."
    thoughts = [Thought(line, "", True), Thought(line, "не 6", False)]
    lines = think_aloud(thoughts, "答えは 5", random.Random(1)).split("\n")
    assert lines[0] == lines[2] == line
    assert ":" not in lines[1]
    assert ": не 6. " in lines[3]
    assert lines[4:] == ["答えは 5"]
    assert think_aloud([], "", random.Random(1)) == ""


def test_the_example_in_the_documentation_is_such_a_text():
    *lines, ending = [x[4:] for x in (thinking.__doc__ or "").split("\n") if x.startswith("    ")]
    assert ending == ENDS
    for step, said in zip(lines[::2], lines[1::2], strict=True):
        feedback = said.removeprefix("Let me check: ").split(". ")[0]
        thought = Thought(step, feedback, correct="Wait" not in said)
        written = [think_aloud([thought], "", random.Random(seed)) for seed in range(100)]
        assert f"{step}\n{said}" in written


# ---- the data


class Actor:
    """Says what the script has for a problem, attempt by attempt, after the prefix it is given."""

    key = "actor"

    def __init__(self, script: dict[str, list[str]]):
        self.prefixes: list[str] = []
        self._left = {question: list(texts) for question, texts in script.items()}

    def generate(self, requests, progress):
        for request in requests:
            self.prefixes.append(request.prefix)
            for sample in range(request.n):
                text = self._left[request.messages[0]["content"]].pop(0)
                yield Completion(request.id, sample, request.prefix + text, "stop", 9, 4)


def check(context, name, solutions, temperature, prefixes=()):
    """The arithmetic checker as critic."""
    annotator = ArithmeticAnnotator(one_plan=True)

    def make(stage):
        found = [annotator.annotate(s) or no_critique(s) for s in solutions]
        return found, dict.fromkeys(COSTS, 0)

    texts = [solution.text for solution in solutions]
    return context.store.dataset(name, Critique, texts, make=make)


@pytest.fixture
def context(tmp_path):
    with Grader() as grader:
        yield Context(Store(tmp_path), grader, COMPACT, seed=0, actor_tokens=99, critic_tokens=99)


def story() -> tuple[Problem, list[str]]:
    """A story of three operations, and its lines."""
    [problem] = generate("train", 1, 0, (0, 0, 1, 0, 0))
    return problem, problem.rationale.split("\n")


def spoilt(line: str) -> str:
    """The step with another result."""
    before, _, after = line.partition("=")
    value = after.partition(">>")[0]
    return f"{before}={after.replace(value, str(int(value) + 1))}"


CONFIG = SelfTalkDataConfig(samples=4, rounds=2, temperature=0.7, self_talk_examples=0)


def test_data_with_the_checker_as_critic(context):
    problem, lines = story()
    script = [
        "\n".join(lines),  # Clean at once.
        "\n".join([lines[0], spoilt(lines[1]), lines[2], "The answer is 1."]),
        "The answer is 5.",  # No step.
        "\n".join(lines),  # The same once more.
        # The refinement of the second goes wrong a step later, and is refined again.
        "\n".join([lines[1], spoilt(lines[2]), "The answer is 1."]),
        "\n".join(lines[2:]),
    ]
    actor = Actor({problem.question: script})
    data = build_self_talk(context, actor, check, None, [problem], CONFIG)
    assert [talk.corrections for talk in data.examples] == [0, 2]
    assert actor.prefixes == ["", f"{lines[0]}\n", f"{lines[0]}\n{lines[1]}\n"]
    said = data.examples[1].text.split("\n")
    assert [line for line in said if line in lines or "<<" in line] == [
        lines[0], spoilt(lines[1]), lines[1], spoilt(lines[2]), *lines[2:],
    ]  # fmt: skip
    assert data.examples[1].text.count("Wait") == 2
    assert data.counts == {
        "paths": 4,
        "equal paths": 1,
        "paths without steps": 1,
        "unusable critiques": 0,
        "nothing refined": 0,
        "never clean": 0,
        "clean at once": 1,
        "clean after refining": 1,
        "wrong final answers": 0,
        "equal texts": 0,
        "kept": 2,
        "kept with corrections": 1,
    }
    assert data.costs["self-talk-refine-2"]["samples"] == 1
    # All is in the store: a second start samples nothing.
    assert build_self_talk(context, Actor({}), check, None, [problem], CONFIG) == data


def test_rounds_have_an_end(context):
    problem, lines = story()
    wrong = "\n".join([spoilt(lines[0]), "The answer is 1."])
    again = "\n".join([spoilt(spoilt(lines[0])), "The answer is 1."])
    config = SelfTalkDataConfig(samples=1, rounds=2, temperature=0.7, self_talk_examples=0)
    data = build_self_talk(
        context, Actor({problem.question: [wrong, again, wrong]}), check, None, [problem], config
    )
    assert data.examples == []
    assert {name: count for name, count in data.counts.items() if count} == {
        "paths": 1, "never clean": 1,
    }  # fmt: skip


class Model:
    """A critic or a smoother of few words, whose prompts are kept."""

    def __init__(self, key: str, say):
        self.key, self._say = key, say
        self.requests = []

    def generate(self, requests, progress):
        for request in requests:
            self.requests.append(request)
            text = request.prefix + self._say(request)
            yield Completion(request.id, 0, text, "stop", 9, 4)


def test_data_with_a_model_as_critic_and_another_that_smooths(context):
    """The critic goes on from its own verdicts; what it lets pass must still end in the answer."""
    problems = [Problem(f"p{i}", f"{i}: 2+3?", "5", "", "gsm8k") for i in range(4)]
    right, wrong = "2+3 makes 5.\nThe answer is 5.", "2+3 makes 6.\nThe answer is 6."
    actor = Actor({
        problems[0].question: ["I add 2 and 3.\n" + right],
        problems[1].question: ["I add 2 and 3.\n" + wrong, right],
        problems[2].question: ["I add 2 and 3.\n2+3 makes 7.\nThe answer is 7."],
        problems[3].question: ["I add 2 and 3.\n" + right],
    })  # fmt: skip

    def criticised(request) -> str:
        seen = request.messages[0]["content"]
        verdict = "Wrong" if "makes 6" in seen else "Correct"
        first = "" if request.prefix else "Step 1: ...\nCorrectness: Correct\n"
        return f"{first}Step 2: ...\nCorrectness: {verdict}\nFinal answer: {verdict}"

    def smoothed(request) -> str:
        asked = request.messages[0]["content"]
        if asked.count("3: 2+3?"):
            return "The answer is 5."  # The reasoning is lost.
        return "Hm, " + asked.partition("Train of thought:\n")[2].partition("\n\n")[0]

    critic, smoother = Model("critic", criticised), Model("smoother", smoothed)

    def critic_stage(context, name, solutions, temperature, prefixes=()):
        return criticise(context, name, critic, solutions, 1, temperature, prefixes)

    config = SelfTalkDataConfig(samples=1, rounds=1, temperature=0.7, self_talk_examples=0)
    data = build_self_talk(context, actor, critic_stage, smoother, problems, config)
    assert [(talk.problem.id, talk.corrections) for talk in data.examples] == [("p0", 0), ("p1", 1)]
    assert all(talk.text.startswith("Hm, I add 2 and 3.\n") for talk in data.examples)
    assert [request.prefix for request in critic.requests[:4]] == [""] * 4
    assert critic.requests[4].prefix == "Step 1: I add 2 and 3.\nCorrectness: Correct\n"
    assert data.counts["smoothed away"] == 1
    assert data.counts["wrong final answers"] == 1
    assert data.counts["kept"] == 2


def test_no_more_examples_than_wanted(context):
    problem, lines = story()
    config = SelfTalkDataConfig(samples=3, rounds=1, temperature=0.7, self_talk_examples=1)
    # Three ways to say the same steps.
    script = ["\n".join([f"{mark}{lines[0]}", *lines[1:]]) for mark in ("", "So ", "Now ")]
    data = build_self_talk(
        context, Actor({problem.question: script}), check, None, [problem], config
    )
    assert (len(data.examples), data.counts["more than wanted"]) == (1, 2)


@pytest.mark.parametrize("prompts", [FULL, COMPACT], ids=["full", "compact"])
def test_self_talk_is_asked_for_in_other_words_than_a_solution(prompts):
    talk = SelfTalk(PROBLEM, "I say 23.", "correct", "23")
    [example] = self_talk_examples(prompts, [talk])
    [plain] = actor_examples(prompts, [(PROBLEM, "23")], [], 1.0)
    assert example.reply == "I say 23."
    assert example.messages != plain.messages
    assert PROBLEM.question in example.messages[0]["content"]
