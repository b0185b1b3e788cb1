"""The tree an answer is read into: seven kinds of node, all immutable and free of sympy."""

import dataclasses
from fractions import Fraction
from typing import TypeGuard


@dataclasses.dataclass(frozen=True)
class Number:
    """A numeral: its exact value and how many decimals it was written with (0: an integer)."""

    value: Fraction
    decimals: int = 0


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A variable, a constant (`pi`, `e`, `i`, `oo`) or a name such as `AB` or `x_{1}`."""

    name: str


@dataclasses.dataclass(frozen=True)
class Text:
    """Words: a whole answer ("even"), or a label beside a number ("apples")."""

    words: str


@dataclasses.dataclass(frozen=True)
class Call:
    """An operation on its arguments: `+ * / ^ neg sqrt sin ! % deg pm cup ratio unit base`, ..."""

    op: str
    args: tuple["Node", ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """Items between brackets, a set (`{` and `}`), or a bare list (both brackets empty)."""

    left: str
    items: tuple["Node", ...]
    right: str


@dataclasses.dataclass(frozen=True)
class Relation:
    """A chain `sides[0] ops[0] sides[1] ops[1] ...` with operators `= < <= > >= != ~ in`."""

    sides: tuple["Node", ...]
    ops: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Rows of entries; a column vector has rows of one."""

    rows: tuple[tuple["Node", ...], ...]


Node = Number | Symbol | Text | Call | Group | Relation | Matrix

COMMUTATIVE = frozenset({"+", "*"})


def add(*terms: Node) -> Node:
    """Returns the sum of `terms`."""
    return terms[0] if len(terms) == 1 else Call("+", terms)


def multiply(*factors: Node) -> Node:
    """Returns the product of `factors`."""
    return factors[0] if len(factors) == 1 else Call("*", factors)


def divide(numerator: Node, denominator: Node) -> Node:
    """Returns the quotient, written as a product with an inverse so that chains stay flat."""
    return Call("*", (numerator, Call("inv", (denominator,))))


def split_label(node: Node) -> tuple[Node, str]:
    """Returns a value and the words beside it ("": none)."""
    match node:
        case Call("unit", (value, Text(words=words))):
            return value, words
        case _:
            return node, ""


def with_label(value: Node, label: str) -> Node:
    """Returns a value with the words `label` beside it ("": none)."""
    return Call("unit", (value, Text(label))) if label else value


def is_call(node: Node, op: str) -> TypeGuard[Call]:
    """Whether `node` is the operation `op`."""
    return isinstance(node, Call) and node.op == op


def is_inequality(node: Node) -> bool:
    """Whether `node` is a chain with an inequality."""
    return isinstance(node, Relation) and not {"<", "<=", ">", ">=", "!="}.isdisjoint(node.ops)


def children(node: Node) -> tuple[Node, ...]:
    """Returns the nodes directly below `node`."""
    match node:
        case Call(args=nodes) | Group(items=nodes) | Relation(sides=nodes):
            return nodes
        case Matrix(rows=rows):
            return tuple(entry for row in rows for entry in row)
        case _:
            return ()


def rebuild(node: Node, nodes: tuple[Node, ...]) -> Node:
    """Returns `node` with `nodes` in the place of its children."""
    match node:
        case Call(op=op):
            return Call(op, nodes)
        case Group(left=left, right=right):
            return Group(left, nodes, right)
        case Relation(ops=ops):
            return Relation(nodes, ops)
        case Matrix(rows=rows):
            width = len(rows[0])
            return Matrix(tuple(nodes[i : i + width] for i in range(0, len(nodes), width)))
        case _:
            return node


def canonical(node: Node) -> str:
    """Returns a text shared by trees that differ only in the order of sums and products."""
    match node:
        case Number(value=value):
            return str(value)
        case Symbol(name=name):
            return name
        case Text(words=words):
            return f'"{words}"'
        case Matrix(rows=rows):
            return "[" + ";".join(",".join(map(canonical, row)) for row in rows) + "]"
        case Relation(sides=sides, ops=ops):
            return "".join(canonical(side) + op for side, op in zip(sides, (*ops, ""), strict=True))
        case Group(left=left, items=items, right=right):
            return (left or "<") + ",".join(map(canonical, items)) + (right or ">")
        case Call(op=op, args=args):
            parts = [canonical(arg) for arg in args]
            return f"{op}({','.join(sorted(parts) if op in COMMUTATIVE else parts)})"


def symbols(node: Node) -> set[str]:
    """Returns the names of the symbols in `node`, constants included."""
    found: set[str] = set()
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, Symbol):
            found.add(node.name)
        stack.extend(children(node))
    return found
