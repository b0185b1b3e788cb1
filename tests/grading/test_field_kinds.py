"""What models write in the field, kind by kind: right answers are credited, others are not."""

import dressing
import pytest

from jaxcritique.grading import Extraction, Grader, extract_answer

RIGHT = {
    "unicode": [
        ("300000000", "It is 3 × 10⁸."),
        ("x^4+1", "The answer is x⁴+1."),
        ("7/8", "He ran ⅞ of a mile."),
        ("9/4", "She needs 2¼ cups of flour."),
        ("2/3", r"\boxed{²⁄₃}"),
        ("2", r"\boxed{∛8}"),
        ("2", r"\boxed{log₁₀100}"),
        (r"x \le 3", r"\boxed{x ⩽ 3}"),
        ("12", "\u200f\u200bThe answer is \u206612\u2069."),
        ("12", "一共有１２个苹果。"),
        ("12", "所以答案是１２。"),
        (r"5\text{ m}^2", r"\boxed{5㎡}"),
        ("-3", "The temperature is −3°C."),
    ],
    "empty boxes": [
        ("15", "The answer is \\boxed{15}. I was to put it into \\boxed{}."),
        ("15", "Write it as \\boxed{\\text{answer}}. 12 + 3 is it.\nThe answer is 15."),
        ("15", "Write it in \\fbox{ }: 12+3. Final answer: 15"),
        ("15", "I put my answer within $\\boxed{\\ldots}$.\n\nSo \\boxed{15}"),
        ("15", "It goes in \\boxed{}.\n#### 15"),
    ],
    "thoughts": [
        ("18", "<think>It is 17</think>The answer is 18.<think>Or is it 17?"),
        ("18", "[THINK]17[/THINK]18"),
        ("18", "<|begin_of_thought|>17<|end_of_thought|>\n<|begin_of_solution|>\\boxed{18}"),
        ("18", "<|channel|>analysis<|message|>17<|end|><|channel|>final<|message|>18"),
    ],
    "words after": [
        ("72", "The answer is 72, with 8 left over."),
        ("72", "The answer is 72 (8 x 9)."),
        ("72", "The answer is 72 (that is, 8 x 9)."),
        ("72", "The answer is **72** out of 80."),
        ("72", "The answer is 72; 8 fewer than 80."),
        ("72", "The answer is 72, in total."),
        ("72", "The answer is 72 clips in total over 2 months."),
        ("72", "Answer: 72 in 2 months"),
        ("72", "The answer is $72, or $8 per person."),
        ("90", "The answer is 90 minutes, or 1.5 hours."),
        ("72", "The answer is 8 x 9 = 72 clips, 3 more."),
        ("72", "The answer is 8 times 9, which is 72."),
        ("3/4", "The answer is 3/4 of the cake, 1/4 is left."),
        ("12", "The answer is: 12 apples - that's 3 for each"),
        ("1,2,4,8", "The answer is 1, 2, 4, and 8."),
        ("(3,4)", "The answer is x = 3, y = 4."),
        ("3,-3", "The answer is 3, or -3."),
        ("5", "<answer>5</answer>"),
    ],
    "hedges": [
        ("18", "The answer is approximately 18."),
        ("17", "It is 17, not 18."),
        ("18", "So 3 * 6 => 18"),
        ("18", "3 * 6 -> 18 eggs"),
        ("18", "She has <<3*6=18>>18 eggs."),
        (r"\text{at most } 18", "The answer is at most 18."),
    ],
    "unannounced": [
        ("1500000", "She earned $1.5 million"),
        ("9/4", "She needs 2 1/4 cups of flour."),
        ("3:2", "So the ratio of boys to girls is 3:2."),
        (r"36\pi", "The area is 36π."),
        ("0.0003", "The probability is 3e-4."),
        ("5000", "There are 5 thousand of them."),
        ("1024", "So there are 2^{10} ways."),
        ("1024", "So there are $2^{10}$ ways."),
        (r"\sqrt{2}", "The length is √2."),
        (r"2\sqrt{3}", "The length is 2√3 cm."),
        ("10^{20}", "That makes 10²⁰ atoms."),
        ("3:30:15", "It ends at 3:30:15."),
    ],
    "run-on": [
        ("12", "#### 12\n\nQuestion 2: And 3?\n\n#### 3"),
        ("12", "#### 12 Question: And 3? #### 3"),
        ("12", "The answer is 12.\n\n### Question\nTom has 4. How many?\nThe answer is 4."),
        ("12", "The answer is 12.\n\nHuman: And 4?\n\nAssistant: The answer is 4."),
        ("12", "\\boxed{12}\n\nProblem 2: four\n\\boxed{4}"),
        ("12", "So 12.<|endofturn|>\n<|user|>And 13? The answer is 14."),
        ("12", "The answer is 12.<eos>The answer is 4."),
        ("12", "#### 12[/INST] And #### 5"),
    ],
    "dress": [
        ("12", r"\boxed{\begin{aligned}12\end{aligned}}"),
        ("12", r"\boxed{\emph{12}}"),
        ("12", r"\boxed{\text{\large 12}}"),
        ("Yes", r"\boxed{\textbf{\text{Yes}}}"),
        ("2.5 hours", r"\boxed{2\text{ hours and }30\text{ minutes}}"),
        ("150", r"\boxed{2\text{ hours and }30\text{ minutes}}"),
        ("2.5", r"\boxed{2\text{ dollars and }50\text{ cents}}"),
        (r"45\text{ km/h}", r"\boxed{45\,\mathrm{km\,h^{-1}}}"),
        (r"9.8\text{ m/s}^2", r"\boxed{\SI{9.8}{m/s^2}}"),
        (r"10\text{ m/s}", r"\boxed{10\,\frac{\mathrm{m}}{\mathrm{s}}}"),
        (r"x \ne 3", r"\boxed{x \not= 3}"),
        ("1/3", r"\boxed{0.333\ldots}"),
        ("66 inches", "\\boxed{5'6\"}"),
        (r"\$0.12", r"\boxed{12¢}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\boxed{(1,2)^{\top}}"),
        ("1234.5", r"\boxed{1.234,5}"),
        ("1234567", r"\boxed{12,34,567}"),
        ("12", r"\boxed{\textbf{(B)}\ 12}"),
    ],
    "parts and sums": [
        ("41", r"\boxed{m + n = 41}"),
        ("41", r"\boxed{41 = a + b + c}"),
        ("4, 9", r"(a) \boxed{4}, (b) \boxed{9}"),
        ("4, 9", "(a) \\boxed{4}\n(b) \\boxed{9}"),
        ("(a) 4, (b) 9", "The answer is 4, 9."),
        ("12:30", r"\boxed{12:30:00}"),
        ("3:30:15 pm", r"\boxed{15:30:15}"),
        ("(1,2)", r"\boxed{\begin{cases} x=1 \\ y=2 \end{cases}}"),
        ("10", r"\boxed{10\text{ cm}}"),
    ],
}
WRONG = {
    "unicode": [
        ("108", r"\boxed{10⁸}"),
        ("1012", r"\boxed{101₂}"),
        ("23", r"\boxed{2⅔}"),
        ("8", r"\boxed{∛8}"),
        ("18", "The answer is 15–18."),
        ("12", r"\boxed{1①2}"),
    ],
    "empty boxes": [("12", "\\boxed{12} looks too small.\nI redo it: \\boxed{}")],
    "thoughts": [
        ("18", "<think>18"),
        ("18", "<thinking>\nThe answer is 18."),
        ("18", "<|begin_of_thought|>\nSo \\boxed{18}"),
        ("18", "[THINK]The answer is 18."),
    ],
    "words after": [
        ("8", "The answer is 72, with 8 left over."),
        ("3", "It is 2, 3 fewer than 5."),
    ],
    "hedges": [
        ("18", "The answer is between 15 and 18."),
        ("18", "The answer is from 15 to 18."),
        ("18", "The answer is no more than 18."),
        ("18", r"The answer is ≥ 18."),
        ("18", "so x > 18."),
        ("18", "It is either 17 or 18."),
        ("18", "It cannot be 18."),
        ("18", "The answer isn't 18."),
        ("18", r"\boxed{18 \text{ or more}}"),
        ("18", "She has 18 or more."),
        ("18", r"\boxed{\text{not equal to } 18}"),
        ("18", r"\boxed{\geq 18}"),
        (r"\frac{3}{4}", r"The answer is less than \frac{3}{4}."),
    ],
    "unannounced": [("1.5", "She earned $1.5 million"), ("1/4", "She needs 2 1/4 cups.")],
    "run-on": [("3", "#### 12\n\nQuestion 2: And 3?\n\n#### 3"), ("4", "#### 12</s> #### 4")],
    "dress": [
        ("6", "\\boxed{5'6\"}"),
        ("7", r"\boxed{12 \tag{7}}"),
        ("123", r"\boxed{12\phantom{3}}"),
        ("$12", r"\boxed{12¢}"),
        ("5", "5_0"),
    ],
    "parts and sums": [
        ("9", r"(a) \boxed{4}, (b) \boxed{9}"),
        ("9, 4", r"(a) \boxed{4}, (b) \boxed{9}"),
        ("1", r"\boxed{x + y = 1}"),
        ("x+y=1", r"\boxed{1}"),
        ("5", r"\boxed{2m+n = 5}"),
        ("42", r"\boxed{m + n = 41}"),
        ("12:30", r"\boxed{12:30:05}"),
    ],
}


