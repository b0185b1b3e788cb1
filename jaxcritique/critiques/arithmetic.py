"""The calculations in a solution's steps, and what they really come to.

They are read from GSM8K's marks, `<<12+15=27>>`, or where a line has none from plain equations,
`12 + 15 = 27`.
"""

import ast
import dataclasses
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

_CALCULATION = re.compile(r"<<([^<>=\n]{1,200})=([^<>=\n]{1,50})>>")
_NUMBER = r"(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
_TERM = rf"(?:\(\s?){{0,4}}\$?{_NUMBER}(?:\s?\)){{0,4}}"
# Neither begins nor ends inside a longer expression: x + 5 + 3 = 10, 1 - 1/4 = 3/4. A number that
# starts a list's item, "1. 12 + 3 = 15", is no part of it.
_EQUATION = re.compile(
    rf"(?:^[\s*•+-]*|[^\s\d.(+*/×÷x-]\s{{0,9}}|\.\s{{1,9}})"
    rf"({_TERM}(?:\s{{0,9}}[-+*/x×÷]\s{{0,9}}{_TERM}){{1,20}})\s{{0,9}}=\s{{0,9}}"
    rf"\$?({_NUMBER})(?!\d|[.,]\d|%|\s{{0,9}}(?:[-+*/×÷]|x\b))"
)
_SIGNS = str.maketrans({"x": "*", "×": "*", "÷": "/", "$": None, ",": None, " ": None})
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclasses.dataclass(frozen=True)
class Calculation:
    """One calculator mark: the expression, what the solution says it is, and what it really is."""

    expression: str
    stated: str
    value: Fraction | None  # None: the expression cannot be worked out (say, division by zero).

    @property
    def right(self) -> bool:
        """Whether the stated result is the expression's value, or rounds it as people do."""
        stated = evaluate(self.stated)
        if stated is None or self.value is None:
            return False
        _, _, decimals = self.stated.strip().partition(".")
        unit = Fraction(1, 10 ** len(decimals))
        return stated == self.value or (bool(decimals) and abs(stated - self.value) < unit)

    def same_operation(self, other: "Calculation") -> bool:
        """Whether both work out the same thing, the order of a sum or product left aside."""
        return _canonical(self.expression) == _canonical(other.expression)


def calculations(text: str) -> list[Calculation]:
    """Returns the calculations of a step or of a whole solution, in order."""
    found = []
    for line in text.split("\n"):
        found += marks(line) or _read(_EQUATION, line)
    return found


def marks(text: str) -> list[Calculation]:
    """Returns GSM8K's calculator marks alone, in order."""
    return _read(_CALCULATION, text)


def _read(pattern: re.Pattern[str], text: str) -> list[Calculation]:
    pairs = [(e.translate(_SIGNS), stated.translate(_SIGNS)) for e, stated in pattern.findall(text)]
    return [
        Calculation(expression, stated, evaluate(expression))
        for expression, stated in pairs
        if re.search(r"[\d.)%][-+*/]", expression)
    ]


def evaluate(expression: str) -> Fraction | None:
    """Works out numbers, + - * / and brackets; None for anything else. Runs no model text."""
    cleaned = expression.replace(",", "").replace("$", "").strip()
    cleaned = re.sub(r"(?<![\d.])(\d+(?:\.\d*)?)%", r"(\1/100)", cleaned)
    cleaned = re.sub(r"(?<![\d.])0+(?=\d)", "", cleaned)  # Python's grammar refuses 007.
    if not re.fullmatch(r"[\d\s.+*/()-]*", cleaned, re.ASCII):
        return None
    try:
        return _value(ast.parse(cleaned, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def parts(expression: str) -> list[str]:
    """Works out two whole numbers in steps that each change one digit, as people do in their heads.

    37+46 is ["37+40=77", "77+6=83"]. What takes a single such step, or is not of this kind, has
    no parts.
    """
    match = re.fullmatch(r"(\d{1,4})([-+*/])(\d{1,4})", expression)
    value = evaluate(expression)
    if match is None or value is None or value < 0 or value.denominator != 1:
        return []
    left, sign, right = int(match[1]), match[2], int(match[3])
    if sign in "+-":
        if sign == "+" and len(_places(left)) == 1:
            return []  # 7+46 is as easy as 46+7.
        done = _running(left, sign, _places(right))
    elif sign == "*":
        left, right = max(left, right), min(left, right)
        if right > 9:
            return []
        products = [place * right for place in _places(left)]
        done = [
            f"{p}*{right}={product}" for p, product in zip(_places(left), products, strict=True)
        ]
        done += _running(products[0], "+", products[1:])
    else:
        if right > 9:
            return []
        quotients = _places(int(value))
        done = [f"{quotient * right}/{right}={quotient}" for quotient in quotients]
        done += _running(quotients[0], "+", quotients[1:])
    return done if len(done) > 1 else []


def _places(number: int) -> list[int]:
    """The digits of a number with their places, without zeros: 46 is [40, 6]; 0 is [0]."""
    digits = str(number)
    places = [
        int(digit) * 10**place
        for place, digit in zip(range(len(digits))[::-1], digits, strict=True)
    ]
    return [place for place in places if place] or [0]


def _running(value: int, sign: str, amounts: Sequence[int]) -> list[str]:
    """A sum or difference taken one amount at a time."""
    lines = []
    for amount in amounts:
        result = value + amount if sign == "+" else value - amount
        lines.append(f"{value}{sign}{amount}={result}")
        value = result
    return lines


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
        case _:
            raise ValueError("not an arithmetic expression")


def _canonical(expression: str) -> str:
    for sign in "+*":
        operands = expression.split(sign)
        if len(operands) > 1 and all(re.fullmatch(r"[\d.]+", part) for part in operands):
            return sign.join(sorted(operands))
    return expression
