"""Programs that rewrite an answer into an equal one, and into one that is nearly equal."""

import re
from collections.abc import Iterator
from fractions import Fraction

_FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")
_NAMED = re.compile(r"[=<>:]|\\(?:le|ge|in|text|mbox|pm|ne)|[A-Za-z]{2}(?<!pi)\b|_")


def rewritings(answer: str) -> Iterator[str]:
    """Yields equal forms of an answer: up to 24, by the kind of answer."""
    yield f" {answer} "
    yield f"${answer}$"
    yield f"\\({answer}\\)"
    yield answer + "."
    yield f"$${answer}$$."
    yield "\\displaystyle " + answer
    yield f"\\boxed{{{answer}}}"
    yield answer.replace("\\frac", "\\dfrac")
    yield answer.replace("\\frac", "\\tfrac")
    yield answer.replace("\\frac", "\\cfrac")
    yield answer.replace("(", "\\left(").replace(")", "\\right)")
    yield answer.replace("(", "\\big(").replace(")", "\\big)")
    yield answer.replace("+", " + ").replace("=", " = ")
    yield answer.replace(", ", ",\\ ").replace("+", "\\,+\\,")
    yield re.sub(r"(?<![A-Za-z0-9\\]) +| +(?![A-Za-z0-9])", "", answer)
    yield re.sub(r"(?<!\\)([{}])", r" \1 ", answer)
    yield answer.replace("pmatrix", "bmatrix")
    yield answer.replace("-", "−").replace("\\pi", "π")
    # After a digit a fraction is part of a mixed number, after a function part of its argument.
    if not re.search(r"(?:\d|\\(?:sec|sin|cos|tan))\s*\\[dt]?frac", answer):
        yield _FRACTION.sub(r"(\1/\2)", answer)
        yield _FRACTION.sub(_decimal, answer)
    if is_list(answer):
        yield ",".join(reversed(answer.split(",")))
        yield "\\{" + answer + "\\}"
    if is_expression(answer):
        yield f"\\left({answer}\\right)"
        yield f"0 + {answer}"
        yield f"2 \\cdot ({answer}) - ({answer})"
        yield f"\\frac{{3({answer})}}{{3}}"


def near_misses(answer: str) -> Iterator[str]:
    """Yields answers that differ from `answer` in one small thing."""
    answer = answer.strip(" .")
    if "=" in answer and "%" in answer:
        return  # One number said twice; a change in one half leaves the other right.
    number = re.search(r"(?<![\d_{,])\d{1,9}(?![\d}]*_)", answer)
    if number:
        yield answer[: number.start()] + str(int(number[0]) + 1) + answer[number.end() :]
    if is_expression(answer) and answer != "0":
        yield f"-({answer})"
        yield f"{answer} + 1"
        yield f"2({answer})"
    if re.search(r"[0-9})]\s*\\pi$", answer):
        yield answer.removesuffix("\\pi")
    pair = re.fullmatch(r"\(([^(),]+),([^(),]+)\)", answer)
    if pair and pair[1].strip() != pair[2].strip():
        yield f"({pair[2]},{pair[1]})"
    interval = re.fullmatch(r"([(\[])([^(),]+),([^(),]+)([)\]])", answer)
    if interval and "[" in answer + "]":
        opening, low, high, closing = interval.groups()
        if "infty" not in low:
            yield f"{'(' if opening == '[' else '['}{low},{high}{closing}"
        if "infty" not in high:
            yield f"{opening}{low},{high}{')' if closing == ']' else ']'}"


def is_list(answer: str) -> bool:
    """Whether an answer is a bare list of formulas."""
    return "," in answer and not re.search(r"[(\[=]|\\\{|text|\d,\d{3}|\{,\}|,\\!|mat", answer)


def is_expression(answer: str) -> bool:
    """Whether an answer is one expression that can be a part of a larger one."""
    return not re.search(
        r"[,\[%$!:]|\.$|\.\}|\\(?:text|mbox|begin|infty|cup|circ|mathrm)", answer
    ) and not (
        _NAMED.search(re.sub(r"\\[a-z]+", lambda match: match[0] + " ", answer).replace("\\", ""))
    )


def _decimal(match: re.Match[str]) -> str:
    value = Fraction(int(match[1]), int(match[2]))
    for places in range(1, 7):
        scaled = value * 10**places
        if scaled.denominator == 1:
            return f"({float(value)})"
    return match[0]
