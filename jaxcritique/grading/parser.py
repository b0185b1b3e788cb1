"""A recursive-descent parser from LaTeX or plain mathematics to the nodes of `syntax`.

It never evaluates anything, reads each token once, and refuses what is nested too deep: its cost
is linear in the length of the answer.
"""

import functools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from jaxcritique.grading.normalize import MAX_ANSWER
from jaxcritique.grading.quantities import joined, with_letter
from jaxcritique.grading.syntax import (
    Call,
    Group,
    Matrix,
    Node,
    Number,
    Relation,
    Symbol,
    Text,
    add,
    divide,
    is_call,
    is_inequality,
    multiply,
    split_label,
    with_label,
)
from jaxcritique.grading.tokens import END, FUNCTIONS, Token, tokenize

MAX_DEPTH = 25  # Brackets within brackets; each level costs about ten Python frames.
MAX_LABELS = 4  # Words after a number within one product: "5 feet 3 inches" has two.
MAX_CACHED = 100  # Characters; the tree of a long answer is not worth its memory.
MAX_DIGITS = 400  # A longer numeral is not an answer, and int() of it is quadratic.

_RELATIONS = frozenset({"=", "<", "<=", ">", ">=", "!=", "~", "in"})
_CLOSING = {"(": (")", "]"), "[": (")", "]"), "{{": ("}}",), "{": ("}",)}
_FRACTIONS = frozenset({"frac", "dfrac", "tfrac", "cfrac"})
_BINOMIALS = frozenset({"binom", "dbinom", "tbinom"})
_ACCENTS = frozenset(
    {"overline", "bar", "vec", "hat", "tilde", "overrightarrow", "underline", "mathbf"}
)
_BIG_OPERATORS = frozenset({"sum", "prod", "int", "lim", "iint", "oint"})
_ROUNDINGS = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}
_POSTFIX = {"!": "!", "%": "%", "°": "deg"}
_MULTIPLIERS = {
    "hundred": "100",
    "thousand": "1000",
    "million": "1000000",
    "billion": "1000000000",
    "trillion": "1000000000000",
}
_EMPTY_SET = Group("{", (), "}")
_LETTER_BASES = frozenset(map(str, range(11, 37)))
# Letters that, directly before a bracket, name a function rather than a factor.
_ALWAYS_APPLIED = frozenset("fgh")
_APPLIED_TO_ATOMS = frozenset("fghpqFGHPQTVW")
_INVERSE = tokenize("^{-1}(")


class ParseError(ValueError):
    """The text is not mathematics this parser reads."""


def parse(cleaned: str) -> Node:
    """Reads one cleaned answer.

    Raises:
      ParseError: it is empty, too long, too deep, or not mathematics.
    """
    return (_parse_cached if len(cleaned) <= MAX_CACHED else _parse)(cleaned)


def _parse(cleaned: str) -> Node:
    if not cleaned or len(cleaned) > MAX_ANSWER:
        raise ParseError("empty or too long")
    parser = _Parser(tokenize(cleaned))
    node = parser.answer()
    if parser.peek() is not END:
        raise ParseError(f"unexpected {parser.peek().value!r}")
    return node


_parse_cached = functools.lru_cache(maxsize=4096)(_parse)


def number(digits: str) -> Number:
    """Reads a plain decimal numeral.

    Raises:
      ParseError: it has more than `MAX_DIGITS` digits.
    """
    if len(digits) > MAX_DIGITS:
        raise ParseError("too many digits")
    _, _, decimals = digits.partition(".")
    return Number(Fraction(digits), len(decimals))


