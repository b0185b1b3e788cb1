r"""Finds the final answer in a solution.

In order of precedence: the last box, `#### N` or announced final answer, or a later line that
begins with "The answer is N"; then "the answer is", "A:" or "Answer:"; and, flagged as a fallback,
the whole text if it is an expression, else its last formula or number.
"""

import collections
import dataclasses
import re

from jaxcritique.grading.normalize import choice, clean, strip_ends
from jaxcritique.grading.parser import ParseError, parse
from jaxcritique.grading.tokens import FUNCTIONS
from jaxcritique.grading.units import unit_of

MAX_TEXT = 100_000  # Characters read from the end of a solution.
MAX_SIGNS = 20  # The last boxes, cues and formulas of a solution that are looked at.
MAX_BOX = 4000  # Characters in which a box must close.
MAX_CLAUSE = 1000  # Characters after a cue in which the answer must stand.
MAX_WORDS = 20  # In a formula without dollar signs.
MAX_TAIL = 4000  # Characters in which the fallback looks.

_REASONING_END = "</think>"
_CHAT_TOKEN = re.compile(r"<\|(?:im_start|im_end|endoftext|end_of_text|eot_id)\|>|</s>")
_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)\s*(?=\{|[0-9A-Za-z])")
_FINAL = re.compile(
    r"####[ \t]*+(?![*#]{0,8}+(?:answer|case|conclusion|final|method|part|solution|step|summary)\b)"
    r"|final[ \t]+answer(?:[\s*:']|\\(?![A-Za-z(\[{])){0,6}"
    r"(?:\b(?:the[ \t]+final[ \t]+answer[ \t]+)?is\b)?[ \t]*[:=]?",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"^[ \t*]*A(?:nswer)?[ \t*]*:[* \t]*"
    r"|\b(?:answers?|correct[ \t]+(?:option|choice))[ \t*]*(?:\b(?:is|are)\b|[:=])[ \t*]*:?",
    re.IGNORECASE | re.MULTILINE,
)
# Before "answer is" in a line that states an answer and nothing else.
_RESTATES = re.compile(
    r"[ \t*]*(?:(?:so|thus|hence|therefore),?[ \t]+)?(?:the[ \t]+)?(?:(?:correct|right)[ \t]+)?",
    re.IGNORECASE,
)
_VALUE = re.compile(r"[-+−$£€.(\[{\\]{0,8}[0-9]|[$\\]")  # How a number or a formula begins.
# "The answer is not 18": what it denies, to the end of the sentence or of the thought.
_DENIED = re.compile(
    r"\banswers?[ \t*]+(?:is|are|was|were|can|could|should|will|would|does)"
    r"(?:n?['’]t\b|not\b|[ \t]+(?:\w{3,12}ly[ \t]+)?(?:not|never)\b)"
    r"(?:(?!\.(?:\s|$)|\n|[,;:]\s|\b(?:but|instead|rather)\b).){0,200}",
    re.IGNORECASE,
)
# What is added to an answer: "18, not 20", "18, because 3 * 6 = 18", "5 (five)".
_ASIDE = re.compile(
    r",?\s+(?:(?:and\s+|but\s+)?not|rather than|instead of|because|since)\b|,\s+(?:which|so)\b"
    r"|(?<=[0-9])\s+\((?!mod)[a-z]{3}[^()]*\)$",
    re.IGNORECASE,
)
_LAYOUT = re.compile(r"\A(?:[\s:*\"'`]|\\(?![A-Za-z(\[{]))+")
_BRACE = re.compile(r"\\.|[{}]")
_WORDS = re.compile(r"\\(?:text[a-z]*|mbox)\{[^{}]{1,100}\}")
_SENTENCE_END = re.compile(r"\.(?=\s|$)|\n|[!?](?=\s+[A-Z]|$)|(?<=[0-9$)])\.(?=[A-Z])")
_SENTENCE_BREAK = re.compile(r"\.\s|\n\n")
# No formula is longer than 1,000 characters. Without a bound, each opening that never closes
# would cost a search to the end of the text.
_DISPLAY = re.compile(r"\s*(?:\\\[(.{1,1000}?)\\\]|\$\$(.{1,1000}?)\$\$)", re.DOTALL)
_FORMULA = re.compile(
    r"\$\$(?P<a>[^$]{1,1000})\$\$|(?<!\\)\$(?P<b>(?:\\.|[^$\n\\]){1,1000})\$"
    r"|\\\((?P<c>(?:(?!\\\)).){1,1000})\\\)|\\\[(?P<d>(?:(?!\\\]).){1,1000})\\\]",
    re.DOTALL,
)
_AMOUNT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:[.,][0-9]+)?|\.[0-9]+)"
_SIGNED = r"(?:(?<![0-9A-Za-z)}\]])[-+−])?[$€£]?" + _AMOUNT
# Atomic and without commas: otherwise a list could match in exponentially many ways.
_ITEM = r"(?>[-+−]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:/[0-9]+)?)"
_PLAIN = re.compile(
    rf"[(\[]\s*{_ITEM}(?:\s*[,;]\s*{_ITEM})+\s*[)\]]"
    r"|(?<![0-9:.])[0-9]{1,2}:[0-9]{2}(?![0-9:])(?:\s?[AaPp]\.?[Mm]\b)?"
    rf"|(?<![A-Za-z0-9_.^]){_SIGNED}(?:/{_AMOUNT})?(?:\s?(?:\\?%|percent|pct))?(?![A-Za-z0-9]*[0-9])"
)
_LISTING = re.compile(r"\b(?:and|or)\b|^[^A-Za-z]*$")
_PROSE_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
_CONNECTIVES = frozenset({"and", "or"})
_WORDS_IN_MATHEMATICS = _CONNECTIVES | FUNCTIONS | frozenset({
    "percent", "pct", "pi", "sqrt", "degree", "degrees", "units", "inf", "million", "billion",
    "am", "pm", "a.m", "p.m", "square", "cubic",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Extraction:
    """The text of a final answer; `fallback` if nothing in the solution announces it."""

    text: str
    fallback: bool = False


def extract_answer(text: str) -> Extraction | None:
    """Returns the final answer of a solution, None if it has none.

    Only what follows the last `</think>` and precedes the next chat token is read.
    """
    text = text[-MAX_TEXT:].rpartition(_REASONING_END)[2]
    text = next((part for part in _CHAT_TOKEN.split(text) if part.strip()), "")
    text = _DENIED.sub(" ", text)
    announced = _announced(text)
    if announced is not None:
        return Extraction(announced)
    whole = _FORMULA.fullmatch(text.strip())
    if whole or _is_expression(text):
        return Extraction(strip_ends(text), fallback=True)
    last = _last_expression(text)
    return None if last is None else Extraction(last, fallback=True)


def _announced(text: str) -> str | None:
    boxes = _boxes(text)
    finals = [match.end() for match in _FINAL.finditer(text)]
    if boxes or finals:
        # A model that finds its boxed answer wrong may state the right one in plain words.
        sign = max(boxes[-1][1] if boxes else 0, finals[-1] if finals else 0)
        restated = _restated(text, sign)
        if restated is not None:
            return restated
    if finals and (not boxes or finals[-1] > boxes[-1][1]):
        answer = _clause(text, finals[-1])
        if answer is not None:
            return answer
    if boxes:
        return _joined(text, boxes)
    for match in reversed(collections.deque(_ANSWER.finditer(text), maxlen=MAX_SIGNS)):
        answer = _clause(text, match.end())
        if answer is not None:
            return answer
    return None


def _restated(text: str, after: int) -> str | None:
    """Returns the answer of the last line after position `after` that begins by stating one."""
    for match in reversed(collections.deque(_ANSWER.finditer(text, after), maxlen=MAX_SIGNS)):
        line = max(text.rfind("\n", 0, match.start()) + 1, after)
        if line == after or not _RESTATES.fullmatch(text, line, match.start()):
            continue
        if not re.search(r"\b(?:is|are)\b", match[0], re.IGNORECASE):
            continue  # "Answer:" may belong to another question that the model continued with.
        answer = _clause(text, match.end())
        said = _LAYOUT.sub("", text[match.end() : match.end() + MAX_CLAUSE], count=1)
        if answer and said.startswith(answer) and _VALUE.match(answer):
            return answer
    return None


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Returns (start, end, content) of the last boxes; one that never closes ends with its line."""
    last = collections.deque(_BOX.finditer(text), maxlen=MAX_SIGNS)
    return [(match.start(), *_box(text, match.end())) for match in last]


def _box(text: str, start: int) -> tuple[int, str]:
    if text[start] != "{":
        return start + 1, text[start]
    depth = 0
    for brace in _BRACE.finditer(text, start, start + MAX_BOX):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if depth == 0:
            return brace.end(), text[start + 1 : brace.start()]
    line = text[start + 1 : start + MAX_BOX].split("\n", 1)[0]
    return start + 1 + len(line), line


def _joined(text: str, boxes: list[tuple[int, int, str]]) -> str:
    """Returns the last box, with those before it that are listed together with it."""
    contents = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        between = text[end:start]
        listed = len(between) <= 40 and _LISTING.search(between)
        if not listed or _SENTENCE_BREAK.search(between):
            break
        if content not in contents:
            contents.append(content)
    return ", ".join(reversed(contents))


def _clause(text: str, start: int) -> str | None:
    """Returns the answer in the words after a cue, None if they hold none."""
    display = _DISPLAY.match(text, start)
    if display:
        return strip_ends(display[1] or display[2])
    rest = _LAYOUT.sub("", text[start : start + MAX_CLAUSE], count=1)
    end = _SENTENCE_END.search(rest)
    clause = strip_ends(rest[: end.start()] if end else rest)
    if _FORMULA.fullmatch(clause) or _WORDS.fullmatch(clause):
        return clause
    aside = _ASIDE.search(clause)
    clause = strip_ends(clause[: aside.start()] if aside else clause)
    if not clause:
        return None
    boxes = _boxes(clause)
    if boxes:
        return boxes[-1][2]
    if choice(clause) or _is_expression(clause):
        return clause
    if any(sign.isdigit() or sign in "$\\" for sign in clause):
        return _last_expression(clause)
    words = [word for word in clause.split() if word not in _CONNECTIVES]
    return clause if len(words) <= 2 and clause[0].isalnum() else None


def _is_expression(text: str) -> bool:
    """Whether the whole text is one formula, perhaps with a unit, and no sentence."""
    if len(text) > 400:
        return False
    words = [match for match in _PROSE_WORD.finditer(text) if _is_prose(match[0])]
    # One word may follow a number, as its unit; words before it make a sentence.
    if len(words) > 1 or (words and not any(sign.isdigit() for sign in text[: words[0].start()])):
        return False
    try:
        parse(clean(text))
    except ParseError:
        return False
    return True


def _is_prose(word: str) -> bool:
    return word not in _WORDS_IN_MATHEMATICS and unit_of(word) is None


def _last_expression(text: str) -> str | None:
    """Returns the last formula or number, ignoring an unfinished formula."""
    tail = _finished(text[-MAX_TAIL:])
    found, end = None, 0
    for match in reversed(collections.deque(_FORMULA.finditer(tail), maxlen=MAX_SIGNS)):
        content = next(group for group in match.groups() if group is not None)
        if _is_expression(content):
            found, end = content.strip(), match.end()
            break
    last = collections.deque(_PLAIN.finditer(tail, end), maxlen=1)
    if not last:
        return found
    return _around(tail, last[0]) or last[0][0].strip()


def _around(text: str, match: re.Match[str]) -> str | None:
    """Returns the formula that ends with a number: `x = \\frac{1}{2}` of `so x = \\frac{1}{2}.`."""
    start = text.rfind("\n", 0, match.start()) + 1
    end = _SENTENCE_END.search(text, match.end())
    words = strip_ends(text[start : end.start() if end else None]).split(" ")
    for first in range(max(0, len(words) - MAX_WORDS), len(words)):
        candidate = " ".join(words[first:])
        if "\\" not in candidate:
            return None
        if _is_expression(candidate):
            return candidate
    return None


def _finished(text: str) -> str:
    """Drops the last line if it ends inside braces, as in truncated text."""
    text = text.rstrip()
    before, _, line = text.rpartition("\n")
    depth = 0
    for brace in _BRACE.findall(line):
        depth = depth + 1 if brace == "{" else max(depth - 1, 0) if brace == "}" else depth
    return before if depth else text
