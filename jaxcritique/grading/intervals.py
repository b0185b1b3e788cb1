"""Sets of real numbers as unions of intervals, read from intervals, unions and inequalities."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from jaxcritique.grading.algebra import Algebra
from jaxcritique.grading.numeric import CONSTANTS, Evaluator, NoValue
from jaxcritique.grading.relations import variables
from jaxcritique.grading.syntax import Call, Group, Node, Relation, Symbol, is_inequality, symbols

INFINITY: Node = Symbol("oo")
MINUS_INFINITY: Node = Call("neg", (INFINITY,))
_MIRROR = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!="}


@dataclasses.dataclass(frozen=True)
class Piece:
    """An interval; a point where both ends are the same and closed."""

    low: Node
    low_closed: bool
    high: Node
    high_closed: bool


def _point(value: Node) -> Piece:
    return Piece(value, True, value, True)


def is_real_set(node: Node) -> bool:
    """Whether a node can only be read as a set of real numbers (a pair in `()` may be a tuple)."""
    match node:
        case Call("cup" | "setminus") | Symbol("set R"):
            return True
        case Group(left="[", items=(_, _)) | Group(items=(_, _), right="]"):
            return True
        case Relation(sides=(*_, last), ops=ops):
            is_member = "in" in ops and not (isinstance(last, Group) and last.left == "{")
            return is_member or is_inequality(node)
        case Group(left="", items=items):
            return _share_a_name(items) and any(map(is_inequality, items))
        case _:
            return False


def _share_a_name(parts: Sequence[Node]) -> bool:
    """Whether inequalities listed together are about one variable: `x > 2, y < 5` are not."""
    names = [variables(part) for part in parts if isinstance(part, Relation)]
    return not names or bool(set.intersection(*names))


def pieces(node: Node) -> list[Piece] | None:
    """Returns the intervals that a node is a union of; None if it is not one."""
    match node:
        case Symbol("set R"):
            return [Piece(MINUS_INFINITY, False, INFINITY, False)]
        case Group("(" | "[" as left, (low, high), right):
            return [Piece(low, left == "[", high, right == "]")]
        case Group("{", items, _):
            return [_point(item) for item in items]
        case Call("cup", parts) | Group("", parts, _) if _share_a_name(parts):
            found = [pieces(part) for part in parts]
            if any(part is None for part in found):
                return None
            union = [piece for part in found for piece in part or ()]
            return _between(union) if isinstance(node, Group) else union
        case Relation(sides=sides, ops=ops):
            return _from_relation(sides, ops)
        case Call("setminus", (Symbol("set R"), Group("{", (_, *_) as points, _))):
            ends = [MINUS_INFINITY, *sorted(points, key=_position), INFINITY]
            return [Piece(low, False, high, False) for low, high in itertools.pairwise(ends)]
        case _:
            return None


def _between(union: list[Piece]) -> list[Piece]:
    """Reads `x > 2, x < 5` as both at once: either of them would be true of every number."""
    if len(union) == 2:
        below, above = sorted(union, key=lambda piece: piece.low != MINUS_INFINITY)
        if (below.low, above.high) == (MINUS_INFINITY, INFINITY):
            both = Piece(above.low, above.low_closed, below.high, below.high_closed)
            if _position(both.low) < _position(both.high):
                return [both]
    return union


def _from_relation(sides: tuple[Node, ...], ops: tuple[str, ...]) -> list[Piece] | None:
    if ops[-1] in ("in", "=") and len(sides) == 2:
        is_point = ops[-1] == "=" and is_variable(sides[0]) and not variables(sides[1])
        return pieces(sides[1]) or ([_point(sides[1])] if is_point else None)
    if len(sides) == 3 and ops[0] in (">", ">="):
        sides, ops = sides[::-1], (_MIRROR[ops[1]], _MIRROR[ops[0]]) if ops[1] in _MIRROR else ops
    if len(sides) == 3 and set(ops) <= {"<", "<="} and is_variable(sides[1]):
        low, _, high = sides
        return [Piece(low, ops[0] == "<=", high, ops[1] == "<=")]
    if len(sides) == 2 and ops[0] in _MIRROR:
        return _from_inequality(sides[0], ops[0], sides[1])
    return None


def _from_inequality(left: Node, op: str, right: Node) -> list[Piece] | None:
    if is_variable(right) and not is_variable(left):
        left, op, right = right, _MIRROR[op], left
    if not is_variable(left) or not symbols(left).isdisjoint(symbols(right) - CONSTANTS):
        return None
    below = Piece(MINUS_INFINITY, False, right, op == "<=")
    above = Piece(right, op == ">=", INFINITY, False)
    return {"<": [below], "<=": [below], ">": [above], ">=": [above], "!=": [below, above]}[op]


def is_variable(node: Node) -> bool:
    """Whether a node names one quantity: `x`, `f(x)`."""
    match node:
        case Symbol(name=name):
            return name not in CONSTANTS and name != "oo"
        case Call(op=op):
            return op.startswith("apply ")
        case _:
            return False


def same_union(first: list[Piece], second: list[Piece], algebra: Algebra) -> bool | None:
    """Whether two unions hold the same numbers; None if an end is left undecided."""
    first, second = _ordered(first), _ordered(second)
    if len(first) != len(second):
        return False
    undecided = False
    for a, b in zip(first, second, strict=True):
        if (a.low_closed, a.high_closed) != (b.low_closed, b.high_closed):
            return False
        for end, other in ((a.low, b.low), (a.high, b.high)):
            equal = algebra.equal(end, other)
            if equal is False:
                return False
            undecided |= equal is None
    return None if undecided else True


def _ordered(union: list[Piece]) -> list[Piece]:
    """Sorts by the lower end and joins intervals that touch; leaves unknown ends as written."""
    keyed = [
        (_position(piece.low), not piece.low_closed, _position(piece.high), piece)
        for piece in union
    ]
    if any(math.isnan(low) or math.isnan(high) for low, _, high, _ in keyed):
        return union
    result: list[Piece] = []
    for _, _, _, piece in sorted(keyed, key=lambda entry: entry[:3]):
        if result and _touch(result[-1], piece):
            last = result[-1]
            longer = max((last, piece), key=lambda part: (_position(part.high), part.high_closed))
            result[-1] = Piece(last.low, last.low_closed, longer.high, longer.high_closed)
        else:
            result.append(piece)
    return result


def _touch(left: Piece, right: Piece) -> bool:
    gap = _position(right.low) - _position(left.high)
    return gap < 0 or (gap == 0 and (left.high_closed or right.low_closed))


def _position(end: Node) -> float:
    if end == INFINITY:
        return math.inf
    if end == MINUS_INFINITY:
        return -math.inf
    if symbols(end) - CONSTANTS:
        return math.nan
    try:
        return complex(Evaluator().value(end)).real
    except NoValue:
        return math.nan
