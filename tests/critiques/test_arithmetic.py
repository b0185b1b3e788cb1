import os
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcritique.critiques.arithmetic import Calculation, calculations, evaluate, parts

NUMBERS = st.one_of(
    st.integers(0, 10**12).map(str),
    st.decimals(0, 10**6, places=4, allow_nan=False).map(str),
)
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: "({}{}{})".format(*t)),
        inner.map(lambda x: f"(-{x})"),
    ),
    max_leaves=8,
)


def calculation(expression: str, stated: str) -> Calculation:
    return Calculation(expression, stated, evaluate(expression))


@pytest.mark.parametrize(("expression", "value"), [
    ("12+15", "27"),
    ("2+3*4", "14"),
    ("(2+3)*4", "20"),
    ("7-10", "-3"),
    ("-5*-2", "10"),
    ("10/4", "5/2"),
    (" 1 / 3 ", "1/3"),
    ("0.1+0.2", "3/10"),
    (".5*10", "5"),
    ("5.*2", "10"),
    ("12*1.05", "63/5"),
    ("100.005", "20001/200"),
    ("007+08", "15"),
    ("00.5", "1/2"),
    ("20%*50", "10"),
    ("12.5%", "1/8"),
    ("100%-1%", "99/100"),
    ("$1,234.50/2", "24690/40"),
    ("1,000,000*2", "2000000"),
])  # fmt: skip
def test_arithmetic(expression, value):
    assert evaluate(expression) == Fraction(value)


@pytest.mark.parametrize("expression", [
    "", " ", "5 apples", "x+1", "1/0", "1/(2-2)", "3(4)", "2 3", "1+", "(1", "1)", "½", "٣+1",
    "2**3", "9**9**9", "7//2", "7%3", "5%5", "1e5", "1_000", "0x10", "1j", "True", "~1", "1<2",
    "1 if 1 else 2", "[1]", "'a'*9", "f'{1}'", "(1).real", "len('ab')", "print(1)",
    "__import__('os').abort()", "(lambda: 1)()", "1\n+1", "1;2", "1#2", "\0", "\ud800", "1\u20282",
])  # fmt: skip
def test_anything_else_has_no_value(expression):
    assert evaluate(expression) is None


@pytest.mark.parametrize("expression", [
    "(" * 100_000 + "1" + ")" * 100_000, "-" * 100_000 + "1", "1" + "+1" * 100_000, "9" * 100_000,
    "9" * 400 + ".5",
], ids=["brackets", "signs", "sum", "integer", "decimal"])  # fmt: skip
def test_monsters_have_no_value(expression):
    assert evaluate(expression) is None  # At once, too: no scan here takes quadratic time.


def test_model_text_is_never_run(tmp_path):
    path = tmp_path / "pwned"
    code = f"open({os.fspath(path)!r},'w')"
    assert evaluate(code) is None
    assert [mark.value for mark in calculations(f"So <<1+{code}=1>>1.")] == [None]
    assert not path.exists()


@given(EXPRESSIONS)
def test_values_are_exact(expression):
    in_fractions = re.sub(r"[\d.]+", lambda number: f"Fraction('{number[0]}')", expression)
    try:
        expected = eval(in_fractions)  # Our own text, not a model's.
    except ZeroDivisionError:
        expected = None
    assert evaluate(expression) == expected


@given(st.text())
def test_no_text_raises(text):
    value = evaluate(text)
    assert value is None or isinstance(value, Fraction)
    for mark in calculations(f"<<{text}=1>><<1={text}>>"):
        assert mark.right in (True, False)


