r"""Finds the final answer in a solution.

In order of precedence: the last box, `#### N` or announced final answer, or a later line that
begins with "The answer is N"; then "the answer is", "A:" or "Answer:"; and, flagged as a fallback,
the whole text if it is an expression, else its last formula or number.

What is not read: thoughts (`<think>`), closed or not; what follows the end of the turn; a second
question that the model asks itself after its answer; a box that is empty because it repeats the
instruction. Of an announced sentence the value counts that it begins with: "72, with 8 left over".
"""

import collections
import dataclasses
import itertools
import re
import unicodedata

from jaxcritique.grading.characters import RANGE, spelled
from jaxcritique.grading.normalize import HEDGE, choice, clean, strip_ends
from jaxcritique.grading.parser import ParseError, parse
from jaxcritique.grading.tokens import FUNCTIONS
from jaxcritique.grading.units import unit_of

MAX_TEXT = 100_000  # Characters read from the end of a solution.
MAX_SIGNS = 20  # The last boxes, cues and formulas of a solution that are looked at.
MAX_BOX = 4000  # Characters in which a box must close.
MAX_CLAUSE = 1000  # Characters after a cue in which the answer must stand.
MAX_WORDS = 20  # In a formula without dollar signs.
MAX_UNIT_WORDS = 3  # After a formula without dollar signs.
MAX_TAIL = 4000  # Characters in which the fallback looks.