def flat(table):
    return [
        pytest.param(*pair, id=f"{kind}: {pair[0]} | {pair[1]}")
        for kind, pairs in table.items()
        for pair in pairs
    ]


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=1, timeout=30) as grader:
        yield grader


@pytest.mark.parametrize(("gold", "response"), flat(RIGHT))
def test_right_answers_are_credited(grader, gold, response):
    assert grader.grade(gold, response).verdict == "correct"


@pytest.mark.parametrize(("gold", "response"), flat(WRONG))
def test_other_answers_are_not(grader, gold, response):
    assert grader.grade(gold, response).verdict != "correct"


def test_what_is_extracted_names_the_bound():
    assert extract_answer("The answer is more than 18.") == Extraction("more than 18")
    assert extract_answer("So there are at least 18.") == Extraction("at least 18", fallback=True)


def test_dressed_answers(grader):
    """Right answers in every dress are credited; near misses and denied ones never are."""
    right, wrong = [], []
    for gold, equal, unequal in dressing.values(72):
        for forms, kind in ((dressing.DRESSES, "answer"), (dressing.ANNOUNCED, "response")):
            right += [(gold, text, kind) for a in equal for text in dressing.worn(a, forms)]
            wrong += [(gold, text, kind) for a in unequal for text in dressing.worn(a, forms)]
        wrong += [(gold, text, "response") for text in dressing.worn(gold, dressing.DENIED)]
    assert len(right) > 12_000
    assert len(wrong) > 20_000
    missed = [row for row in right if grader.grade(*row).verdict != "correct"]
    false = [row for row in wrong if grader.grade(*row).verdict == "correct"]
    assert not false
    # A decimal comma before a label is read as a list.
    assert all("clips" in text and "," in text for _, text, _ in missed)
