"""The algebra that decides everything: high-precision arithmetic and sympy's inequality solver.

Runs in a worker process only. Sympy objects are built from our own tree; no text reaches sympy.
"""

import math
from fractions import Fraction
from typing import Any

import mpmath
import sympy

from jaxcritique.grading import numeric
from jaxcritique.grading.algebra import SAMPLES, FastAlgebra
from jaxcritique.grading.syntax import Call, Group, Node, Number, Relation, Symbol, Text, symbols

DIGITS = 120
# A relative difference below this is taken for zero. The most famous near miss, between
# exp(pi sqrt(163)) and an integer, is in the 30th digit.
TOLERANCE = 1e-50
# A result this small, relative to the largest intermediate value, is zero up to rounding.
ZERO = 1e-105
# A result smaller than the largest intermediate value by this factor has lost too many digits, like
# the sine of 10^200.
MAX_CANCELLATION = 1e25
UNSOLVED = Text("unsolved")  # Not a set of numbers, so it equals none.


class SymbolicAlgebra:
    """Decides equality by evaluation with `DIGITS` digits at several points."""

    patience = math.inf

    def __init__(self, strict: bool):
        self._fast = FastAlgebra(strict)
        self._evaluator = numeric.Evaluator(mpmath.mp, _to_number)
        mpmath.mp.dps = DIGITS

    def equal(self, a: Node, b: Node) -> bool:
        """Whether the two expressions are equal wherever both are defined."""
        fast = self._fast.equal(a, b)
        if fast is not None:
            return fast
        values = self._values(a, b)
        return bool(values) and all(_is_close(*value) for value in values)

    def scale(self, a: Node, b: Node) -> int:
        """The sign of the constant c with a = c b; 0 where there is none."""
        fast = self._fast.scale(a, b)
        if fast is not None:
            return fast
        ratios = [x / y for x, y, size in self._values(a, b) if abs(y) > ZERO * size]
        if not ratios or abs(ratios[0].imag) > TOLERANCE:
            return 0
        if any(abs(ratio - ratios[0]) > TOLERANCE * abs(ratios[0]) for ratio in ratios):
            return 0
        return int(mpmath.sign(ratios[0].real))

    def solve(self, relation: Relation) -> Node:
        """The solutions of an inequality in one variable; `UNSOLVED` if they are not found."""
        if len(symbols(relation) - numeric.CONSTANTS) != 1:
            return UNSOLVED
        variable = sympy.Symbol("x", real=True)
        try:
            sides = [_to_sympy(side, variable) for side in relation.sides]
            solution: Any = sympy.S.Reals
            for left, op, right in zip(sides, relation.ops, sides[1:], strict=False):
                solution = solution.intersect(_RELATIONS[op](left, right).as_set())
            return _from_set(solution)
        except (NotImplementedError, TypeError, ValueError, KeyError, AttributeError):
            return UNSOLVED

    def _values(self, a: Node, b: Node) -> list[tuple[Any, Any, float]]:
        """Returns the two values, and the largest number met, at each point that has them."""
        positive = numeric.has_fractional_power(a) or numeric.has_fractional_power(b)
        found = []
        for sample in range(SAMPLES):
            self._evaluator.start(sample, positive)
            try:
                values = self._evaluator.value(a), self._evaluator.value(b)
            except numeric.NoValue:
                continue
            scale = self._evaluator.scale
            if scale <= MAX_CANCELLATION * max(1, *map(abs, values)):
                found.append((*values, scale))
        return found


def _is_close(x: Any, y: Any, scale: float) -> bool:
    size = max(abs(x), abs(y))
    return abs(x - y) <= TOLERANCE * size or size <= ZERO * scale


def _to_number(value: Fraction) -> Any:
    return mpmath.mpc(value.numerator) / value.denominator


_RELATIONS: dict[str, Any] = {
    "<": sympy.Lt,
    "<=": sympy.Le,
    ">": sympy.Gt,
    ">=": sympy.Ge,
    "!=": sympy.Ne,
}


def _to_sympy(node: Node, variable: Any) -> Any:
    """Builds the sympy form of an expression in one variable, of low degree."""
    match node:
        case Symbol(name=name) if name in numeric.CONSTANTS:
            return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}[name]
        case Symbol():
            return variable
        case Call("^", (base, exponent)):
            power = numeric.rational(exponent)
            if power is None or abs(power.numerator) > 8 or power.denominator > 8:
                raise numeric.NoValue
            return _to_sympy(base, variable) ** _rational(power)
        case Call("root", (value, index)) if numeric.rational(index) == 2:
            return sympy.sqrt(_to_sympy(value, variable))
        case Call("+" | "*" | "neg" | "inv" | "abs" as op, args):
            return _OPERATIONS[op](*(_to_sympy(arg, variable) for arg in args))
        case _:
            value = numeric.rational(node)
            if value is None:
                raise numeric.NoValue
            return _rational(value)


_OPERATIONS: dict[str, Any] = {
    "+": sympy.Add,
    "*": sympy.Mul,
    "neg": lambda value: -value,
    "inv": lambda value: 1 / value,
    "abs": sympy.Abs,
}


def _rational(value: Fraction) -> Any:
    return sympy.Rational(value.numerator, value.denominator)


def _from_set(solution: Any) -> Node:
    """Returns a sympy set of real numbers as our own union of intervals."""
    parts = []
    for part in solution.args if isinstance(solution, sympy.Union) else (solution,):
        if isinstance(part, sympy.Interval):
            left, right = "(" if part.left_open else "[", ")" if part.right_open else "]"
            parts.append(Group(left, (_from_end(part.start), _from_end(part.end)), right))
        elif isinstance(part, sympy.FiniteSet):
            parts.append(Group("{", tuple(map(_from_end, part.args)), "}"))
        elif part is not sympy.S.EmptySet:
            raise numeric.NoValue
    return Call("cup", tuple(parts))


def _from_end(end: Any) -> Node:
    """Returns an end of an interval; an irrational one as a fraction exact to many digits."""
    if end is sympy.oo:
        return Symbol("oo")
    if end is -sympy.oo:
        return Call("neg", (Symbol("oo"),))
    match end:
        case sympy.Rational():
            return Number(Fraction(int(end.p), int(end.q)))
        case sympy.Add() | sympy.Mul():
            return Call("+" if isinstance(end, sympy.Add) else "*", tuple(map(_from_end, end.args)))
        case sympy.Pow():
            return Call("^", (_from_end(end.base), _from_end(end.exp)))
        case _:
            raise numeric.NoValue
