"""What Algorithm 1 trains on; the whole loop runs in tests/experiments."""

import pytest

from jaxcritique.critiques.supervision import (
    actor_examples,
    critic_examples,
    self_correction_data,
)
from jaxcritique.improvement.algorithm import _distinct
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.prompts.templates import COMPACT, FULL
from jaxcritique.records import Critique, Problem, Refinement, Solution
from jaxcritique.tasks import TINY_BASE
from jaxcritique.training.data import Example, tokenize

PROBLEM = Problem("1", "2+3?", "5", "So 5.\nThe answer is 5.", "gsm8k")
SOLUTION = Solution(PROBLEM, "The answer is 6.", "wrong", "6")
CRITIQUE = Critique(SOLUTION, "Final answer: Wrong", False, None)
REFINEMENT = Refinement(CRITIQUE, "The answer is 5.", "correct", "5")


@pytest.mark.parametrize("prompts", [FULL, COMPACT], ids=["full", "compact"])
def test_the_actor_learns_solutions_and_refinements_weighed_by_beta(prompts):
    reasoning = [(PROBLEM, PROBLEM.rationale), (PROBLEM, "The answer is 5.")]
    assert actor_examples(prompts, reasoning, [REFINEMENT], beta=0.25) == [
        Example(prompts.to_solve(PROBLEM), PROBLEM.rationale, 1.0),
        Example(prompts.to_solve(PROBLEM), "The answer is 5.", 1.0),
        Example(prompts.to_refine(CRITIQUE), REFINEMENT.text, 0.25),
    ]


@pytest.mark.parametrize("prompts", [FULL, COMPACT], ids=["full", "compact"])
def test_self_correction_is_learnt_from_the_same_data_without_the_critique(prompts):
    [example] = actor_examples(prompts, [], self_correction_data([REFINEMENT]), beta=0.25)
    [with_critique] = actor_examples(prompts, [], [REFINEMENT], beta=0.25)
    assert example.messages[:-1] == with_critique.messages[:-1]
    assert (example.reply, example.weight) == (REFINEMENT.text, 0.25)
    tokenizer = Tokenizer(TINY_BASE)
    tokens, masked, weight = tokenize(tokenizer, example)
    shown, learnt = tokenizer.decode(tokens[:masked]), tokenizer.decode(tokens[masked:])
    assert PROBLEM.question in shown
    assert SOLUTION.text in shown
    assert CRITIQUE.text not in shown
    assert REFINEMENT.text not in shown
    assert learnt.strip() == REFINEMENT.text
    assert weight == 0.25


@pytest.mark.parametrize("prompts", [FULL, COMPACT], ids=["full", "compact"])
def test_the_critic_learns_critiques(prompts):
    assert critic_examples(prompts, [CRITIQUE]) == [
        Example(prompts.to_critique(SOLUTION), CRITIQUE.text)
    ]


def test_a_text_is_learnt_once_a_problem():
    other = Problem("2", "1+4?", "5", "", "gsm8k")
    pairs = [(PROBLEM, "b"), (PROBLEM, "a"), (PROBLEM, " b\n"), (other, "b"), (PROBLEM, "a")]
    assert _distinct(pairs) == [(PROBLEM, "b"), (PROBLEM, "a"), (other, "b")]
