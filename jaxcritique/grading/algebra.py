"""Equality of expressions, as far as it can be decided quickly in the caller's process.

`Algebra` is the interface that `compare` uses; `symbolic.SymbolicAlgebra` decides every question,
at a cost that only a worker process may pay.
"""

from fractions import Fraction
from typing import Protocol

from jaxcritique.grading import numeric
from jaxcritique.grading.syntax import (
    Call,
    Node,
    Number,
    Relation,
    Symbol,
    canonical,
    children,
    rebuild,
    symbols,
)

SAMPLES = 4
# A decimal may be a rounded value if it shows at least this many decimals, and at least two
# significant digits.
MIN_DECIMALS = 2
# A decimal of at least this many places was printed by a machine: it equals what it approximates.
MACHINE_DECIMALS = 12


class Algebra(Protocol):
    """Answers questions about expressions; None means "not decided here".

    Attributes:
      patience: characters of trees that may be compared before the comparison is left undecided.
    """

    patience: float

    def equal(self, a: Node, b: Node) -> bool | None:
        """Whether the two expressions are equal wherever both are defined."""
        ...

    def scale(self, a: Node, b: Node) -> int | None:
        """The sign of the constant c with a = c b; 0 where there is none."""
        ...

    def solve(self, relation: Relation) -> Node | None:
        """The solutions of an inequality in one variable, as a union of intervals."""
        ...


class FastAlgebra:
    """Exact arithmetic on rational values; floating point only to show that values differ."""

    patience: float = 20_000

    def __init__(self, strict: bool):
        self._strict = strict

    def equal(self, a: Node, b: Node) -> bool | None:
        """Whether the two expressions are equal wherever both are defined; None: undecided."""
        if canonical(a) == canonical(b):
            return True
        if not self._strict and (is_rounding(a, b) or is_rounding(b, a)):
            return True
        first, second = numeric.rational(a), numeric.rational(b)
        if first is not None and second is not None:
            return first == second
        first, second = numeric.fingerprint(a), numeric.fingerprint(b)
        if first is not None and second is not None:
            return first == second
        return False if self._refuted(a, b) else None

    def scale(self, a: Node, b: Node) -> int | None:
        """The sign of the constant c with a = c b; 0 where there is none; None: undecided."""
        names = sorted((symbols(a) | symbols(b)) - numeric.CONSTANTS)
        point = {name: Fraction(2 * index + 3, 7) for index, name in enumerate(names)}
        first, second = (numeric.rational(substitute(node, point)) for node in (a, b))
        if not first or not second:
            return None
        factor = first / second
        equal = self.equal(a, Call("*", (Number(factor), b)))
        return None if equal is None else equal * (1 if factor > 0 else -1)

    def solve(self, relation: Relation) -> Node | None:
        """Leaves every inequality to the worker."""
        del relation

    def _refuted(self, a: Node, b: Node) -> bool:
        """Whether the values differ at a sample point by far more than rounding explains."""
        positive = numeric.has_fractional_power(a) or numeric.has_fractional_power(b)
        evaluator = numeric.Evaluator()  # Local, since threads share the algebra.
        for sample in range(SAMPLES):
            evaluator.start(sample, positive)
            try:
                first, second = evaluator.value(a), evaluator.value(b)
            except numeric.NoValue:
                continue
            size = max(abs(first), abs(second))
            if evaluator.scale < 1e5 * size and abs(first - second) > 1e-7 * size:
                return True
        return False


def is_rounding(decimal: Node, other: Node) -> bool:
    """Whether `decimal` is a numeral that correctly rounds the constant `other`.

    A value that has a finite decimal form of its own is not rounded: 0.13 is not 1/8.
    """
    literal = _literal(decimal)
    if literal is None or literal.decimals < MIN_DECIMALS:
        return False
    if abs(literal.value) * 10**literal.decimals < 10:
        return False
    value = numeric.rational(other)
    if value is None:
        value = _real_constant(other)
        if value is None:
            return False
    elif _is_finite_decimal(other, value):
        is_machine = literal.decimals >= MACHINE_DECIMALS
        return is_machine and abs(literal.value - value) <= abs(value) / 10**MACHINE_DECIMALS
    unit = max(Fraction(1, 10**literal.decimals), abs(value) / 10**13)
    return abs(literal.value - value) <= unit / 2 * (1 + Fraction(1, 10**6))


def _literal(node: Node) -> Number | None:
    """Returns the numeral a node consists of, with its sign."""
    match node:
        case Number():
            return node
        case Call("neg", (arg,)) if literal := _literal(arg):
            return Number(-literal.value, literal.decimals)
        case Call("%", (arg,)) if literal := _literal(arg):
            return Number(literal.value / 100, literal.decimals + 2)
        case _:
            return None


def _is_finite_decimal(node: Node, value: Fraction) -> bool:
    literal = _literal(node)
    if literal is not None and literal.decimals >= MACHINE_DECIMALS:
        return False
    denominator = value.denominator
    if denominator.bit_length() > 200:
        return False
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


def _real_constant(node: Node) -> Fraction | None:
    if symbols(node) - numeric.CONSTANTS:
        return None
    evaluator = numeric.Evaluator()
    try:
        value = complex(evaluator.value(node))
    except numeric.NoValue:
        return None
    if abs(value.imag) > 1e-12 * abs(value) or evaluator.scale > 1e3 * abs(value):
        return None
    return Fraction(value.real)


def substitute(node: Node, values: dict[str, Fraction]) -> Node:
    """Returns `node` with numbers in the place of the named symbols."""
    if isinstance(node, Symbol):
        return Number(values[node.name]) if node.name in values else node
    return rebuild(node, tuple(substitute(child, values) for child in children(node)))
