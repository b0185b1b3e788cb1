import pytest

from jaxcritique.grading import Grader
from jaxcritique.prompts.templates import COMPACT, FULL
from jaxcritique.records import Problem
from jaxcritique.roles import Context, RolesConfig, Start, criticise, refine, respond
from jaxcritique.rollout.sampler import Completion
from jaxcritique.store import Store
from jaxcritique.tasks import TINY_BASE

PROBLEMS = [Problem(str(i), f"{i}+3?", str(i + 3), "", "gsm8k") for i in range(2)]


class Script:
    """Answers every request with the same texts, sample by sample, and keeps the requests."""

    key = "script"

    def __init__(self, *texts: str, finish_reason="stop"):
        self.requests = []
        self._texts = texts
        self._finish_reason = finish_reason

    def generate(self, requests, progress):
        self.requests += requests
        return [
            Completion(r.id, i, r.prefix + self._texts[i], self._finish_reason, 10, 5)
            for r in requests
            for i in range(r.n)
        ]


@pytest.fixture
def context(tmp_path):
    with Grader() as grader:
        yield Context(Store(tmp_path), grader, COMPACT, seed=4, actor_tokens=80, critic_tokens=90)


def test_solutions_are_graded_and_follow_the_starts(context):
    starts = [
        Start(PROBLEMS[1], prefix="Hm. ", source="RG3", error_step=2, error="slip"),
        Start(PROBLEMS[0]),
    ]
    actor = Script("The answer is 4.", "What?")
    solutions = respond(context, "solve", actor, starts, n=2, temperature=0.7)
    assert [(s.problem, s.text, s.verdict, s.answer) for s in solutions] == [
        (PROBLEMS[1], "Hm. The answer is 4.", "correct", "4"),
        (PROBLEMS[1], "Hm. What?", "unparsable", None),
        (PROBLEMS[0], "The answer is 4.", "wrong", "4"),
        (PROBLEMS[0], "What?", "unparsable", None),
    ]
    assert [(s.source, s.error_step, s.error) for s in solutions][1:3] == [
        ("RG3", 2, "slip"),
        ("actor", None, None),
    ]
    assert {(r.n, r.max_tokens, r.temperature) for r in actor.requests} == {(2, 80, 0.7)}


def test_critiques_are_parsed_and_refinements_graded(context):
    solutions = list(
        respond(context, "solve", Script("The answer is 4."), [Start(PROBLEMS[0])], 1, 0)
    )
    critic = Script("Correctness: Correct\nCorrectness: Wrong\nFinal answer: Wrong", "Hm.")
    critiques = list(criticise(context, "criticise", critic, solutions, 2, 0.7))
    assert [(c.solution, c.says_correct, c.first_error) for c in critiques] == [
        (solutions[0], False, 1),
        (solutions[0], None, None),
    ]
    assert [r.max_tokens for r in critic.requests] == [90]
    actor = Script("The answer is 3.")
    refinements = list(refine(context, "refine", actor, critiques, 1, 0.7))
    assert [(r.critique, r.verdict) for r in refinements] == [
        (critique, "correct") for critique in critiques
    ]
    assert [r.max_tokens for r in actor.requests] == [80, 80]


def test_failed_samples_are_reported_with_reason_and_remedy(context, caplog):
    class Refusing(Script):
        def generate(self, requests, progress):
            return [r.failure(0, "HTTP 413: too long") for r in requests]

    solutions = respond(context, "solve", Refusing(), [Start(p) for p in PROBLEMS], 1, 0.7)
    assert solutions.facts["failed"] == 2
    assert [s.verdict for s in solutions] == ["unparsable"] * 2
    [message] = [record.getMessage() for record in caplog.records]
    [folder] = context.store.run_dir.glob("stages/solve-*")
    assert message == (
        "solve: 2 of 2 samples failed (HTTP 413: too long). To sample them again, "
        f"delete {folder} (beside it annotations-* and candidates-*, if there are any, and the "
        "run's results.json)."
    )


def test_equal_prompts_are_drawn_apart(context):
    actor = Script("The answer is 4.")
    respond(context, "solve", actor, [Start(PROBLEMS[0])] * 3 + [Start(PROBLEMS[1])], 1, 0.7)
    assert len({request.id for request in actor.requests}) == 4


def test_a_run_has_the_prompts_of_its_model_unless_it_names_others(tmp_path):
    assert RolesConfig().prompts_for(TINY_BASE) == COMPACT
    assert RolesConfig(prompts="full").prompts_for(TINY_BASE) == FULL
    assert RolesConfig().prompts_for(tmp_path) == FULL


@pytest.mark.parametrize(("finish_reason", "facts"), [
    ("stop", {"cut_off": 0, "failed": 0}),
    ("length", {"cut_off": 4, "failed": 0}),
    ("error", {"cut_off": 0, "failed": 4}),
])  # fmt: skip
def test_facts_of_a_stage(finish_reason, facts, context):
    actor = Script("The answer is 4.", "?", finish_reason=finish_reason)
    solutions = respond(context, "solve", actor, [Start(problem) for problem in PROBLEMS], 2, 0.7)
    assert solutions.facts.items() >= {"generated_tokens": 20, "rows": 4, **facts}.items()
