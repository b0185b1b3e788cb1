"""Values with labels: conversion of units, and times of day."""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from jaxcritique.grading.relations import variables
from jaxcritique.grading.syntax import (
    Call,
    Group,
    Node,
    Number,
    Symbol,
    add,
    children,
    is_call,
    multiply,
    split_label,
    with_label,
)
from jaxcritique.grading.units import unit_of

_DOLLARS = re.compile(r"-?\s*\\?\$\s*\.?[0-9][0-9.,]*")


def in_dollars(text: str, tree: Node) -> Node:
    """Labels a number as dollars if it was written, as `text`, with a dollar sign."""
    is_price = isinstance(tree, Number) and _DOLLARS.fullmatch(text.strip())
    return with_label(tree, "dollars" if is_price else "")


def with_letter(factors: list[Node]) -> Node:
    """Returns the last factor; a number and a unit's letter (`5 m`) as one labelled value."""
    match factors:
        case [Number() as value, Symbol(name=name)] if unit_of(name):
            return with_label(value, name)
        case _:
            return factors[-1]


def joined(items: list[Node]) -> list[Node]:
    """Adds up parts like 1 hour, 30 minutes: each less than one unit of the part before."""
    total = items[0]
    for part in items[1:]:
        (value, label), (smaller, smaller_label) = split_label(total), split_label(part)
        unit, smaller_unit = unit_of(label), unit_of(smaller_label)
        if not unit or not smaller_unit or unit[0] != smaller_unit[0]:
            return items
        ratio = unit[1] / smaller_unit[1]
        if ratio <= 1 or not isinstance(smaller, Number) or smaller.value >= ratio:
            return items
        total = with_label(add(multiply(value, Number(ratio)), smaller), smaller_label)
    return [total]


def has_label(node: Node) -> bool:
    """Whether words stand beside a value or a time: `5 cm`, `3:30 pm`."""
    return is_call(node, "unit") or (is_call(node, "ratio") and is_half_day(node))


def is_labelled_group(node: Node) -> bool:
    """Whether one label stands beside a tuple or a set."""
    return is_call(node, "unit") and isinstance(node.args[0], Group)


def in_one_unit(a: Node, b: Node, strict: bool) -> tuple[Node, Node] | None:
    """Returns two values without their labels, converted to one unit if both units are known.

    None if they measure different quantities; unknown labels are ignored unless `strict`.
    """
    a, first = split_label(a)
    b, second = split_label(b)
    if not strict:
        a, first = _split_letter(a, first, second)
        b, second = _split_letter(b, second, first)
    unit, other = unit_of(first), unit_of(second)
    if not unit or not other:
        return None if strict and first != second else (a, b)
    if unit[0] != other[0]:
        return None
    if unit[1] == other[1]:
        return a, b
    return multiply(Number(unit[1]), a), multiply(Number(other[1]), b)


def in_larger_unit(a: Node, b: Node) -> list[tuple[Node, Node]]:
    """Returns a sum of parts and a bare number, the sum in the unit of its larger part.

    None in the list where there is no such pair.
    """
    for first, second in ((a, b), (b, a)):
        match first, split_label(second):
            case Call("unit", (Call("+", (Call("*", (_, Number() as ratio)), _)) as total, _)), (
                value,
                "",
            ):
                return [(total, multiply(ratio, value))]
            case _:
                pass
    return []


def _split_letter(node: Node, label: str, other_label: str) -> tuple[Node, str]:
    """Reads the `m` of `5m` as a unit where the other side has a unit of that quantity."""
    match node:
        case Call("*", (*factors, Symbol(name=letter))):
            pass
        case Call("*", (*factors, Call("^", (Symbol(name=name), Number(value=power))))):
            letter = f"{name}^{power}"
        case _:
            return node, label
    unit, other = unit_of(letter), unit_of(other_label)
    if label or not unit or not other or unit[0] != other[0] or any(map(variables, factors)):
        return node, label
    return multiply(*factors), letter


class Clock(NamedTuple):
    """Hour, minute and second of a time, and "am", "pm" or "" (not given)."""

    time: tuple[Fraction, ...]
    half: str

    @property
    def of_day(self) -> tuple[Fraction, ...]:
        """The time on a 24-hour clock."""
        hour, *rest = self.time
        return (hour % 12 + 12 * (self.half == "pm"), *rest) if self.half else self.time


def read_clock(node: Node) -> Clock | None:
    """Returns a node as a time of day; None if it is not a valid one, such as 27:30 pm."""
    parts: Sequence[Node] = children(node) if is_call(node, "ratio") else (node,)
    last, label = split_label(parts[-1])
    half = label.lower()
    values = [part.value for part in (*parts[:-1], last) if isinstance(part, Number)]
    if half not in ("am", "pm", "") or len(values) != len(parts) or len(parts) > 3:
        return None
    hour, *rest = values
    is_hour = 1 <= hour <= 12 if half else 0 <= hour < 24
    if not is_hour or not all(0 <= value < 60 for value in rest):
        return None
    return Clock((*values, *[Fraction()] * (3 - len(values))), half)


def is_half_day(node: Node) -> bool:
    """Whether a node is a time of the morning or of the afternoon."""
    clock = read_clock(node)
    return clock is not None and clock.half != ""


def same_clock(a: Node, b: Node) -> bool:
    """Compares 12:30 with 12:30:00."""
    first, second = read_clock(a), read_clock(b)
    return first is not None and first == second


def same_time(a: Node, b: Node, strict: bool) -> bool:
    """Compares 3:30 pm with 15:30 and, as with units left out, with 3:30 (both unless `strict`)."""
    first, second = read_clock(a), read_clock(b)
    if first is None or second is None:
        return False
    if first.half and second.half:
        return first == second
    timed, other = (first, second) if first.half else (second, first)
    return not strict and other.time in (timed.time, timed.of_day)