class _Parser:
    def __init__(self, tokens: list[Token]):
        self._tokens = tokens
        self._next = 0
        self._depth = 0
        self._bars = 0  # Open absolute values: inside one, a bar closes.

    def peek(self, ahead: int = 0) -> Token:
        position = self._next + ahead
        return self._tokens[position] if position < len(self._tokens) else END

    def _take(self) -> Token:
        token = self.peek()
        self._next += 1
        return token

    def _at(self, *signs: str) -> bool:
        token = self.peek()
        return token.kind == "sign" and token.value in signs

    def _accept(self, *signs: str) -> bool:
        found = self._at(*signs)
        self._next += found
        return found

    def _expect(self, *signs: str) -> str:
        if not self._at(*signs):
            raise ParseError(f"expected {signs[0]!r}, found {self.peek().value!r}")
        return self._take().value

    # Lists, relations and sets: the loosest bindings first.

    def answer(self) -> Node:
        """Reads a whole answer: one item, a bare list, or rows parted by semicolons."""
        rows, separators = self._rows()
        if len(rows) > 1 and any(len(row) > 1 for row in rows):
            items = [row[0] if len(row) == 1 else Group("(", tuple(row), ")") for row in rows]
        else:
            items = [item for row in rows for item in row]
        if "or" in separators:
            if any(map(is_inequality, items)):
                return Call("cup", tuple(items))
        else:
            items = joined(items)
        return items[0] if len(items) == 1 else Group("", tuple(items), "")

    def _rows(self) -> tuple[list[list[Node]], set[str]]:
        """Reads items; a semicolon ends a row of them. Returns the separators met, too."""
        rows: list[list[Node]] = [[self._relation()]]
        met: set[str] = set()
        while self.peek().kind == "separator":
            separators = set()
            while self.peek().kind == "separator":
                separators.add(self._take().value)
            if ";" in separators:
                rows.append([])
            rows[-1].append(self._relation())
            met |= separators
        return rows, met

    def _relation(self) -> Node:
        sides, ops = [self._union()], []
        while self._at(*_RELATIONS):
            ops.append(self._take().value)
            sides.append(self._union())
        return Relation(tuple(sides), tuple(ops)) if ops else sides[0]

    def _union(self) -> Node:
        node = self._chain(self._ratio, "cup")
        match node:
            case Call("+", (Symbol("set R"), Call("neg", (Group("{"),) as points))):
                return Call("setminus", (Symbol("set R"), *points))
        return Call("setminus", (node, self._ratio())) if self._accept("setminus") else node

    def _ratio(self) -> Node:
        return self._chain(self._sum, "ratio", ":")

    def _chain(self, operand: Callable[[], Node], op: str, sign: str | None = None) -> Node:
        parts = [operand()]
        while self._accept(sign or op):
            parts.append(operand())
        return parts[0] if len(parts) == 1 else Call(op, tuple(parts))

    # Arithmetic.

    def _sum(self) -> Node:
        terms = [self._term()]
        while self._at("+", "-", "pm", "mp"):
            terms.append(self._term())
        value, label = split_label(terms[-1])
        return with_label(add(*terms[:-1], value), label)

    def _term(self) -> Node:
        sign = self._signs()
        value, label = split_label(self._product())
        if sign and is_call(value, "%"):  # -10% is a percentage, of -10.
            value = Call("%", (Call(sign, value.args),))
        elif sign:
            value = Call(sign, (value,))
        return with_label(value, label)

    def _signs(self) -> str:
        """Reads a run of signs and returns the operation it stands for ("": none)."""
        negative, plus_minus = False, ""
        while self._at("+", "-", "pm", "mp"):
            sign = self._take().value
            negative ^= sign == "-"
            plus_minus = sign if sign in ("pm", "mp") else plus_minus
        return plus_minus or ("neg" if negative else "")

    def _product(self) -> Node:
        factors, labels = [self._power()], 0
        while True:
            if self._accept("*"):
                factors.append(self._factor())
            elif self._accept("/"):
                factors.append(Call("inv", (self._factor(),)))
            elif self._accept("mod"):
                return Call("mod", (multiply(*factors), self._factor()))
            elif self.peek().kind == "text":
                labels += 1
                if labels > MAX_LABELS:
                    raise ParseError("too many labels")
                factors = [self._labelled(multiply(*factors))]
            elif self._starts_atom():
                self._juxtapose(factors)
            else:
                return multiply(*factors)

    def _factor(self) -> Node:
        sign = self._signs()
        node = self._power()
        return Call(sign, (node,)) if sign else node

    def _juxtapose(self, factors: list[Node]) -> None:
        """Reads a factor written without a sign; `2\\frac{1}{2}` is a mixed number."""
        is_fraction = self.peek().kind == "command" and self.peek().value in _FRACTIONS
        is_numeral = self.peek().kind == "number"
        last = factors[-1]
        node = self._power()
        if is_numeral and self.peek().kind == "text":
            last = with_letter(factors)
        if isinstance(last, Text):
            factors[-1] = node  # "about 5": words before a number say nothing.
        elif isinstance(last, Number) and is_numeral:
            raise ParseError("two numbers side by side")
        elif is_numeral and is_call(last, "unit"):
            whole = joined([last, self._labelled(node)])
            if len(whole) > 1:
                raise ParseError("two quantities side by side")
            factors[:] = whole
        elif is_fraction and len(factors) == 1 and _is_mixed(last, node):
            factors[-1] = Call("+", (last, node))
        elif is_fraction and is_call(node, "%") and _is_mixed(last, node.args[0]):
            factors[-1] = Call("%", (Call("+", (last, *node.args)),))
        else:
            factors.append(node)

    def _labelled(self, node: Node) -> Node:
        """Reads words after `node`: its unit, or more words."""
        words: list[str] = []
        while self.peek().kind == "text":
            words.append(self._take().value)
            if self._accept("^"):
                words[-1] += f"^{_integer(self._signed_argument())}"
        label = " ".join(words)
        if isinstance(node, Text):
            return Text(f"{node.words} {label}")
        node, _ = split_label(node)
        power, _, rest = label.partition(" ")
        if power.lower() in _MULTIPLIERS:
            node, label = multiply(node, number(_MULTIPLIERS[power.lower()])), rest
        return with_label(node, label)

    def _starts_atom(self) -> bool:
        token = self.peek()
        if token.kind == "sign":
            return token.value in ("(", "[", "{", "{{", "lfloor", "lceil") or (
                token.value == "|" and not self._bars
            )
        return token.kind in ("number", "letter", "command") and token.value != "end"

    def _power(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ParseError("nested too deep")
        node = self._atom()
        for _ in range(4):
            if self.peek().kind == "sign" and self.peek().value in _POSTFIX:
                node = Call(_POSTFIX[self._take().value], (node,))
        if self._accept("^"):
            node = _raised(node, self._factor())
            if self._accept("!"):
                node = Call("!", (node,))
        self._depth -= 1
        return node

    # Atoms.

    def _atom(self) -> Node:
        token = self._take()
        if token.kind == "number":
            return self._numeral(token.value)
        if token.kind == "letter":
            return self._name(token.value)
        if token.kind == "text":
            self._next -= 1
            return self._words()
        if token.kind == "command":
            return self._command(token.value)
        if token.value in _CLOSING:
            return self._group(token.value)
        if token.value == "|":
            return self._absolute()
        if token.value in _ROUNDINGS:
            closing, op = _ROUNDINGS[token.value]
            node = self._sum()
            self._expect(closing)
            return Call(op, (node,))
        raise ParseError(f"unexpected {token.value!r}")

    def _words(self) -> Text:
        words = [self._take().value]
        while self.peek().kind == "text":
            words.append(self._take().value)
        return Text(" ".join(words))

    def _numeral(self, digits: str) -> Node:
        if self._accept("_"):
            return Call("base", (Text(digits), self._argument()))
        if "." in digits or self._at("."):
            self._accept(".")
            if self.peek() in [Token("command", name) for name in ("overline", "bar", "dot")]:
                self._take()
                return self._repeating(digits)
        return number(digits)

    def _repeating(self, digits: str) -> Node:
        """Reads `1.2\\overline{34}`: the period's value is its digits over as many nines."""
        self._expect("{")
        kind, period = self._take()
        self._expect("}")
        if kind != "number" or not period.isdigit() or len(period) > MAX_DIGITS:
            raise ParseError("not a period")
        start = number(digits)
        shift = Fraction(1, 10**start.decimals)
        return Number(start.value + shift * Fraction(int(period), 10 ** len(period) - 1))

    def _name(self, name: str) -> Node:
        while self._accept("'"):
            name += "'"
        if self._accept("_"):
            if self._is_numeral_in_base(name):
                return Call("base", (Text(name), self._argument()))
            name += "_{" + self._raw_argument() + "}"
        if name in _ALWAYS_APPLIED and self._tokens[self._next : self._next + 6] == _INVERSE:
            self._next += 5
            name += "^{-1}"
        if name[0] in _APPLIED_TO_ATOMS and self._at("("):
            return self._application(name)
        return Symbol(name)

    def _is_numeral_in_base(self, name: str) -> bool:
        """Whether `name`, before its subscript, is a numeral such as the FF of `FF_{16}`."""
        base = self.peek(1) if self._at("{") else self.peek()
        return (
            re.fullmatch("[0-9A-F]{2,}", name) is not None
            and base.kind == "number"
            and base.value in _LETTER_BASES
        )

    def _application(self, name: str) -> Node:
        self._take()
        argument = self._group("(")
        if name[0] in _ALWAYS_APPLIED or isinstance(argument, Number | Symbol):
            return Call("apply " + name, (argument,))
        return multiply(Symbol(name), argument)

    def _group(self, opening: str) -> Node:
        """Reads to the closing bracket; brackets around a single item are dropped."""
        closing = _CLOSING[opening]
        bars, self._bars = self._bars, 0
        items: list[Node] = []
        if opening == "{{" and self._builds_set():
            self._next += 2
            items = [self.answer()]  # The condition on x says what is in the set.
            opening = "{"
        elif not self._at(*closing):
            items = [item for row in self._rows()[0] for item in row]
        right = self._expect(*closing)
        self._bars = bars
        if opening == "{{":
            return Group("{", tuple(items), "}")
        if len(items) == 1:
            return items[0]
        if opening == "{":
            return Group("", tuple(items), "")
        if opening == "[" and (rows := _as_rows(items)):
            return Matrix(rows)
        return Group(opening, tuple(items), right)

    def _builds_set(self) -> bool:
        """Whether `x :` or `x |` comes next, inside the brackets of a set."""
        bar = self.peek(1)
        return self.peek().kind == "letter" and (
            bar == Token("command", "mid") or (bar.kind == "sign" and bar.value in (":", "|"))
        )

    def _absolute(self) -> Node:
        self._bars += 1
        doubled = self._accept("|")
        node = self._sum()
        self._expect("|")
        if doubled:
            self._expect("|")
        self._bars -= 1
        return Call("abs", (node,))

    def _argument(self) -> Node:
        """Reads what a command applies to: a braced group, or a single digit or letter."""
        token = self.peek()
        if token.kind == "number" and token.value[0] != "." and len(token.value) > 1:
            self._tokens[self._next] = Token("number", token.value[1:])
            return number(token.value[0])
        if self._accept("{"):
            return self._group("{")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ParseError("nested too deep")
        node = self._atom()
        self._depth -= 1
        return node

    def _raw_argument(self) -> str:
        """Reads a subscript as the text that tells one name from another."""
        if not self._accept("{"):
            return self._take().value
        parts, depth = [], 1
        while depth:
            token = self._take()
            if token is END:
                raise ParseError("unclosed subscript")
            depth += (token.value == "{") - (token.value == "}")
            parts.append(token.value)
        return "".join(parts[:-1])

    def _command(self, name: str) -> Node:
        if name in _FRACTIONS:
            return divide(self._argument(), self._argument())
        if name == "sqrt":
            return self._root()
        if name in _BINOMIALS:
            return Call("binom", (self._argument(), self._argument()))
        if name in FUNCTIONS:
            return self._function(name)
        if name == "begin":
            return self._environment()
        if name in _ACCENTS:
            return self._argument()
        if name in _BIG_OPERATORS:
            return self._opaque(name)
        if name in ("emptyset", "varnothing"):
            return _EMPTY_SET
        if name == "mathbb":
            return Symbol("set " + self._raw_argument())
        return self._name(
            {"infty": "oo", "cdots": "...", "dots": "...", "ldots": "..."}.get(name, name)
        )

    def _root(self) -> Node:
        index: Node = number("2")
        if self._accept("["):
            index = self._sum()
            self._expect("]")
        return Call("root", (self._argument(), index))

    def _function(self, name: str) -> Node:
        base = exponent = None
        while self._at("_", "^"):
            if self._take().value == "_":
                base = self._argument()
            else:
                exponent = self._signed_argument()
        argument = self._function_argument()
        if exponent == Call("neg", (number("1"),)) and name in ("sin", "cos", "tan"):
            return Call("arc" + name, (argument,))
        arguments = argument.items if isinstance(argument, Group) else (argument,)
        node = Call(name, (*arguments, base) if base else arguments)
        return Call("^", (node, exponent)) if exponent else node

    def _signed_argument(self) -> Node:
        sign = self._signs()
        node = self._argument()
        return Call(sign, (node,)) if sign else node

    def _function_argument(self) -> Node:
        if self._accept("("):
            return self._group("(")
        sign = self._signs()
        factors = [self._power()]
        while self._starts_atom() and self.peek().value not in FUNCTIONS and not self._at("(", "["):
            self._juxtapose(factors)
        node = multiply(*factors)
        return Call(sign, (node,)) if sign else node

    def _opaque(self, name: str) -> Node:
        """Reads a sum, product, integral or limit as one operation that is never evaluated."""
        bounds = ""
        while self._at("_", "^"):
            bounds += self._take().value + self._raw_argument()
        return Call(f"{name}{bounds}", (self._product(),))

    def _environment(self) -> Node:
        kind = self._raw_argument()
        if kind == "array":
            self._raw_argument()
        rows: list[tuple[Node, ...]] = []
        while self.peek() != Token("command", "end"):
            row = [self._relation()]
            while self._accept("&"):
                row.append(self._relation())
            rows.append(tuple(row))
            if not self._accept("\\\\"):
                break
        if self._take() != Token("command", "end"):
            raise ParseError("unclosed environment")
        self._raw_argument()
        if not rows or len({len(row) for row in rows}) != 1:
            raise ParseError("rows of different lengths")
        if len(rows) == len(rows[0]) == 1 and "matrix" not in kind:
            return rows[0][0]
        matrix = Matrix(tuple(rows))
        return Call("det", (matrix,)) if kind == "vmatrix" else matrix


def _integer(node: Node) -> int:
    match node:
        case Number(value=value, decimals=0):
            return int(value)
        case Call("neg", (Number(value=value, decimals=0),)):
            return -int(value)
        case _:
            raise ParseError("not the power of a unit")


def _raised(base: Node, exponent: Node) -> Node:
    """Returns a power, or the transpose of a matrix or of a row: `(1,2)^T`."""
    if exponent not in (Symbol("T"), Symbol("top"), Symbol("intercal")):
        return Call("^", (base, exponent))
    match base:
        case Group("(" | "[", items, _):
            return Matrix(tuple((item,) for item in items))
        case Matrix(rows=rows):
            return Matrix(tuple(zip(*rows, strict=True)))
        case _:
            return Call("^", (base, exponent))


def _as_rows(items: Sequence[Node]) -> tuple[tuple[Node, ...], ...]:
    """Returns the rows of a matrix written as a list of lists; none where it is not one."""
    rows = [item.items for item in items if isinstance(item, Group) and item.left == "["]
    is_matrix = len(rows) == len(items) and len(set(map(len, rows))) == 1
    return tuple(rows) if is_matrix and rows[0] else ()


def _is_mixed(whole: Node, fraction: Node) -> bool:
    """Whether an integer directly before a fraction of two numerals is a mixed number."""
    match whole, fraction:
        case Number(decimals=0), Call("*", (Number(), Call("inv", (Number(),)))):
            return True
        case _:
            return False
