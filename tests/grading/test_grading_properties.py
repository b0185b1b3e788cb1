"""Equality is reflexive, symmetric and blind to rewriting, on answers made at random."""

import hypothesis
import rewriting
from hypothesis import strategies as st

from jaxcritique.grading import Grader

# A late first example (a worker is starting) is no failure.
checked = hypothesis.settings(deadline=None, max_examples=150)

GRADER = Grader(workers=1, timeout=30)


def teardown_module():
    GRADER.close()


numbers = st.one_of(
    st.integers(-99999, 99999).map(str),
    st.decimals(-999, 999, places=2).map(str),
    st.builds("\\frac{{{}}}{{{}}}".format, st.integers(-99, 99), st.integers(1, 99)),
    st.builds("{}\\sqrt{{{}}}".format, st.integers(2, 9), st.integers(2, 30)),
    st.builds("{}\\pi".format, st.integers(2, 99)),
)


def grown(inner):
    return st.one_of(
        st.builds("({}) + {}".format, inner, inner),
        st.builds("({})({})".format, inner, inner),
        st.builds("({})^{{{}}}".format, inner, st.integers(2, 4)),
        st.builds("\\frac{{{}}}{{x^2+1}}".format, inner),
    )


expressions = st.recursive(st.one_of(numbers, st.sampled_from("xyz")), grown, max_leaves=6)
answers = st.one_of(
    expressions,
    st.builds("({}, {})".format, numbers, numbers),
    st.builds("{}, {}".format, numbers, numbers),
    st.builds("[{}, {})".format, st.integers(-9, 0), st.integers(1, 9)),
    st.builds("x \\le {}".format, numbers),
    st.builds("y = {}".format, expressions),
    st.builds("\\begin{{pmatrix}} {} \\\\ {} \\end{{pmatrix}}".format, numbers, numbers),
)


def verdict(gold, answer):
    return GRADER.grade(gold, answer, "answer").verdict


@checked
@hypothesis.given(answers)
def test_an_answer_equals_itself(answer):
    assert verdict(answer, answer) == "correct"
    assert verdict(answer, f" {answer} .") == "correct"


@checked
@hypothesis.given(answers, answers)
def test_equality_is_symmetric(first, second):
    assert verdict(first, second) == verdict(second, first)


@checked
@hypothesis.given(answers, st.data())
def test_rewriting_changes_nothing(answer, data):
    form = data.draw(st.sampled_from(list(rewriting.rewritings(answer))))
    assert verdict(answer, form) == "correct"


@checked
@hypothesis.given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_integers_are_equal_only_to_themselves(first, second):
    assert (verdict(f"{first:,}", str(second)) == "correct") == (first == second)


@checked
@hypothesis.given(st.text(max_size=200))
def test_any_text_gets_the_same_verdict_both_ways(text):
    assert verdict("5", text) == verdict(text, "5")


@checked
@hypothesis.given(st.text(alphabet="0123456789+-*/^(){}[]\\.,xefracsqt !|<>=", max_size=60))
def test_nearly_mathematical_text_gets_the_same_verdict_both_ways(text):
    assert verdict("x+1", text) == verdict(text, "x+1")
