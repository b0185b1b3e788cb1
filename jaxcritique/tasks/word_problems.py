"""The laptop task: generated word problems in English with rationales in GSM8K's format.

A story starts with a number of things and changes it by one to five operations; the number of
operations is the level. Everything is a pure function of (split, count, seed, weights). Whether
the values of a story belong to train or test is decided by their hash, so no test problem's
operations and numbers ever occur in training, whatever the seeds.
"""

import dataclasses
import hashlib
import random
from collections.abc import Sequence

from jaxcritique.records import Problem, digest
from jaxcritique.tasks.task import GeneratedTask, Split, register

LEVELS = (1, 2, 3, 4, 5)
_LARGEST = 200  # No value in a story or its solution is larger.
_TEST_SHARE = 8  # One story in so many is a test story.

_NAMES = (
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack",
    "Kate", "Liam", "Maria", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor",
)  # fmt: skip
_ITEMS = (
    "apples", "books", "cards", "coins", "cookies", "eggs", "flowers", "marbles",
    "muffins", "pencils", "plums", "shells", "stamps", "stickers", "stones", "toys",
)  # fmt: skip

_STARTS = ("{name} has {a} {items}.", "{name} starts with {a} {items}.")
_QUESTIONS = (
    "How many {items} does {name} have now?",
    "How many {items} does {name} have in the end?",
)
_EVENTS = {
    "+": (
        "{name} buys {b} more {items}.",
        "{name} finds {b} {items}.",
        "{friend} gives {name} {b} {items}.",
    ),
    "-": (
        "{name} gives {b} {items} to {friend}.",
        "{name} loses {b} {items}.",
        "{name} sells {b} {items}.",
    ),
    "*": (
        "A week later {name} has {b} times as many {items}.",
        "{name} trades until there are {b} times as many {items}.",
    ),
    "/": (
        "{name} shares the {items} equally among {b} friends and takes one share back.",
        "{name} puts the {items} into {b} equal piles and keeps one pile.",
    ),
}
_GROUP_EVENTS = {
    "+": (
        "{name} buys {b} boxes with {c} {items} each.",
        "{friend} brings {name} {b} bags of {c} {items}.",
    ),
    "-": (
        "{name} sells {b} boxes with {c} {items} each.",
        "{name} gives {friend} {b} bags of {c} {items}.",
    ),
}
_GROWS = ("{name} now has {eq} {items}.", "That makes {eq} {items}.", "Now there are {eq} {items}.")
_SHRINKS = (
    "{name} now has {eq} {items}.",
    "That leaves {eq} {items}.",
    "Now there are {eq} {items}.",
)
_STEPS = {
    "+": _GROWS,
    "-": _SHRINKS,
    "*": _GROWS,
    "/": _SHRINKS,
    "group": ("These are {eq} {items}.", "Together they hold {eq} {items}."),
}


@dataclasses.dataclass(frozen=True)
class _Event:
    """One change: `op` by `b`, or by b groups of c, which takes a second operation."""

    op: str  # "+", "-", "*" or "/".
    b: int
    c: int | None = None


def generate(
    split: Split, count: int, seed: int, level_weights: Sequence[float] = (1, 1, 1, 1, 1)
) -> list[Problem]:
    """Returns `count` different problems.

    Args:
      split: "train" or "test"; their stories share no values.
      count: how many.
      seed: other seeds give other problems; the same seed the same.
      level_weights: how often levels 1 to 5 are drawn, relative to one another.

    Raises:
      ValueError: the split is unknown, or there are not `count` different problems.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    rng = random.Random(f"word_problems/{split}/{seed}")
    problems: dict[str, Problem] = {}
    for _ in range(100 * count + 100):
        if len(problems) == count:
            break
        level = rng.choices(LEVELS, level_weights)[0]
        start, events = _story(rng, level)
        if _split_of(start, events) == split:
            problem = _tell(rng, level, start, events)
            problems.setdefault(problem.question, problem)
    if len(problems) < count:
        raise ValueError(f"there are fewer than {count} different {split} problems to be had")
    return list(problems.values())


def _split_of(start: int, events: Sequence[_Event]) -> str:
    values = repr([start, *(dataclasses.astuple(event) for event in events)])
    is_test = int(hashlib.sha256(values.encode()).hexdigest(), 16) % _TEST_SHARE == 0
    return "test" if is_test else "train"


def _story(rng: random.Random, level: int) -> tuple[int, list[_Event]]:
    start = value = rng.randint(3, 60)
    events: list[_Event] = []
    operations = 0
    while operations < level:
        in_groups = operations + 2 <= level and rng.random() < 0.3
        event = _group_event(rng, value) if in_groups else _single_event(rng, value)
        if event is None:
            continue
        amount = event.b * (event.c or 1)
        value = _result(value, event.op, amount)
        events.append(event)
        operations += 2 if in_groups else 1
    return start, events


def _result(left: int, op: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[op]


def _group_event(rng: random.Random, value: int) -> _Event | None:
    b, c = rng.randint(2, 6), rng.randint(2, 9)
    if value > b * c and rng.random() < 0.5:
        return _Event("-", b, c)
    return _Event("+", b, c) if value + b * c <= _LARGEST else None


def _single_event(rng: random.Random, value: int) -> _Event | None:
    """Draws an operation and an amount that keep the value between 1 and _LARGEST, if it can."""
    op = rng.choices("+-*/", (3, 3, 2, 2))[0]
    if op == "/":
        divisors = [b for b in (2, 3, 4, 5) if value % b == 0 and value > b]
        return _Event("/", rng.choice(divisors)) if divisors else None
    most = min({"+": (50, _LARGEST - value), "-": (50, value - 1), "*": (4, _LARGEST // value)}[op])
    return _Event(op, rng.randint(2, most)) if most >= 2 else None


def _tell(rng: random.Random, level: int, start: int, events: Sequence[_Event]) -> Problem:
    name, friend = rng.sample(_NAMES, 2)
    words = {"name": name, "friend": friend, "items": rng.choice(_ITEMS)}
    sentences = [rng.choice(_STARTS).format(a=start, **words)]
    lines = []
    value = start

    def step(kind: str, left: int, op: str, right: int) -> int:
        result = _result(left, op, right)
        equation = f"<<{left}{op}{right}={result}>>{result}"
        lines.append(rng.choice(_STEPS[kind]).format(eq=equation, **words))
        return result

    for event in events:
        templates = _EVENTS if event.c is None else _GROUP_EVENTS
        sentences.append(rng.choice(templates[event.op]).format(b=event.b, c=event.c, **words))
        amount = event.b if event.c is None else step("group", event.b, "*", event.c)
        value = step(event.op, value, event.op, amount)
    sentences.append(rng.choice(_QUESTIONS).format(**words))
    lines.append(f"The answer is {value}.")
    question = " ".join(sentences)
    return Problem(
        id=f"word_problems-{digest(question)}",
        question=question,
        answer=str(value),
        rationale="\n".join(lines),
        task="word_problems",
        level=level,
    )


register(
    GeneratedTask(
        name="word_problems",
        licence="apache-2.0",
        checkable=True,
        one_plan=True,
        generate=generate,
    )
)