@pytest.mark.parametrize(("text", "expected"), [
    ("He has <<3 * 4 = 12>>12,\nthen <<12+$1,000=1012>>.", ["3*4=12", "12+1000=1012"]),
    ("3 + 4 = 7 is <<4+3=7>>7.\n$12.50 + 1,000 = $1,012.5.", ["4+3=7", "12.50+1000=1012.5"]),
    ("2 x 3 = 6, 6×2 = 12, 12 ÷ 4 = 3", ["2*3=6", "6*2=12", "12/4=3"]),
    ("5+5 = 10 = 5*2 = 10 apples", ["5+5=10", "5*2=10"]),
    ("2 * ( 3 + 4 ) = 14 and .5 * 10=5", ["2*(3+4)=14", ".5*10=5"]),
    ("1. 12 + 3 = 15\n- 12 - 3 = 9\nOn day 2, 3 + 4 = 7", ["12+3=15", "12-3=9", "3+4=7"]),
    ("<<1=1=1>> <<2+2>> <3=3> <<7=7>> <<\n1+1=2", ["1+1=2"]),
    ("x = 5, 5 = 5, a + b + 1 = 3, -5 = 2", []),
    ("3x + 2 = 8, 2x + 5 + 3 = 10, 2(3+4) = 14, 2+3 = 5x", []),
    ("1 - 1/4 = 3/4, 100% - 40% = 60%, 12 eggs / 3 = 4", []),
])  # fmt: skip
def test_calculations_are_read_in_order(text, expected):
    assert [f"{mark.expression}={mark.stated}" for mark in calculations(text)] == expected


@pytest.mark.parametrize(
    "text", ["1" * 5000, "1 " * 5000, "1" + " " * 5000, "(" * 5000, "1+" * 5000]
)
def test_long_lines_are_read_at_once(text):
    assert calculations(text) == calculations(f"<<{text}=1>>") == []


@pytest.mark.parametrize(("expression", "stated", "right"), [
    ("12+15", "27", True),
    ("12+15", "28", False),
    ("12+15", "27.0", True),
    ("600+400", "1,000", True),
    ("50*.25", "$12.50", True),
    ("10/3", "3.33", True),
    ("10/3", "3.34", True),  # Rounded up, as at a till.
    ("10/3", "3.35", False),
    ("10/3", "3.3", True),
    ("10/3", "3", False),  # Not a rounding: people would not leave the decimals out.
    ("2/3", "0.66", True),
    ("2/3", "0.67", True),
    ("2/3", "0.7", True),
    ("1/20", "0.05", True),
    ("1/20", "0.5", False),
    ("1/4", "25%", True),
    ("1/0", "0", False),
    ("1+1", "two", False),
    ("two", "2", False),
])  # fmt: skip
def test_stated_results(expression, stated, right):
    assert calculation(expression, stated).right == right


@pytest.mark.parametrize(("one", "other", "same"), [
    ("12+15", "15+12", True),
    ("2*3*4", "4*2*3", True),
    ("12-5", "12-5", True),
    ("12-5", "5-12", False),
    ("12/4", "4/12", False),
    ("2+2", "2*2", False),
    ("12+15", "27", False),
    ("1.5+2", "2+1.5", True),
    ("2*3+4", "4+2*3", False),
])  # fmt: skip
def test_same_operation(one, other, same):
    assert calculation(one, "0").same_operation(calculation(other, "1")) == same


@pytest.mark.parametrize(("expression", "expected"), [
    ("37+46", "37+40=77 77+6=83"),
    ("12+105", "12+100=112 112+5=117"),
    ("83-46", "83-40=43 43-6=37"),
    ("48*3", "40*3=120 8*3=24 120+24=144"),
    ("3*48", "40*3=120 8*3=24 120+24=144"),
    ("96/4", "80/4=20 16/4=4 20+4=24"),
    ("1000/8", "800/8=100 160/8=20 40/8=5 100+20=120 120+5=125"),
    *((whole, "") for whole in (
        "37+6", "7+46", "37+40", "83-40", "4*9", "80/4", "45/5", "0+5",  # One step is enough.
        "5-7", "12/5", "1/0", "12*34", "1.5+22", "1+2+3", "12345+67890", "(12+34)", "",
    )),
])  # fmt: skip
def test_sums_in_parts(expression, expected):
    assert parts(expression) == expected.split()


@given(st.integers(0, 9999), st.sampled_from("+-*/"), st.integers(0, 9999))
def test_parts_are_right_and_end_in_the_value(left, sign, right):
    expression = f"{left}{sign}{right}"
    in_parts = calculations(", ".join(parts(expression)))
    assert len(in_parts) == len(parts(expression)) != 1
    assert all(part.right for part in in_parts)
    if in_parts:
        assert in_parts[-1].value == evaluate(expression)
