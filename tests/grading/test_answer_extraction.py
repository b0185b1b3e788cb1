"""Finding the answer in a solution."""

import pytest

from jaxcritique.grading import Extraction, extract_answer

ANNOUNCED = [
    (r"So $x = \boxed{\frac{1}{\sqrt{2}}}$.", r"\frac{1}{\sqrt{2}}"),
    (r"\boxed{1} is too small. Hence \boxed{\text{Evelyn}} wins.", r"\text{Evelyn}"),
    (r"\boxed 5", "5"),
    (r"\boxed{7", "7"),
    (r"\boxed{\{1, 2\}} for {both}", r"\{1, 2\}"),
    (r"\boxed{f = \left\{ 2x \right.} for {all} x", r"f = \left\{ 2x \right."),
    (r"$\boxed{2}, \boxed{3}$", "2, 3"),
    (r"\boxed{1} papers and \boxed{2} bins", "1, 2"),
    (r"\boxed{1} no no no no no \boxed{2}", "2"),
    ("6 * 3 = <<6*3=18>>18\n#### 18", "18"),
    ("steps\nA: 90,000", "90,000"),
    ("The answer is 90 degrees.", "90 degrees"),
    (r"Thus the answer is $\frac12$. I hope it is correct.", r"$\frac12$"),
    ("Final answer: -3.5", "-3.5"),
    ("**Final Answer**\n\n42", "42"),
    (r"It is \boxed{3}. Final Answer: The final answer is $4$.", "$4$"),
    ("The final answer is:\n\\[\n 5 \n\\]", "5"),
    ("<think>\\boxed{1}</think>The answer is 2.", "2"),
    ("The answer is 3<|im_end|>\n<|im_start|>user\nThe answer is 4", "3"),
    ("So the answer is Tuesday.", "Tuesday"),
    ("The correct option is C.", "C"),
    (r"\boxed{5}, but wait, \boxed{6}", "6"),
    (r"The answer is \frac12.", r"\frac12"),
    (r"Final answer: \frac{1}{2}", r"\frac{1}{2}"),
    (r"The answer is \{1, 2\}.", r"\{1, 2\}"),
    (r"The answer is $\text{no solution}$.", r"$\text{no solution}$"),
    ("The answer is 1 hour and 30 minutes.", "1 hour and 30 minutes"),
    ("The answer is 90 min.", "90 min"),
    ("The answer is 18, not 20.", "18"),
    ("The answer is 12, because 3 groups of 4 make it.", "12"),
    ("The answer is 5 (five).", "5"),
    (r"The answer is \(5\), not \(6\).", r"\(5\)"),
    (r"The answer is $\text{does not exist}$.", r"$\text{does not exist}$"),
    ("The answer is C) 12.", "C) 12"),
    ("The answer is not 18. The answer is 20.", "20"),
    ("The answer is Alice and Bob.", "Alice and Bob"),
    ("#### Step 2: add\n3 + 4 = 7\nThe answer is 7.", "7"),
    ("word " * 100_000 + r"\boxed{7}", "7"),
]

GUESSED = [
    ("She pays 5*3 = $15 in total", "$15"),
    ("3+2", "3+2"),
    (r"$\sqrt{4} = 2$", r"$\sqrt{4} = 2$"),
    ("Soucis : 2,74 $ a..", "2,74"),
    ("First try [30], second try 45.", "45"),
    (r"the area is $36\pi$ square feet", r"36\pi"),
    ("the ordered pair is (7, 6).", "(7, 6)"),
    ("10 - 3 = 7", "10 - 3 = 7"),
    ("it went from 10 to -3", "-3"),
    ("The answer is not 18, it is 20.", "20"),
    (r"Therefore x = \frac{1}{2}.", r"x = \frac{1}{2}"),
    ("The train arrives at 3:30 PM.", "3:30 PM"),
    ("#### Answer\n5", "5"),
    ("So x = 5.\nThen \\frac{1}{", "5"),
]

# Whoever thinks aloud states answers, finds them wrong, and states others: the last one counts.
RESTATED = [
    ("The answer is 46.\nLet me check: 46/2=23. Wait, no. I do it again.\nThe answer is 23.", "23"),
    ("It is \\boxed{46}.\nWait, that is wrong.\nHalf of it is 23.\nThe answer is 23.", "23"),
    ("#### 46\nChecking that: 46/2=23. Wait, no. I do it again.\nSo, the answer is 23.", "23"),
    ("The final answer is 46.\nWait, no.\n**The correct answer is** 23 books.", "23 books"),
    ("#### 46\nWait, the answer is not what the steps come to. Once more.\n#### 23", "23"),
    (r"The answer is $\boxed{46}$." "\nWait, no or yes?\n" r"The answer is $\boxed{23}$.", "23"),
    ("The answer is 23.\nLet me check: 46/2=23. So far so good.", "23"),
    # What is said of a boxed answer is no other answer.
    ("It is \\boxed{46}.\nThe answer is correct, as 2 checks show.", "46"),
    ("It is \\boxed{46}.\nThe answer is in 2 parts.", "46"),
    ("It is \\boxed{46}.\nIf the answer is 23, then half is missing.", "46"),
    ("#### 46\nThe answer is not 23.", "46"),
]

NONE = [
    "",
    "No idea",
    "<think>\\boxed{42}</think> Some other text.",
    "The answer is !!!invalid!!!",
    "AZYUK2A",
    "The answer is not 18.",
    "The answer isn't 18.",
    "The answer cannot be 18.",
    r"\frac{1}{",
    r"The answer is \frac{1}{",
]


@pytest.mark.parametrize(("text", "answer"), RESTATED)
def test_the_last_answer_stated_counts(text, answer):
    extracted = extract_answer(text)
    assert extracted is not None
    assert extracted.text == answer
    assert not extracted.fallback


@pytest.mark.parametrize(("text", "answer"), ANNOUNCED)
def test_announced_answers(text, answer):
    assert extract_answer(text) == Extraction(answer, fallback=False)


@pytest.mark.parametrize(("text", "answer"), GUESSED)
def test_guessed_answers_are_flagged(text, answer):
    assert extract_answer(text) == Extraction(answer, fallback=True)


@pytest.mark.parametrize("text", NONE)
def test_a_solution_without_an_answer_says_so(text):
    assert extract_answer(text) is None


def test_an_answer_to_another_question_is_not_this_one_again():
    assert extract_answer("#### 72\n\nQuestion: What?\nAnswer: 1+1=2 so 2").text == "72"
