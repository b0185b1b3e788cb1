"""Compares two answers by a sequence of rules, the cheapest first.

`compare` never guesses: if exact arithmetic does not suffice, the verdict is None (undecided), and
a worker repeats the comparison with the algebra that decides everything.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from jaxcritique.grading import quantities, relations
from jaxcritique.grading.algebra import Algebra
from jaxcritique.grading.intervals import Piece, is_real_set, pieces, same_union
from jaxcritique.grading.matrices import carried_out
from jaxcritique.grading.normalize import (
    MAX_ANSWER,
    choice,
    clean,
    is_hedged,
    key,
    plain,
    readings,
    word,
)
from jaxcritique.grading.parser import ParseError, parse
from jaxcritique.grading.syntax import (
    Call,
    Group,
    Matrix,
    Node,
    Number,
    Relation,
    Symbol,
    Text,
    canonical,
    children,
    is_call,
    multiply,
    rebuild,
    symbols,
)
from jaxcritique.records import Verdict

_FIXED_WORK = 20  # Cost of a comparison besides reading its trees, in characters.
MAX_UNORDERED = 60  # Items; matching without an order takes the square of their number.
_NOTHING, _REALS = Group("{", (), "}"), Symbol("set R")
_MEANINGS: dict[str, Node] = {
    "no solution": _NOTHING,
    "no solutions": _NOTHING,
    "no real solution": _NOTHING,
    "no real solutions": _NOTHING,
    "empty set": _NOTHING,
    "all real numbers": _REALS,
    "all reals": _REALS,
}
_ARTICLE = re.compile(r"^(?:an?|the) ")
_TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})


class OutOfPatience(Exception):
    """The comparison is too long for the calling thread: a worker has to make it."""


class Decision(NamedTuple):
    """A verdict and the rule that gave it; `verdict` is None if it is left to a worker."""

    verdict: Verdict | None
    rule: str


def compare(gold: str, answer: str, algebra: Algebra, strict: bool = False) -> Decision:
    """Compares two answers (not whole responses) under one algebra."""
    if max(len(gold), len(answer)) > MAX_ANSWER:
        return Decision("unparsable", "too long")
    texts = gold, answer
    gold, answer = clean(gold), clean(answer)
    if max(len(gold), len(answer)) > MAX_ANSWER:  # Cleaning can lengthen a text.
        return Decision("unparsable", "too long")
    if not gold or not answer:
        return Decision("unparsable", "empty")
    if key(gold) == key(answer) or (not strict and _same_but_degrees(gold, answer)):
        return Decision("correct", "string")
    if word(gold) is not None and word(gold) == word(answer):
        return Decision("correct", "text")
    if "\\" in gold + answer and plain(gold) == plain(answer):
        return Decision("correct", "text")
    if is_hedged(gold) or is_hedged(answer):  # "more than 18" is that and nothing else.
        same = plain(gold).lower() == plain(answer).lower()
        return Decision("correct" if same else "wrong", "text")
    # "(C) 12 apples" is the choice C, but two answers with words are compared whole.
    shortest = min(len(plain(gold)), len(plain(answer)))
    if shortest == 1 and choice(gold) and choice(gold) == choice(answer):
        return Decision("correct", "choice")
    try:
        left, right = _trees(gold, texts[0], strict), _trees(answer, texts[1], strict)
        if not left or not right:
            return Decision("unparsable", "syntax")
        return _compare_readings(left, right, _Comparison(algebra, strict))
    except (OutOfPatience, RecursionError):
        return Decision(None, "patience")


def _same_but_degrees(gold: str, answer: str) -> bool:
    r"""Whether only a degree sign is left out: `\cos 58` is often meant in degrees."""
    return "°" in gold + answer and key(gold.replace("°", "")) == key(answer.replace("°", ""))


def _compare_readings(left: list[Node], right: list[Node], comparison: "_Comparison") -> Decision:
    undecided = False
    for first in left:
        for second in right:
            # 12,345 may be the list of 12 and 345, but never the pair (12,345).
            if (first is not left[0] and _is_bracketed(second)) or (
                second is not right[0] and _is_bracketed(first)
            ):
                continue
            equal = comparison.equal(first, second)
            if equal:
                return Decision("correct", rule_for(first, second))
            undecided |= equal is None
    return Decision(None if undecided else "wrong", rule_for(left[0], right[0]))


def _is_bracketed(node: Node) -> bool:
    return isinstance(node, Group) and node.left != ""


def _trees(cleaned: str, text: str, strict: bool) -> list[Node]:
    """Returns the readings of an answer as trees, most likely first (only that if `strict`)."""
    trees: list[Node] = []
    for reading in readings(cleaned)[: 1 if strict else None]:
        try:
            tree = _without_degrees(parse(reading))
        except ParseError:
            continue
        meaning = _MEANINGS.get(tree.words.lower()) if isinstance(tree, Text) else None
        trees.append(meaning or tree)
    if trees and not strict:
        trees[0] = quantities.in_dollars(text, trees[0])
    return trees


def rule_for(first: Node, second: Node) -> str:
    """Names the rule that compares two trees."""
    if isinstance(first, Text) or isinstance(second, Text):
        return "text"
    if is_real_set(first) or is_real_set(second):
        return "interval"
    for kind, rule in ((Relation, "equation"), (Matrix, "matrix"), (Group, "list")):
        if isinstance(first, kind) or isinstance(second, kind):
            return rule
    return "algebra" if (symbols(first) | symbols(second)) else "number"


def _without_degrees(node: Node) -> Node:
    """Drops the degree sign where it only names the unit; in `\\sin 30°` it changes the value."""
    if isinstance(node, Call):
        if node.op == "deg":
            return _without_degrees(node.args[0])
        if node.op in _TRIGONOMETRIC:
            return node
    return rebuild(node, tuple(map(_without_degrees, children(node))))


def _all(results: Sequence[bool | None]) -> bool | None:
    """Three-valued "and": False wins, then None."""
    if False in results:
        return False
    return None if None in results else True


def _any(results: Sequence[bool | None]) -> bool | None:
    """Three-valued "or": True wins, then None."""
    if True in results:
        return True
    return None if None in results else False


class _Comparison:
    """The comparison of two trees, from their shape down to their leaves."""

    def __init__(self, algebra: Algebra, strict: bool):
        self._algebra = algebra
        self._strict = strict
        self._work = 0

    def equal(self, a: Node, b: Node) -> bool | None:
        first, second = canonical(a), canonical(b)
        # Counted, not timed, so that what goes to a worker does not depend on the machine's load.
        self._work += len(first) + len(second) + _FIXED_WORK
        if self._work > self._algebra.patience:
            raise OutOfPatience
        if first == second:
            return True
        if quantities.has_label(a) or quantities.has_label(b):
            return self._labelled(a, b)
        if _has_plus_minus(a) or _has_plus_minus(b):
            return self._groups(_expand_list(a), _expand_list(b))
        if isinstance(a, Text) or isinstance(b, Text):
            return _same_words(a, b)
        is_named = isinstance(a, Relation) or isinstance(b, Relation)
        if not is_named and (isinstance(a, Matrix) or isinstance(b, Matrix)):
            return self._matrices(carried_out(a), carried_out(b))
        if is_real_set(a) or is_real_set(b):
            return self._real_sets(a, b)
        if is_named:
            return self._relations(a, b)
        a, b = carried_out(a), carried_out(b)
        if isinstance(a, Matrix) or isinstance(b, Matrix):
            return self._matrices(a, b)
        if isinstance(a, Group) or isinstance(b, Group):
            return self._groups(a, b)
        if is_call(a, "%") != is_call(b, "%"):
            return self._percent(a, b)
        if is_call(a, "ratio") or is_call(b, "ratio"):
            return self._ratios(a, b)
        if not self._strict and _same_digits(a, b):
            return True
        return self._algebra.equal(a, b)

    def _ordered(self, a: Sequence[Node], b: Sequence[Node]) -> bool | None:
        if len(a) != len(b):
            return False
        return _all([self.equal(x, y) for x, y in zip(a, b, strict=True)])

    def _unordered(self, a: Sequence[Node], b: Sequence[Node]) -> bool | None:
        """Matches items greedily, which suffices because equality is nearly transitive."""
        a, b = _without_repeats(a), _without_repeats(b)
        if len(a) != len(b):
            return False
        if len(a) > MAX_UNORDERED:
            return self._ordered(sorted(a, key=canonical), sorted(b, key=canonical))
        left, undecided = list(b), False
        for item in a:
            results = [self.equal(item, other) for other in left]
            found = _any(results)
            if found is False:
                return False
            undecided |= found is None
            left.pop(results.index(found))
        return None if undecided else True

    def _labelled(self, a: Node, b: Node) -> bool | None:
        """Compares values with units: converted where both are known, ignored where not."""
        if isinstance(a, Group) != isinstance(b, Group) and not any(
            map(quantities.is_labelled_group, (a, b))
        ):
            return self._groups(a, b)
        if quantities.is_half_day(a) or quantities.is_half_day(b):
            return quantities.same_time(a, b, self._strict)
        values = quantities.in_one_unit(a, b, self._strict)
        if values is None or self._strict:
            return values is not None and self.equal(*values)
        # Beside a bare number, 2 dollars and 50 cents are 250 or 2.5.
        wholes = quantities.in_larger_unit(a, b)
        return _any([self.equal(*pair) for pair in (values, *wholes)])

    def _real_sets(self, a: Node, b: Node) -> bool | None:
        if _related(a) and _related(b) and _related(a).isdisjoint(_related(b)):
            return False
        if isinstance(a, Relation) and isinstance(b, Relation) and self._inequalities(a, b):
            return True
        # Both sides are checked first, so that the result does not depend on their order.
        if any(pieces(node) is None and not _is_inequality(node) for node in (a, b)):
            # `x > 2 or y < 5` is no set of numbers, and compared part by part.
            unlike = is_call(a, "cup") and is_call(b, "cup")
            return unlike and self._unordered(children(a), children(b))
        unions: list[list[Piece]] = []
        for node in (a, b):
            union = pieces(node)
            if union is None and isinstance(node, Relation):
                solution = self._algebra.solve(node)
                if solution is None:
                    return None
                union = pieces(solution)
            if union is None:
                return False
            unions.append(union)
        return same_union(unions[0], unions[1], self._algebra)

    def _inequalities(self, a: Relation, b: Relation) -> bool | None:
        """Compares `left < right` with another up to a positive factor on the difference."""
        if len(a.sides) != 2 or len(b.sides) != 2:
            return self._chains(a, b)
        (lesser, op), (other, other_op) = relations.as_less(a), relations.as_less(b)
        if op != other_op:
            return False
        sign = self._algebra.scale(lesser, other)
        return None if sign is None else sign > 0 or (op == "!=" and sign < 0)

    def _chains(self, a: Relation, b: Relation) -> bool | None:
        if a.ops != b.ops:
            return False
        return self._ordered(a.sides, b.sides)

    def _relations(self, a: Node, b: Node) -> bool | None:
        (name, a), (other_name, b) = relations.assignment(a), relations.assignment(b)
        first, second = relations.as_equation(name, a), relations.as_equation(other_name, b)
        if first is not None and second is not None:
            if (
                name is not None
                and other_name is not None
                and relations.same_name(name, other_name)
            ):
                return self.equal(a, b)
            return self._equations(first, second)
        if isinstance(a, Relation) or isinstance(b, Relation):
            return False
        return False if self._strict and name != other_name else self.equal(a, b)

    def _equations(self, a: Relation, b: Relation) -> bool | None:
        """Compares `left = right` with another up to a factor on the difference."""
        if len(a.sides) != 2 or len(b.sides) != 2:
            return self._chains(a, b)
        if any(isinstance(side, Group | Matrix | Text) for side in (*a.sides, *b.sides)):
            return self._ordered(a.sides, b.sides)
        sign = self._algebra.scale(relations.difference(a), relations.difference(b))
        return None if sign is None else sign != 0

    def _matrices(self, a: Node, b: Node) -> bool | None:
        if isinstance(a, Matrix) and isinstance(b, Matrix):
            rows = zip(a.rows, b.rows, strict=False)
            return len(a.rows) == len(b.rows) and _all([self._ordered(*pair) for pair in rows])
        matrix, other = (a, b) if isinstance(a, Matrix) else (b, a)
        is_vector = isinstance(matrix, Matrix) and 1 in (len(matrix.rows), len(matrix.rows[0]))
        if self._strict or not is_vector or not isinstance(other, Group) or other.left == "{":
            return False
        return self._ordered(children(matrix), other.items)

    def _groups(self, a: Node, b: Node) -> bool | None:
        if not isinstance(a, Group) or not isinstance(b, Group):
            group, other = (a, b) if isinstance(a, Group) else (b, a)
            return self._single(group, other) if isinstance(group, Group) else False
        if not self._strict and (_is_set_of_one(a) or _is_set_of_one(b)) and a.left != b.left:
            return self.equal(*(node.items[0] if _is_set_of_one(node) else node for node in (a, b)))
        kinds = {a.left, b.left}
        is_tuple = not kinds.isdisjoint({"(", "["})
        if is_tuple and ("{" in kinds or len(a.items) != len(b.items)):
            return False
        if kinds == {"{"} or (not self._strict and "{" in kinds):
            a, b = _distinct(a), _distinct(b)
        if is_tuple or (self._strict and "{" not in kinds) or _names_differ(a, b):
            return self._ordered(a.items, b.items)
        return self._unordered(a.items, b.items)

    def _single(self, group: Group, other: Node) -> bool | None:
        """Compares a list with one value: it may say that value several times, in several forms."""
        if self._strict or group.left not in ("", "{") or not group.items:
            return False
        return _all([self.equal(item, other) for item in group.items])

    def _percent(self, a: Node, b: Node) -> bool | None:
        """Compares 10% with 0.1 and, unless strict, with 10."""
        percent, other = (a, b) if is_call(a, "%") else (b, a)
        results = [self._algebra.equal(percent, other)]
        if not self._strict:
            results.append(self._algebra.equal(children(percent)[0], other))
        return _any(results)

    def _ratios(self, a: Node, b: Node) -> bool | None:
        """Compares 3:4 with the same terms or, unless strict, with 3/4."""
        if is_call(a, "ratio") and is_call(b, "ratio"):
            if len(a.args) != len(b.args) and not self._strict:
                return quantities.same_clock(a, b)
            return self._ordered(a.args, b.args)
        ratio, other = (children(a), b) if is_call(a, "ratio") else (children(b), a)
        if self._strict or len(ratio) != 2:
            return False
        return self._algebra.equal(multiply(ratio[0], Call("inv", (ratio[1],))), other)


def _is_inequality(node: Node) -> bool:
    return isinstance(node, Relation) and is_real_set(node)


def _is_set_of_one(node: Group) -> bool:
    return node.left == "{" and len(node.items) == 1


def _without_repeats(items: Sequence[Node]) -> Sequence[Node]:
    """Drops tuples that are listed twice; a number listed twice is a double root and stays."""
    if not all(isinstance(item, Group) for item in items):
        return items
    return list({canonical(item): item for item in items}.values())


def _distinct(group: Group) -> Group:
    """Returns a set without the elements that are written twice."""
    items = {canonical(item): item for item in group.items}
    return Group(group.left, tuple(items.values()), group.right)


def _related(node: Node) -> set[str]:
    """Returns the variables of an inequality, or of several listed together."""
    parts = children(node) if isinstance(node, Group) or is_call(node, "cup") else (node,)
    chains = (part for part in parts if isinstance(part, Relation))
    return set().union(*map(relations.variables, chains))


def _same_digits(a: Node, b: Node) -> bool:
    """Whether one side is a numeral in a named base and the other leaves that base out."""
    match (a, b) if is_call(a, "base") else (b, a):
        case Call("base", (Text(words=digits), Number(value=base))), Number(
            value=value, decimals=0
        ):
            return 2 <= base <= 36 and digits == str(value)
        case _:
            return False


def _same_words(a: Node, b: Node) -> bool:
    words = [
        _ARTICLE.sub("", " ".join(re.findall(r"[a-z0-9]+", node.words.lower())))
        if isinstance(node, Text)
        else None
        for node in (a, b)
    ]
    return words[0] == words[1]


def _has_plus_minus(node: Node) -> bool:
    return is_call(node, "pm") or is_call(node, "mp") or any(map(_has_plus_minus, children(node)))


def _expand_list(node: Node) -> Group:
    """Returns the list of values that a node with plus-minus signs stands for."""
    items = node.items if isinstance(node, Group) and node.left in ("", "{") else (node,)
    expanded: list[Node] = []
    for item in items:
        if _has_plus_minus(item):
            expanded += [_choose(item, upper=True), _choose(item, upper=False)]
        else:
            expanded.append(item)
    return Group("", tuple(expanded), "")


def _choose(node: Node, upper: bool) -> Node:
    """Takes the upper or the lower sign of every plus-minus in `node`."""
    nodes = tuple(_choose(child, upper) for child in children(node))
    if isinstance(node, Call) and node.op in ("pm", "mp"):
        return nodes[0] if (node.op == "pm") == upper else Call("neg", nodes)
    return rebuild(node, nodes)


def _names_differ(a: Group, b: Group) -> bool:
    """Whether one list names its items differently (x = 1, y = 2) and the other has no names."""
    counts = [
        len({canonical(name) for item in group.items if (name := relations.assignment(item)[0])})
        for group in (a, b)
    ]
    return 0 in counts and max(counts) > 1
