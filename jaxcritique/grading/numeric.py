"""Exact and numeric values of a tree.

Three evaluators, the most certain first:

* `rational` gives the exact value of a tree, if it is a fraction;
* `fingerprint` maps a rational expression in any variables into a prime field, with a fixed
  pseudo-random point for each variable: two expressions are equal if and only if their
  fingerprints are, up to a chance of about 1e-70 (unless constructed for this very prime);
* `Evaluator` computes a complex number at a sample point, in machine precision here and with
  many digits in `symbolic`. Machine numbers may refute an equality, never prove one.

A short text can name a huge number, so powers and factorials beyond `MAX_BITS` are refused.
"""

import cmath
import functools
import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from jaxcritique.grading.syntax import Call, Matrix, Node, Number, Symbol, Text, canonical, children

MAX_BITS = 4096  # The largest exact number on the way to a value.
MAX_EXPONENT_BITS = 64  # Of a power of a variable; in the field x^p is x.
MAX_FACTORIAL = 400
MAX_BINOMIAL = 1000
CONSTANTS = frozenset({"pi", "e", "i"})
# How operations begin that are never evaluated: functions named by a letter, sums, limits, ...
OPAQUE = ("apply ", "sum", "prod", "int", "lim")
# A prime that is 1 modulo 4, so that it holds a square root of -1.
_PRIME = 2**255 - 19
_IMAGINARY_UNIT = pow(2, (_PRIME - 1) // 4, _PRIME)


class NoValue(ValueError):
    """The tree has no value of the requested kind, or one too large to compute."""


_FAILURES = ArithmeticError, ValueError, TypeError  # TypeError: `\max()`, `\log(1,2,3)`.


def rational(node: Node) -> Fraction | None:
    """Returns the exact value of a tree of rational operations; None if it is not one."""
    try:
        return _rational(node)
    except _FAILURES:
        return None


def _rational(node: Node) -> Fraction:
    match node:
        case Number(value=value):
            return value
        case Call("base", (Text(words=digits), base)):
            return Fraction(_based(digits, _rational(base)))
        case Call(op=op, args=args) if op in _EXACT:
            return _EXACT[op](*map(_rational, args))
        case _:
            raise NoValue


def _based(digits: str, base: Fraction) -> int:
    if base.denominator != 1 or not 2 <= base <= 36:
        raise NoValue
    return int(digits, int(base))


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _exact_sum(*terms: Fraction) -> Fraction:
    return functools.reduce(lambda total, term: _small(total + term), terms, Fraction())


def _exact_product(*factors: Fraction) -> Fraction:
    return functools.reduce(lambda product, factor: _small(product * factor), factors, Fraction(1))


def _small(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise NoValue
    return value


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        power = _exact_power(base, Fraction(exponent.numerator))
        return _exact_root(power, Fraction(exponent.denominator))
    if abs(exponent) * max(_bits(base), 1) > MAX_BITS or (base == exponent == 0):
        raise NoValue
    return base ** int(exponent)


def _exact_root(value: Fraction, index: Fraction) -> Fraction:
    """Returns the real root where it is rational."""
    if index.denominator != 1 or not 1 <= index <= 64 or value < 0:
        raise NoValue
    parts = [_integer_root(part, int(index)) for part in (value.numerator, value.denominator)]
    return Fraction(*parts)


def _integer_root(value: int, index: int) -> int:
    if index == 2:
        root = math.isqrt(value)
    elif value.bit_length() < 900:
        root = round(value ** (1 / index))
    else:
        raise NoValue
    if root**index != value:
        raise NoValue
    return root


def _exact_factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise NoValue
    return Fraction(math.factorial(int(value)))


def _exact_binomial(n: Fraction, k: Fraction) -> Fraction:
    if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= MAX_BINOMIAL:
        raise NoValue
    return Fraction(math.comb(int(n), int(k)))


def _integers(function: Callable[[int, int], int], first: int) -> Callable[..., Fraction]:
    """Returns `function` of any number of integers, taken one after the other from `first` on."""

    def on_integers(*values: Fraction) -> Fraction:
        if any(value.denominator != 1 for value in values):
            raise NoValue
        total = Fraction(first)
        for value in values:
            total = _small(Fraction(function(int(total), int(value))))
        return total

    return on_integers


def _exact_log(value: Fraction, base: Fraction | None = None) -> Fraction:
    """Returns the logarithm where it is a small integer."""
    if base is None or base <= 1 or value <= 0:
        raise NoValue
    exponent = Fraction(round(_log(value) / _log(base)))
    if _exact_power(base, exponent) != value:
        raise NoValue
    return exponent


def _log(value: Fraction) -> float:
    return math.log(value.numerator) - math.log(value.denominator)  # A float may not hold `value`.


_EXACT: dict[str, Callable[..., Fraction]] = {
    "+": _exact_sum,
    "*": _exact_product,
    "neg": lambda value: -value,
    "inv": lambda value: 1 / value,
    "^": _exact_power,
    "root": _exact_root,
    "abs": lambda value: abs(value),
    "%": lambda value: value / 100,
    "!": _exact_factorial,
    "binom": _exact_binomial,
    "mod": lambda value, modulus: value % modulus,
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "gcd": _integers(math.gcd, 0),
    "lcm": _integers(math.lcm, 1),
    "max": lambda *values: max(values),
    "min": lambda *values: min(values),
    "log": _exact_log,
}


def fingerprint(node: Node) -> int | None:
    """Returns the image of a rational expression in the field; None if it is not one."""
    try:
        return _fingerprint(node)
    except _FAILURES:
        return None


def _fingerprint(node: Node) -> int:
    match node:
        case Symbol(name="i"):
            return _IMAGINARY_UNIT
        case Symbol(name=name):
            return _hash(name) % _PRIME
        case Call("+", args):
            return sum(map(_fingerprint, args)) % _PRIME
        case Call("*", args):
            return functools.reduce(lambda x, y: x * y % _PRIME, map(_fingerprint, args), 1)
        case Call("neg", (arg,)):
            return -_fingerprint(arg) % _PRIME
        case Call("inv", (arg,)):
            return _inverse(_fingerprint(arg))
        case Call("^", (base, exponent)):
            power = _rational(exponent)
            if power.denominator != 1 or _bits(power) > MAX_EXPONENT_BITS:
                raise NoValue
            value = _fingerprint(base)
            return pow(_inverse(value) if power < 0 else value, abs(int(power)), _PRIME)
        case _:
            value = _rational(node)
            return value.numerator * _inverse(value.denominator) % _PRIME


def _inverse(value: int) -> int:
    if value % _PRIME == 0:
        raise NoValue
    return pow(value, -1, _PRIME)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest(), "big")


class Evaluator:
    """Evaluates trees as complex numbers at sample points.

    Attributes:
      scale: the largest magnitude met since `start`, which bounds the cancellation in a result.
    """

    def __init__(self, maths: Any = cmath, to_number: Callable[[Fraction], Any] = complex):
        self._maths = maths
        self._to_number = to_number
        self._sample = 0
        self._positive = False
        self.scale = 0.0

    def start(self, sample: int, positive: bool) -> None:
        """Moves to another sample point; `positive` keeps every variable above 0."""
        self._sample, self._positive, self.scale = sample, positive, 0.0

    def value(self, node: Node) -> Any:
        """Returns the complex value of `node` at the sample point.

        Raises:
          NoValue: it has none, or its computation leaves the range of the arithmetic.
        """
        try:
            value = self._value(node)
            size = abs(value)
        except _FAILURES as error:
            raise NoValue from error
        if not size < 1e300:
            raise NoValue
        self.scale = max(self.scale, float(size))
        return value

    def _value(self, node: Node) -> Any:
        match node:
            case Number(value=value):
                return self._to_number(value)
            case Symbol(name=name):
                return self._symbol(name)
            case Call("^", (base, exponent)):
                return self._power(self.value(base), self.value(exponent))
            case Call("base" | "gcd" | "lcm" | "mod"):
                return self._to_number(_rational(node))
            case Call(op=op, args=args) if op in _NUMERIC:
                return _NUMERIC[op](self._maths, *map(self.value, args))
            case Call(op=op) if not op.startswith(OPAQUE):
                return self._to_number(_rational(node))
            case Call():
                # Never evaluated: treated as a variable that is named by its text.
                return self._symbol(canonical(node))
            case _:
                raise NoValue

    def _symbol(self, name: str) -> Any:
        if name == "pi":
            return +self._maths.pi
        if name == "e":
            return self._maths.exp(1)
        if name == "i":
            return self._to_number(Fraction(1)) * 1j
        if name in ("oo", "..."):
            raise NoValue
        point = Fraction(_hash(f"{name}@{self._sample}") % 10**6, 10**6) * 2 + Fraction(1, 3)
        negative = not self._positive and _hash(f"{self._sample}{name}") % 2
        return self._to_number(-point if negative else point)

    def _power(self, base: Any, exponent: Any) -> Any:
        if base == 0 and exponent == 0:
            raise NoValue
        if abs(exponent) > 1 and abs(exponent) * abs(math.log10(abs(base) or 1)) > 290:
            raise NoValue
        return base**exponent


def _real(value: Any) -> float:
    if abs(value.imag) > 1e-12 * abs(value):
        raise NoValue
    return value.real


def _of_maths(name: str) -> Callable[[Any, Any], Any]:
    return lambda maths, value: getattr(maths, name)(value)


def _numeric_factorial(maths: Any, value: Any) -> Any:
    real = _real(value)
    if not -1 < real < 150:
        raise NoValue
    return (maths if hasattr(maths, "gamma") else math).gamma(real + 1)


def _numeric_binomial(maths: Any, n: Any, k: Any) -> Any:
    top, chosen = _numeric_factorial(maths, n), _numeric_factorial(maths, k)
    return top / (chosen * _numeric_factorial(maths, n - k))


def _numeric_root(maths: Any, value: Any, index: Any) -> Any:
    if index == 2:
        return maths.sqrt(value)
    if index == 3 and value.imag == 0 and value.real < 0:
        return -((-value) ** (1 / index))
    return value ** (1 / index)


_NUMERIC: dict[str, Callable[..., Any]] = {
    "+": lambda maths, *terms: sum(terms),
    "*": lambda maths, *factors: math.prod(factors),
    "neg": lambda maths, value: 0 - value,  # Not -0.0, beyond the branch cut.
    "inv": lambda maths, value: 1 / value,
    "root": _numeric_root,
    "abs": lambda maths, value: abs(value) + 0j,
    "%": lambda maths, value: value / 100,
    "deg": lambda maths, value: value * maths.pi / 180,
    "!": _numeric_factorial,
    "binom": _numeric_binomial,
    **{name: _of_maths(name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp")},
    **{f"arc{name}": _of_maths(f"a{name}") for name in ("sin", "cos", "tan")},
    "ln": _of_maths("log"),
    "cot": lambda maths, value: 1 / maths.tan(value),
    "sec": lambda maths, value: 1 / maths.cos(value),
    "csc": lambda maths, value: 1 / maths.sin(value),
    "log": lambda maths, value, base=10: maths.log(value) / maths.log(base),
    "Re": lambda maths, value: value.real + 0j,
    "Im": lambda maths, value: value.imag + 0j,
}


def has_fractional_power(node: Node) -> bool:
    """Whether a root, a logarithm or a fractional power asks for positive variables."""
    match node:
        case Call("root" | "ln" | "log"):
            return True
        case Call("^", (_, exponent)) if (rational(exponent) or Fraction(1, 2)).denominator != 1:
            return True
        case Matrix():
            return False
        case _:
            return any(map(has_fractional_power, children(node)))
