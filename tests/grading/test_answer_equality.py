"""The equality of answers, kind by kind. Each pair is also checked the other way round."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxcritique.grading import Grader
from jaxcritique.grading.algebra import FastAlgebra
from jaxcritique.grading.compare import compare

SAME = {
    "integers": [
        ("7,425,000", "7425000"),
        ("1 000", "1000"),
        ("+7", "7"),
        ("007", "7"),
        (r"14{,}916", "14916"),
        (r"11,\! 111,\! 111", "11111111"),
        ("1,234", "1234"),
    ],
    "decimals": [
        (".5", "0.5"),
        ("5.0", "5"),
        ("1000,99", "1000.99"),
        ("0,111", "0.111"),
        ("17.999999999999996", "18"),
        ("0.1", "0.10"),
        ("2,74", "2.74"),
    ],
    "thousands": [
        ("(1,234)", "(1, 234)"),
        ("12,345", "12, 345"),
        (r"\frac{1,234}{2}", "617"),
        ("x = 1,234", "1234"),
        (r"\$1,234.50", "1234.5"),
    ],
    "rounded": [
        (r"\frac{1}{3}", "0.33"),
        (r"\sqrt{17}", "4.123105625617661"),
        (r"\frac{3\pi}{2}", "4.71"),
        (r"16.\overline{6}", "16.67"),
    ],
    "fractions": [
        (r"\frac12", "0.5"),
        (r"\dfrac{2}{4}", "1/2"),
        (r"918\frac{1}{2}", "918.5"),
        ("2 1/2", "2.5"),
        (r"-\frac{7}{3}", r"\frac{-7}{3}"),
        (r"-2\frac{1}{2}", "-2.5"),
        (r"\frac{\frac{1}{2}}{\frac{3}{4}}", "2/3"),
        (r"{1 \over 2}", "0.5"),
        (r"\frac1 23", r"\frac12 3"),
        (r"\frac.5 2", "0.25"),
        ("3  1/2", "3.5"),
        (r"33\frac{1}{3}\%", r"\frac13"),
    ],
    "powers": [
        ("2^3", "8"),
        (r"10^{-2}", "0.01"),
        (r"1.5 \times 10^3", "1500"),
        ("1.5e3", "1500"),
        ("1.5 x 10^3", "1500"),
        ("2^{4181}", r"2 \cdot 2^{4180}"),
        ("9^{9^{9^9}}", "9^{9^{9^{9}}}"),
    ],
    "radicals": [
        (r"\frac{\sqrt{10}}{10}", r"\frac{1}{\sqrt{10}}"),
        (r"\sqrt 8", r"2\sqrt2"),
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt{2}"),
        (r"\sqrt[3]{x}^2", "x^{2/3}"),
        (r"\sqrt{16}", "4"),
        ("√3", r"\sqrt{3}"),
        (r"\sqrt .25", "0.5"),
    ],
    "constants": [
        (r"\frac{9}{4}\pi", r"\frac{9\pi}{4}"),
        ("2π", r"2\pi"),
        (r"e^{i\pi}", "-1"),
        (r"\mathrm{e}", "e"),
        (r"\ln(e^2)", "2"),
        (r"\log_2 8", "3"),
        (r"\log_2 {2^{2000}}", "2000"),
        (r"\log_2 {2^{-2000}}", "-2000"),
    ],
    "expressions": [
        ("(x-2)(x+2)", "x^2-4"),
        ("x^2+2x+1", "x^2 + 2*x - (-1)"),
        (r"\tan^2(y)+1", r"\sec^2 y"),
        (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac27"),
        ("xy", "yx"),
        (r"2\sin b\cos a", r"2 \cos a \sin b"),
        ("2^{n-1}", r"\frac{2^n}{2}"),
        (r"\frac{n!}{(n-1)!}", "n"),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
    ],
    "complex": [
        ("3+4i", "4i+3"),
        (r"\frac{3}{4}i", r"\frac{3i}{4}"),
        ("(1+i)^2", "2i"),
        (r"\sqrt{-4}", "2i"),
    ],
    "equations": [
        ("x=5", "5"),
        ("2x+4y-3=0", r"y=-\frac12 x+\frac34"),
        ("y=2x+3", "2x+3"),
        ("34x+45y-20z+100=0", "-34x-45y+20z-100=0"),
        ("f(x)=x^2", "y=x^2"),
        (r"x^2/4 + y^2/3 = 1", "x^2/16 + y^2/12 = 1/4"),
        ("|AB|=1", "1"),
        (r"\sqrt{4} = 2", "2"),
        (r"x=\frac13\approx 0.3", "1/3"),
        ("x = 3", "3 = x"),
        ("f^{-1}(x) = x-1", "x-1"),
    ],
    "inequalities": [
        ("x<1", "-x>-1"),
        ("x >= 5", r"5 \le x"),
        (r"x \neq 3", "x != 3"),
        (r"-2\le x\le7", "[-2,7]"),
        ("x>2", r"(2,\infty)"),
        ("x^2<4", "(-2,2)"),
        (r"x \neq 3", r"(-\infty,3)\cup(3,\infty)"),
        ("7>=x>=-2", r"x\in[-2,7]"),
        (r"s^2 \le 8r^2", r"8r^2 \ge s^2"),
        ("x<-1 or x>1", "x^2 > 1"),
        ("x>2 and x<5", "2<x<5"),
        ("x>2 or x<5", r"\mathbb{R}"),
        (r"x<-1 \lor x>1", r"(-\infty,-1)\cup(1,\infty)"),
        ("x>2, y<5", "y<5, x>2"),
        ("x>2 or y<5", "y<5 or x>2"),
        (r"\{x : x > 2\}", r"(2,\infty)"),
        (r"\{x \mid x<1 \text{ or } x>3\}", "x<1 or x>3"),
        (r"\mathbb{R}-\{0\}", r"x \ne 0"),
        (r"1\leq|z|\leq \frac32", r"[-\frac32,-1]\cup[1,\frac32]"),
    ],
    "intervals": [
        ("(-∞, 3]", r"\left(-\infty,3\right]"),
        (r"(0,1)\cup[1,2)", "(0,2)"),
        (r"[3,4]\cup(1,2)", r"(1,2)\cup[3,4]"),
        (r"(-\infty,\infty)", r"\mathbb{R}"),
        (r"\{-1\}\cup[0,7)", r"[0,7)\cup\{-1\}"),
        (r"(\frac35,\frac83]", "(0.6,2.6667]"),
    ],
    "tuples": [
        ("(1,2)", r"\left( 1, 2 \right)"),
        ("(1,4.5)", r"(1,\frac92)"),
        ("(p,q)=(3,2)", "(3,2)"),
        (r"\langle 1,2,3\rangle", "(1,2,3)"),
        ("(1,234)", "(1, 234)"),
    ],
    "sets": [
        ("1,2,3", "3,1,2"),
        (r"\{1,2\}", "2, 1"),
        ("1 and 2", "2,1"),
        (r"6, 8\text{, and }10", "8,10,6"),
        (r"(11,7)or(7,11)", "(7,11), (11,7)"),
        (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
        ("x=1, x=2", "2, 1"),
        ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"),
        ("-12;-11", r"\{-11,-12\}"),
        (r"\pm 3", "3,-3"),
        (r"\{1,2\}", r"\{1,2,2\}"),
        (r"\{(1,2)\}", "(1,2)"),
        (r"6 \& 8", "6,8"),
        (r"\text{red, blue}", "blue, red"),
        (r"x \in \{1,2\}", "2, 1"),
        (r"x \in \{1,2\}", r"\{1,2\}"),
        (r"x \in \{1,2\}", "x=1 or x=2"),
    ],
    "matrices": [
        (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\begin{bmatrix} 1 & 0 \\ 0 & 1 \end{bmatrix}"),
        (r"\begin{pmatrix}1/2\\3\end{pmatrix}", r"\begin{pmatrix}0.5\\ 3\end{pmatrix}"),
        (
            r"\begin{pmatrix}1\\2\end{pmatrix}+\begin{pmatrix}3\\4\end{pmatrix}",
            r"\begin{pmatrix}4\\6\end{pmatrix}",
        ),
        (r"2\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}2&4\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\\3\end{pmatrix}", "(1,2,3)"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1, 2], [3, 4]]"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "[1,2]"),
        (r"v = \begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (
            r"A^{-1} = \frac12\begin{pmatrix}2&4\\6&8\end{pmatrix}",
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
        ),
    ],
    "text": [
        (r"\text{(C)}", "C"),
        (r"\text{Even}", "even"),
        (r"\mathrm{E}", "E"),
        (r"\textbf{A}", "(A)"),
        (r"\text{B, E}", "B,E"),
        ("Evelyn", r"\text{Evelyn}"),
        (r"\text{Row 3}", "Row 3"),
        ("C", "(C) 12 apples"),
        (r"\text{C}", "C. 12 apples"),
    ],
    "units": [
        ("10 cm", r"10\text{ cm}"),
        (r"15\mbox{ cm}^2", "15"),
        ("60 minutes", "1 hour"),
        ("90^\\circ", "90"),
        (r"\$1.05", "1.05"),
        ("-5 apples", "-5"),
        ("3+4 apples", "7"),
        ("1.8 billion dollars", "1,800,000,000"),
        ("80 cents", r"0.8 \text{ dollars}"),
        ("45 degrees", r"45^{\circ}"),
        ("125 miles", "125"),
        ("5 apples", "5"),
        (r"5\text{ meters}", "5 m"),
        ("1 kg", "1000 g"),
        ("60 mph", "60"),
        (r"10 \text{ m/s}", "36 km/h"),
        ("12", "12 USD"),
        ("1 hour 30 minutes", "90 minutes"),
        ("1 hour and 30 minutes", "1.5 hours"),
        ("1 h 30 min", "90 min"),
        ("2 hours, 5 minutes and 10 seconds", "7510 seconds"),
        ("5 feet 3 inches", "63 in"),
        ("2 dollars and 50 cents", r"\$2.50"),
        (r"5\text{ cm}^{2}", "5 square centimeters"),
        (r"5\text{ m}^2", "50000 cm^2"),
        (r"10\text{ m s}^{-1}", "10 m/s"),
        (r"72^\circ F", "72"),
        ("1 year", "12 months"),
    ],
    "percent": [
        ("10%", "10"),
        (r"10\%", "0.1"),
        ("28 percent", r"28\%"),
        ("12.5%", r"12.5\%"),
        ("-10%", "-10"),
        ("-10%", "-0.1"),
        (r"\pm 10\%", "10, -10"),
    ],
    "bases": [
        ("101_2", "5"),
        ("4210_{5}", "4210_5"),
        (r"\text{A5}_{11}", "A5_{11}"),
        ("42_7", "42"),
        ("FF_{16}", "255"),
        ("1A_{16}", "26"),
    ],
    "ratios": [("3:1", "3 : 1"), ("7:32", r"S:T=7:32"), ("1:2", r"\frac12")],
    "times": [
        ("12:00", "12:00"),
        (r"8\!:\!34 \text{ p.m.}", "8:34 p.m."),
        ("3:30 PM", "15:30"),
        ("12:10 a.m.", "0:10"),
        ("3 pm", "15:00"),
        ("3 pm", r"3:00\text{ PM}"),
        (r"\text{20:34, } 8:34 pm", "8:34 pm"),
    ],
    "functions": [
        (r"\sin 30^\circ", r"\frac12"),
        (r"\cos^2 x + \sin^2 x", "1"),
        (r"\arctan 1", r"\frac{\pi}{4}"),
        (r"|-3|", "3"),
        (r"\lfloor 2.7 \rfloor", "2"),
        (r"5!", "120"),
        (r"17 \bmod 5", "2"),
        (r"\max(5)", "5"),
        (r"\gcd(12, 18, 8)", "2"),
        (r"\text{lcm}(4, 6, 10)", "60"),
    ],
}

DIFFERENT = {
    "sign": [("5", "-5"), (r"\sqrt2", r"-\sqrt2"), ("x-1", "1-x"), ("3+4i", "3-4i")],
    "near": [
        ("5", "5.001"),
        ("2", r"\frac{1+\sqrt5}{2}"),
        (r"\frac18", "0.13"),
        ("3.14", "3.15"),
        (r"\frac13", "0.3"),
        (r"\frac{63}{400}", r"\frac{64}{400}"),
        ("12", "120"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744"),
        ("x", "x^{2^{255}-19}"),
    ],
    "order": [("(1,2)", "(2,1)"), ("x=1,y=2", "x=2,y=1"), (r"\{1,2\}", "(1,2)")],
    "ends": [
        ("(0,9)", "[0,9)"),
        ("[2,5)", "[2,5]"),
        ("x<3", r"x\le3"),
        ("x>5", "x<5"),
        (r"(-\infty,3)\cup(3,\infty)", r"(-\infty,\infty)"),
        ("x^2<4", r"[-2,2]"),
        ("x>2 or x<5", "(2,5)"),
        ("x>2 or x<5", "x>2, x<5"),
        ("x>2, y<5", "x<5, y>2"),
        ("x>2, y<5", "(2,5)"),
        ("x>2, x<5", "y>2, y<5"),
        ("x>2 or y<5", "x>2 and y<5"),
    ],
    "commas": [("12,345", "(12,345)"), ("12,345", r"\{12,345\}"), ("(1,234)", "1234")],
    "length": [("1,2", "1,2,3"), (r"\sqrt{67},-\sqrt{85}", r"\sqrt{67}"), (r"\pm 2021", "2021")],
    "equations": [
        ("7=11a+c", "11a+c"),
        ("a+3z=0", "0"),
        ("2x+z=1", "1"),
        ("x=3", "y=3"),
        ("x+y-z+2=0", "5x-7y+11z+4=0"),
        ("x=2", "x=-2"),
    ],
    "text": [
        ("odd", r"\text{oddd}"),
        ("E", r"\mathrm{E}*2"),
        ("d", r"\text{E}"),
        ("Monday", "Tuesday"),
        ("C", "(D) 12 apples"),
        (r"\sqrt{abc}", "abc"),
        ("x<5", "y<5"),
    ],
    "units": [
        ("10 cm", "10 m"),
        ("8:34 a.m.", "8:34 p.m."),
        ("12:00", "1:00"),
        ("5 days", "5 hours"),
        ("5 m/s", "5 km/h"),
        ("1 kg", "1 g"),
        ("3:30 PM", "3:30 AM"),
        ("3:30 AM", "15:30"),
        ("2 million", "2"),
        ("27:30 pm", "15:30"),
        ("27:30 pm", "3:30 pm"),
        (r"x \cdot h", "x hours"),
        (r"\$5", "5 cents"),
        ("72°F", "72°C"),
        ("1 hour 30 minutes", "30 minutes"),
        ("1 hour 30 minutes", "31 minutes"),
        ("5 feet 3 inches", "15 inches"),
        ("1 year", "1 day"),
        (r"5\text{ m}^2", r"5\text{ m}^3"),
        ("5 m/s/s", "5 m/s"),
    ],
    "variables": [("f(x)", "f(y)"), ("x", "y"), ("(a+5)(b+2)", "(+5)(b+2)"), ("|x|", "x")],
    "matrices": [
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\\3\end{pmatrix}"),
    ],
    "bases": [("1112112_3", "1112122_3"), ("101_2", "101_3")],
    "digits": [(r"\frac{1}{12}", r"\frac{11}{2}"), ("32, 349", "32349"), ("31/2", "3  1/2")],
}

LENIENT_ONLY = [
    ("1,2", "2,1"),
    ("10%", "10"),
    (r"\frac13", "0.33"),
    ("x=5", "5"),
    ("42_7", "42"),
    ("1:2", "1/2"),
    ("5 apples", "5"),
    (r"\begin{pmatrix}1\\2\\3\end{pmatrix}", "(1,2,3)"),
    ("12,345", "12, 345"),
    ("2,74", "2.74"),
    (r"\cos 58^\circ", r"\cos 58"),
    ("3:30 pm", "15:30"),
    ("17.999999999999996", "18"),
]

UNREADABLE = [
    "",
    "   ",
    "!!!",
    r"\frac{1}{",
    "((((",
    "-5,1]\\cup[3,9]",
    "x" * 3000,
    "(" * 100 + ")" * 100,
]


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


@pytest.mark.parametrize(("gold", "answer"), flat(SAME))
def test_equal_answers_are_correct_both_ways(grader, gold, answer):
    for pair in ((gold, answer), (answer, gold)):
        grade = grader.grade(*pair, kind="answer")
        assert grade.verdict == "correct", grade


@pytest.mark.parametrize(("gold", "answer"), flat(DIFFERENT))
def test_different_answers_are_wrong_both_ways(grader, gold, answer):
    for pair in ((gold, answer), (answer, gold)):
        grade = grader.grade(*pair, kind="answer")
        assert grade.verdict == "wrong", grade


@pytest.mark.parametrize(("gold", "answer"), LENIENT_ONLY)
def test_strict_refuses_another_form(grader, gold, answer):
    assert grader.grade(gold, answer, kind="answer").verdict == "correct"
    with Grader(workers=1, strict=True) as strict:
        assert strict.grade(gold, answer, kind="answer").verdict == "wrong"
        assert strict.grade(gold, gold, kind="answer").verdict == "correct"


@pytest.mark.parametrize("answer", UNREADABLE)
def test_what_cannot_be_read_is_unparsable_both_ways(grader, answer):
    assert grader.grade("5", answer, kind="answer").verdict == "unparsable"
    assert grader.grade(answer, "5", kind="answer").verdict == "unparsable"


def test_rule_names_what_decided(grader):
    rules = {
        ("1/2", "0.5"): "number",
        ("x+1", "1 + x "): "algebra",
        ("[0,1)", "0<=x<1"): "interval",
        ("5", "5"): "string",
        ("even", "Even"): "text",
        ("1,2", "2,1"): "list",
    }
    for (gold, answer), rule in rules.items():
        assert grader.grade(gold, answer, kind="answer").rule == rule


def test_a_long_answer_is_not_its_last_number(grader):
    polynomial = "+".join(f"{n}x^{{{n}}}" for n in range(1, 61))
    assert len(polynomial) > 300
    assert grader.grade(polynomial, "60", "answer").verdict != "correct"
    assert grader.grade(polynomial, polynomial, "answer").verdict == "correct"


@pytest.mark.parametrize(
    "hedge", ["(A) or (B) or (C) or (D)", "(A) and (B)", "(A), (B)", "A: B", "(A) is wrong. B"]
)
def test_several_choices_are_no_choice(hedge, grader):
    assert grader.grade("A", hedge, "answer").verdict != "correct"
    assert grader.grade("A", f"The answer is {hedge}.").verdict != "correct"


@pytest.mark.parametrize("blanks", [" ", "  ", "\n", " \t ", r"\ \ ", r"\text{ }"])
def test_blanks_do_not_vanish_between_digits(grader, blanks):
    assert grader.grade("12", f"1{blanks}2", "answer").verdict != "correct"
    assert grader.grade(f"3{blanks}1/2", "31/2", "answer").verdict != "correct"


def test_what_goes_to_a_worker_does_not_depend_on_the_order():
    algebra = FastAlgebra(strict=False)
    for gold, answer in (("m", "x^2<4y"), ("5", "x^2<4"), ("(1,2,3)", "x^2<4")):
        assert compare(gold, answer, algebra).verdict == "wrong"
        assert compare(answer, gold, algebra).verdict == "wrong"


def test_threads_do_not_disturb_each_other():
    algebra = FastAlgebra(strict=False)

    def decide(k: int) -> str | None:
        terms = [rf"\sqrt{{x^2+{k + i}}}" for i in range(20)]
        other = "+".join(reversed(terms)).replace("x^2", r"x\cdot x")
        return compare("+".join(terms), other, algebra).verdict

    with ThreadPoolExecutor(8) as threads:
        assert "wrong" not in set(threads.map(decide, range(200)))


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("20", "$20 a day"),
        ("20", "20 minutes a day"),
        ("20", "20 apples a person"),
        ("20", "20 years old"),
        ("20", "20 years of age"),
        ("18 years old", "18 years"),
    ],
)
def test_short_words_beside_a_number_are_no_variables(grader, gold, answer):
    assert grader.grade(gold, answer, "answer").verdict == "correct"
    other = answer.replace("20", "21").replace("18", "19")
    assert grader.grade(gold, other, "answer").verdict == "wrong"


def test_letters_without_such_words_are_variables(grader):
    assert grader.grade("3a+b", "b + 3 a", "answer").verdict == "correct"
    assert grader.grade("20", "20 a", "answer").verdict == "wrong"
    assert grader.grade("2ab", "2 a c", "answer").verdict == "wrong"


def test_a_bar_marks_a_period_too(grader):
    assert grader.grade("1/3", r"0.\bar{3}", "answer").verdict == "correct"
    assert grader.grade("1/3", r"0.\bar{4}", "answer").verdict == "wrong"