_THOUGHT = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?)"
_THOUGHT_END = re.compile(
    rf"</{_THOUGHT}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
_THOUGHT_START = re.compile(
    rf"<{_THOUGHT}>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|channel\|>analysis<\|message\|>",
    re.IGNORECASE,
)
# What ends a model's turn or begins another: <|im_end|>, <｜User｜>, </s>, <end_of_turn>, [INST].
_TURN = re.compile(
    r"<[|｜](?!(?:begin|end)_of_solution)[^<>|｜\s]{1,40}[|｜]>|\[\|[a-z]{1,20}\|\]|\[/?INST\]"
    r"|</?s>|<(?:eos|bos|pad|eot|eod|(?:start|end)_of_turn|end_of_text|endoftext|extra_id_[0-9]+)>",
    re.IGNORECASE,
)
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
# A question that follows an answer was made up by the model.
_QUESTION = re.compile(
    r"(?:Question|Problem|Exercise|Instruction|Input|User|Human|Student|Q|问题|题目)"
    r"[ \t]*[0-9]{0,4}[*]*(?:[:.)][*]*\s|[ \t]*$)",
    re.MULTILINE,
)
_HEADING = re.compile(r"[ \t#*>-]*(?:(?:Next|New)[ \t]+)?")
_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)\s*(?=\{|[0-9A-Za-z])")
_EMPTY = re.compile(
    r"(?:[\s.…_?$~]|\\[,;:! ]|\\[lc]?dots|\\q?quad|\{\}"
    r"|(?:\\text\s*\{)?\s*(?:the|your|my)?\s*(?:final\s+)?answer(?:\s+here)?\s*\}?)*",
    re.IGNORECASE,
)
# Before a box: the model says where its answer is to go.
_PLACES = re.compile(
    r"\b(?:in|into|inside|within|with|using|use|like|as|the|a|an)\s*[$`'\"(\\]*$", re.IGNORECASE
)
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
_VALUE = re.compile(r"[-+$.(\[{\\]{0,8}[0-9]|[$\\]")  # How a number or a formula begins.
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
_BLANK = re.compile(r"\s+")
_EMPHASIS = re.compile(r"(?<=\S)(?<!\s)\*\*(?=[\s.,;:!?)—-]|$)|(?:(?<=\s)|^)\*\*(?=\S)")
_ADVERBS = re.compile(
    r"(?:(?:about|approximately|around|roughly|exactly|precisely|only|just|simply|nearly|almost|now|then"
    r"|also|still|therefore|thus|hence|equal to|a total of|either|from)\s+)+",
    re.IGNORECASE,
)
# How an answer begins: with a number, a formula, or the name of a value (`x = 5`).
_BEGINS = re.compile(
    r"[-+−$.(\[{|\s]{0,8}[0-9]|[-+(]?[$\\]|[-+]?[A-Za-z]\w{0,2}(?:\([A-Za-z0-9]\))?\s*=|[A-Za-z]\s*[-+*/^]"
)
_COMPARES = re.compile(
    r"\b(?:more|less|fewer|left|extra|short|each|apiece|remaining|higher|lower)\b"
)
_EQUALS = re.compile(r"(?<![<>!=])=(?!=)")
_CALCULATES = re.compile(r"[0-9)}]\s+(?:times|plus|minus|multiplied|divided)\b")
# Where a remark or another item may begin; "72: 80 - 8" and "18 - she sold 3" are never lists.
_PART_START = re.compile(
    r"\s*[,;](?=\s)|(?<=\S):(?=\s)|\s*:(?=\s+[A-Za-z]{2})|\s*—|\s+-{1,3}\s+(?=[A-Za-z]{3})|\s+\((?!mod\b)"
)
_SEPARATOR = re.compile(r"(?:\s*[,;]\s*)?(?:(?:and|or)\s+)?\s*")
_ARITHMETIC_ASIDE = re.compile(r"\((?:[-+*/=.,0-9xX\s]|\\times|\\cdot)*\)")
_SHORT_WORD = re.compile(r"\s([A-Za-z]{2,3})$")
_LAST_WORD = re.compile(r"[A-Za-z]{2,}(?=\.?$)")
# "17, not 18": what is not the answer.
_CONTRAST = re.compile(
    r",?\s+(?:and\s+|but\s+)?(?:not|rather than|instead of)\s+[$*]{0,3}[0-9][0-9,.]*(?<![.,])"
)
_BOUND = re.compile(
    rf"(?:{HEDGE}|\bbetween\s+\S{{1,20}}\s+and\s+|[0-9$]\S{{0,20}}(?:\s[a-z]{{1,20}})?\s+or\s+"
    r"|(?:(?<![<>=-])[<>]=?|\\(?:[lg]eq?(?:slant)?|neq?|[lg]t)(?![a-z])))[\s$*(]*$",
    re.IGNORECASE,
)
_AMOUNT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:[.,][0-9]+)?|\.[0-9]+)"
_SIGNED = r"(?:(?<![0-9A-Za-z)}\]])[-+])?\$?" + _AMOUNT
# Atomic and without commas: otherwise a list could match in exponentially many ways.
_POWER = (
    r"(?:_\{?[0-9]{1,2}\}?|\^(?:\{-?[0-9]{1,4}\}|-?[0-9]{1,4})|[eE][-+]?[0-9]{1,3}(?![0-9A-Za-z]))?"
)
_SCALE = r"(?:\s?(?:[xX*]|\\times|\\cdot)\s{0,2}10\^(?:\{-?[0-9]{1,3}\}|-?[0-9]{1,3}))?"
_ITEM = r"(?>[-+−]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:/[0-9]+)?)"
_PLAIN = re.compile(
    rf"[(\[]\s*{_ITEM}(?:\s*[,;]\s*{_ITEM})+\s*[)\]]"
    r"|(?<![0-9:.])[0-9]{1,6}(?::[0-9]{1,6})+(?![0-9:])(?:\s?[AaPp]\.?[Mm]\b)?"
    rf"|{_AMOUNT}{RANGE}{_AMOUNT}"
    rf"|(?<![A-Za-z0-9_.^/]){_SIGNED}\s[0-9]{{1,4}}/[0-9]{{1,4}}(?![0-9/])"
    rf"|(?<![A-Za-z0-9_.^])(?<![_^]\{{)(?<!\^\{{-){_SIGNED}{_POWER}(?:/{_AMOUNT})?{_SCALE}"
    r"(?:\s?(?:\\?%|percent|pct|\^\s?\{?\s?\\circ\b\s?\}?)|\sor\s(?:more|less|fewer)\b|\s(?:hundred|thousand|million|billion|trillion)\b)?"
    r"(?![A-Za-z0-9]*[0-9])"
)
_PART = re.compile(r"(?<!\w)\((?:[b-h]|i{1,3}|iv|v)\)|\b[b-h]\)")  # (b) \boxed{9}
_LISTING = re.compile(r"\b(?:and|or)\b|^[^A-Za-z]*$")
_PROSE_WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
_CONNECTIVES = frozenset({"and", "or"})
_WORDS_IN_MATHEMATICS = _CONNECTIVES | FUNCTIONS | frozenset({
    "percent", "pct", "pi", "sqrt", "degree", "degrees", "units", "inf", "million", "billion",
    "am", "pm", "a.m", "p.m", "square", "cubic", "times", "plus", "minus", "hundred", "thousand",
    "trillion",
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
    text = _said(text)
    announced = _announced(_first_question(text))
    if announced is not None:
        return Extraction(announced)
    whole = _FORMULA.fullmatch(text.strip())
    if whole or _is_expression(text):
        return Extraction(strip_ends(text), fallback=True)
    last = _last_expression(text)
    return None if last is None else Extraction(last, fallback=True)


def _said(text: str) -> str:
    """Returns what a model says to its reader: no thoughts, no other turn, no denied answers."""
    end = collections.deque(_THOUGHT_END.finditer(text), maxlen=1)
    text = text[end[0].end() :] if end else text
    unclosed = _THOUGHT_START.search(text)
    text = text[: unclosed.start()] if unclosed else text
    text = next((part for part in _TURN.split(text[-MAX_TEXT:]) if part.strip()), "")
    text = _ANSWER_TAG.sub(lambda tag: "\n" if tag[1] else "\nFinal answer: ", text)
    return _DENIED.sub(" ", spelled(text))


def _first_question(text: str) -> str:
    """Returns the text before the first question that follows an announced answer."""
    for question in itertools.islice(filter(_is_question, _QUESTION.finditer(text)), MAX_SIGNS):
        if _announced(text[: question.start()]):
            return text[: question.start()]
    return text


def _is_question(match: re.Match[str]) -> bool:
    """Whether "Question:" begins a line or a sentence, or without its colon is a heading."""
    line = match.string[match.string.rfind("\n", 0, match.start()) + 1 : match.start()]
    if match[0].rstrip()[-1] not in ":.)*":
        return "#" in line and _HEADING.fullmatch(line) is not None
    inside = match[0].startswith(("Question", "Problem"))
    return (inside and line[-1:] in (" ", "\t", "*", "#")) or _HEADING.fullmatch(line) is not None


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
    boxes = [(match.start(), *_box(text, match.end())) for match in last]
    return [box for box in boxes if not _is_echo(text, *box)]


def _is_echo(text: str, start: int, end: int, content: str) -> bool:
    """Whether a box is empty since it repeats the instruction, or since others follow it."""
    if not _EMPTY.fullmatch(content):
        return False
    return bool(_PLACES.search(text[max(0, start - 40) : start]) or _BOX.search(text, end))


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
    contents, parts = [boxes[-1][2]], False
    for (_, end, content), (start, _, _) in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        between = text[end:start]
        labelled = _PART.search(between)
        between = _PART.sub(" ", between)
        listed = len(between) <= 40 and _LISTING.search(between)
        if not listed or _SENTENCE_BREAK.search(between):
            break
        parts |= labelled is not None
        if content not in contents or parts:
            contents.append(content)
    joined = ", ".join(reversed(contents))
    return f"({joined})" if parts else joined


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
    if choice(clause):
        return clause
    clause = _EMPHASIS.sub("", clause)
    value = _leading_value(_ADVERBS.sub("", clause, count=1))
    if value is not None or _is_expression(clause):
        return value or clause
    if any(sign.isdigit() or sign in "$\\" for sign in clause):
        return _last_expression(clause)
    words = [word for word in clause.split() if word not in _CONNECTIVES]
    return clause if len(words) <= 2 and clause[0].isalnum() else None


def _leading_value(clause: str) -> str | None:
    """Returns the value that a clause begins with and those listed with it, without what is said.

    "72, with 8 left over" gives 72, "1, 2 and 3" all three; a calculation, what it comes to.
    """
    parts = _parts(clause)
    first = parts[0]
    if not _is_expression(first):
        calculation = _EQUALS.split(first)
        if len(calculation) > 1 and not _VALUE.match(first[: first.rfind("=")]):
            return _leading_value(calculation[-1].strip())
    if not _BEGINS.match(first):
        return None
    value = _longest_expression(first)
    if value is None or value != first:
        return None if _CALCULATES.search(first) else value
    end = len(first)
    for part in parts[1:]:
        item = _SEPARATOR.sub("", part, count=1)
        restated = "or" in part[: len(part) - len(item)] and _other_unit(item)
        if restated or _ARITHMETIC_ASIDE.fullmatch(item) or not _is_listed(item):
            break
        end += len(part)
    return clause[:end]


def _parts(clause: str) -> list[str]:
    """Splits a clause before the commas, dashes and brackets that are outside of formulas."""
    # "$72, or $8 a person" are two prices.
    found = _FORMULA.finditer(clause)
    formulas = [match.span() for match in found if _is_expression(match[0])]
    starts = [0]
    depth, position = 0, 0
    for mark in _PART_START.finditer(clause):
        between = clause[position : mark.start()]
        depth += sum(map(between.count, "([{")) - sum(map(between.count, ")]}"))
        position = mark.start()
        if depth == 0 and not any(start < position < end for start, end in formulas):
            starts.append(position)
    return [clause[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _longest_expression(text: str) -> str | None:
    """Returns the longest run of words from the start of a text that is an expression.

    It does not end with a short word, which would be read as variables: "72 out" of 80.
    """
    ends = [match.start() for match in _BLANK.finditer(text)][:MAX_WORDS]
    for end in (len(text), *reversed(ends)):
        word = _SHORT_WORD.search(text, 0, end)
        if not (word and _is_prose(word[1])) and _is_expression(text[:end]):
            return text[:end]
    return None


def _is_listed(item: str) -> bool:
    """Whether what follows a comma is another answer, and not a remark on the first."""
    remark = _COMPARES.search(item)
    return remark is None and _BEGINS.match(item) is not None and _is_expression(item)


def _other_unit(item: str) -> bool:
    """Whether an answer is in a unit that says it once more: `or 6 dozen`, `or 1.5 hours`."""
    word = _LAST_WORD.search(item)
    return word is not None and (unit_of(word[0]) is not None or word[0].startswith("dozen"))


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
    """Returns the last formula or number, ignoring an unfinished formula.

    With it go the words that make it a bound: "more than 18".
    """
    tail = _CONTRAST.sub(" ", _finished(text[-MAX_TAIL:]))
    found, end = None, 0
    for match in reversed(collections.deque(_FORMULA.finditer(tail), maxlen=MAX_SIGNS)):
        content = next(group for group in match.groups() if group is not None)
        if _is_expression(content):
            found, end = _bound(tail, match.start()) + content.strip(), match.end()
            break
    last = collections.deque(_PLAIN.finditer(tail, end), maxlen=1)
    if not last:
        return found
    if not _is_whole(tail, last[0]):
        return None
    start, number = _around(tail, last[0]) or (last[0].start(), last[0][0].strip())
    return _bound(tail, start) + number


def _is_whole(text: str, match: re.Match[str]) -> bool:
    """Whether a number ends where it seems to: neither in 5①, nor before an unread exponent."""
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    foreign = {unicodedata.category(sign or " ") for sign in (before, after)}
    return foreign.isdisjoint({"No", "Nl"}) and after not in (RANGE, "^", "_")


def _bound(text: str, start: int) -> str:
    """Returns the words before position `start` that make a number a bound, "" without any."""
    before = _BOUND.search(text[max(0, start - 60) : start])
    return before[0] if before else ""


def _around(text: str, match: re.Match[str]) -> tuple[int, str] | None:
    """Returns the formula around a number, as `x = \\frac{1}{2}`, and its start."""
    start = text.rfind("\n", 0, match.start()) + 1
    end = _SENTENCE_END.search(text, match.end())
    sentence = text[start : end.start() if end else None]
    starts = [start, *(start + blank.end() for blank in _BLANK.finditer(sentence))]
    starts = [position for position in starts if position <= match.start()][-MAX_WORDS:]
    rest = text[match.end() : start + len(sentence)].partition("$")[0]
    ends = [match.end() + blank.start() for blank in _BLANK.finditer(rest)][:MAX_UNIT_WORDS]
    for first in starts:
        for last in (start + len(sentence), *reversed(ends)):
            candidate = strip_ends(text[first:last])
            if "\\" in candidate and _is_expression(candidate):
                return first, candidate
    return None


def _finished(text: str) -> str:
    """Drops the last line if it ends inside braces, as in truncated text."""
    text = text.rstrip()
    before, _, line = text.rpartition("\n")
    depth = 0
    for brace in _BRACE.findall(line):
        depth = depth + 1 if brace == "{" else max(depth - 1, 0) if brace == "}" else depth
    return before if depth else text
