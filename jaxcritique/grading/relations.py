"""Equations and inequalities: their names, their values and their differences."""

from jaxcritique.grading.matrices import has_matrix
from jaxcritique.grading.numeric import CONSTANTS, OPAQUE
from jaxcritique.grading.syntax import (
    Call,
    Group,
    Node,
    Relation,
    Symbol,
    Text,
    add,
    canonical,
    is_call,
    symbols,
)


def difference(relation: Relation) -> Node:
    """Returns the left side of an equation less its right side."""
    left, right = relation.sides
    return add(left, Call("neg", (right,)))


def as_equation(name: Node | None, value: Node) -> Relation | None:
    """Returns `name = value`, or the equation that `value` is; None for a value without a name."""
    if isinstance(value, Relation):
        return value
    return None if name is None else Relation((name, value), ("=",))


def as_less(relation: Relation) -> tuple[Node, str]:
    """Returns (d, op) with the relation written `d < 0`, `d <= 0` or `d != 0`."""
    left, right = relation.sides
    op = relation.ops[0]
    if op in (">", ">="):
        left, right, op = right, left, {">": "<", ">=": "<="}[op]
    return difference(Relation((left, right), ("<",))), op


def assignment(node: Node) -> tuple[Node | None, Node]:
    """Splits `name = value` and worked-out chains into (name, value); an equation stays whole."""
    if not isinstance(node, Relation):
        return None, node
    sides, ops = node.sides, node.ops
    if "~" in ops:
        exact = ops.index("~")
        # `x ≈ 3` gives 3, but `x = 1/3 ≈ 0.33` and `1/3 ≈ 0.33` give 1/3.
        keep = 2 if exact == 0 and is_name(sides[0]) else exact + 1
        sides, ops = sides[:keep], ops[: keep - 1]
    first, last = sides[0], sides[-1]
    if len(sides) == 1:
        return None, first
    if is_name(first) or (_is_power_of_name(first) and has_matrix(last)):
        return first, last
    if _is_named_sum(first) and not variables(last):
        return first, last
    if len(sides) == 2 and (is_name(last) or (_is_named_sum(last) and not variables(first))):
        return last, first
    if not any(variables(side) for side in sides) or any(map(is_name, sides[1:-1])):
        return None, last
    return None, Relation(sides, ops)


def variables(node: Node) -> set[str]:
    """Returns the names in `node` that stand for no fixed number."""
    return symbols(node) - CONSTANTS - {"oo"}


def is_name(node: Node) -> bool:
    """Whether a node names a quantity (`x`, `f(2)`, `|AB|`, `A:B`, `(p,q)`, words)."""
    match node:
        case Symbol(name=name):
            return name not in CONSTANTS and name != "oo"
        case Text():
            return True
        case Call(op=op) if op.startswith(OPAQUE):
            return True
        case Call("*" | "inv" | "abs" | "ratio", nodes) | Group("(", nodes, _):
            return all(map(is_name, nodes))
        case _:
            return False


def _is_named_sum(node: Node) -> bool:
    """Whether a node is a sum that a question asks for (`m + n`), no side of an equation to solve.

    x, y and z are unknowns, and a sum with coefficients or powers is an equation.
    """
    if not is_call(node, "+"):
        return False
    terms = [term.args[0] if is_call(term, "neg") else term for term in node.args]
    names = {term.name for term in terms if isinstance(term, Symbol) and is_name(term)}
    return len(names) == len(terms) and names.isdisjoint("xyz")


def _is_power_of_name(node: Node) -> bool:
    return is_call(node, "^") and is_name(node.args[0])


def same_name(a: Node, b: Node) -> bool:
    """Whether two names may stand for one quantity: equal, or the value of a function."""
    names = []
    for node in (a, b):
        is_value = isinstance(node, Call) and node.op.startswith("apply ")
        names.append("y" if is_value or node == Symbol("y") else canonical(node))
    if isinstance(a, Call) and isinstance(b, Call) and a.op != b.op:
        return False
    return names[0] == names[1] or isinstance(a, Text) or isinstance(b, Text)
