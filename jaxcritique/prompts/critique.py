"""The format of a critique: writing one from its parts, and reading what a model wrote.

    Step 1: Tom now has 28 apples.
    Explanation: 12+15=27, not 28.
    Correctness: Wrong
    Final answer: Wrong

The explanation stands before the verdict: a model that must first work the step out judges far
better than one that must judge first (docs/log.md). The reader takes either order.
"""

import dataclasses
import re
from collections.abc import Sequence

_CALCULATION = re.compile(r"<<[^<>\n]*>>")
_ANSWER_LINE = re.compile(r"^\W*(?:####|(?:so |therefore,? )?the (?:final )?answer is\b)", re.I)

# Models also write blanks without end: where two repetitions could share them, the first is
# possessive (*+) or both are bounded, so that no pattern's time grows as their square.

# Labels as models write them: any mixture of bold marks, bullets and numbering around the word.
_OPEN = r"^[\W\d_]*"
# "Correct or Wrong" is the prompt repeated, not a verdict.
_ECHO = r"\W{0,9}(?:\bor\b|[/|])\W{0,9}(?:final answer\W{0,9})?(?:wrong|incorrect|inaccurate)\b"
_WORD = (
    rf"((?:correct|right|accurate)(?!{_ECHO})|wrong|incorrect|inaccurate"
    r"|not (?:entirely )?correct|partially correct)"
)
_VERDICT = rf"\b{_WORD}\b(.{{0,200}})"
_LABEL = r"(?:correctness|verdict|judge?ment|assessment|label|status)"
_FINAL = re.compile(
    rf"{_OPEN}(?:(?:{_LABEL} of )?(?:the )?(?:final|overall) (?:answer|verdict|solution)"
    rf"|overall {_LABEL}|overall|conclusion|(?:the )?(?:whole |entire )?solution)\W*"
    rf"(?:is\W*|(?:the )?(?:final answer|solution) is\W*)?{_VERDICT}",
    re.I,
)
_CORRECTNESS = re.compile(
    rf"{_OPEN}{_LABEL}(?: of (?:the|this) step)?\W*(?:is\W*)?{_VERDICT}",
    re.I,
)
_SENTENCE = re.compile(rf"{_OPEN}(?:this|the) step is\W*(?:is\W*)?{_VERDICT}", re.I)
_TAKEN_BACK = re.compile(
    r"[^.]*\bbut\b[^.]*\b(?:wrong|incorrect|not)\b|\W*\?\W*(?:no|not|wrong|incorrect)\b", re.I
)
_STEP = re.compile(
    r"^\W*(?:\d{1,4}[.)]\W*)?step(?:\s+sentence\b|\s*+#?\s*+(\d{1,4})\b|\s*(?=:))[\W_]*(.*)$", re.I
)
_STEP_VERDICT = re.compile(rf"^(?:is\W*)?{_WORD}\b\W*(?:$|[.:;,)*—–-]\s*)(.*)$", re.I)
_TRAILING_VERDICT = re.compile(rf"\s(?:[—–-]+>?|=>|→)\s*[*_]*{_WORD}\W*$", re.I)
_EXPLANATION = re.compile(rf"{_OPEN}(?:explanation|reason(?:ing)?|feedback)\W*[:：]\W*(.*)$", re.I)

# A label in the midst of a line begins a line of its own; its capital tells it from prose.
_PIECE = re.compile(
    r"[\W\d_]*.+?(?=\s[*_]*(?:Explanation|Correctness(?: of the step)?)[*_]*\s*:|$)"
)
# A label whose verdict stands on the next line.
_HANGING = re.compile(
    rf"^([^\w\n]*+(?:{_LABEL}(?: of the step)?|final answer)[^\w\n]*+)\n\s*+"
    rf"(?=[^\w\n]*+{_WORD}\b[^\S\n]*+(?:$|[^\w\s]))",
    re.I | re.M,
)


@dataclasses.dataclass(frozen=True)
class StepVerdict:
    """What is said of one step."""

    step: str
    explanation: str
    correct: bool


@dataclasses.dataclass(frozen=True)
class ReadStep:
    """What was read about one step of a critique."""

    number: int  # From 0: as the critique numbers it, or where it does not, by its place.
    explanation: str
    correct: bool | None  # None: the step is repeated, but not judged.


@dataclasses.dataclass(frozen=True)
class ParsedCritique:
    """What a critique's text says."""

    steps: tuple[ReadStep, ...]  # By number; where it stopped early, the first ones.
    says_correct: bool | None  # The verdict on the final answer; None: it cannot be parsed.
    remark: str = ""  # What explains that verdict where no step does.

    @property
    def first_error(self) -> int | None:
        """The first step called wrong, counted from 0."""
        return next((step.number for step in self.steps if step.correct is False), None)


def split_steps(solution: str) -> list[str]:
    """Returns the solution's steps: its non-empty lines but the one that states the answer."""
    lines = [line.strip() for line in solution.splitlines()]
    return [line for line in lines if line and not _ANSWER_LINE.match(line)]


def without_calculations(text: str) -> str:
    """Drops GSM8K's calculator marks, as the paper's critiques do when they repeat a step."""
    return _CALCULATION.sub("", text)


def render_critique(steps: Sequence[StepVerdict], says_correct: bool, remark: str = "") -> str:
    """Writes a critique; `remark` explains a final verdict that no single step explains.

    A step without an explanation gets no line for it.
    """
    explanation = f"Explanation: {remark}\n" if remark else ""
    verdict = "Correct" if says_correct else "Wrong"
    return f"{render_steps(steps)}{explanation}Final answer: {verdict}"


def render_steps(steps: Sequence[StepVerdict]) -> str:
    """Writes a critique as far as it is about the steps, every line ended."""
    lines = []
    for number, verdict in enumerate(steps, start=1):
        lines.append(f"Step {number}: {without_calculations(verdict.step)}")
        if verdict.explanation:
            lines.append(f"Explanation: {verdict.explanation}")
        lines.append(f"Correctness: {'Correct' if verdict.correct else 'Wrong'}")
    return "".join(f"{line}\n" for line in lines)


def parse_critique(text: str) -> ParsedCritique:
    """Reads a critique in this project's format, the released data's, or what models make of them.

    Numbering, bold marks, missing lines and talk around the labels do no harm. A text without a
    final verdict still has one if a step is called wrong; otherwise `says_correct` is None, and
    the caller counts it as unparsable.
    """
    reader = _Reader()
    for line in _HANGING.sub(r"\1 ", "\n".join(text.splitlines())).splitlines():
        for piece in _PIECE.findall(line):
            reader.read(piece)
    steps = reader.finish()
    says_correct = reader.says_correct
    if says_correct is None and any(step.correct is False for step in steps):
        says_correct = False
    return ParsedCritique(steps, says_correct, reader.remark)


class _Reader:
    """Takes a critique line by line and keeps the step that is being spoken of."""

    def __init__(self) -> None:
        self.says_correct: bool | None = None
        self.remark = ""
        self._steps: dict[int, ReadStep] = {}
        self._number: int | None = None  # Of the step being read; None: none is.
        self._repeated = False  # Whether that step has a line of its own, and so one verdict.
        self._explanation: list[str] = []
        self._correct: bool | None = None
        self._labelled = False  # Whether the verdict stands on a line of its own.
        self._explaining = False
        self._second: list[str] | None = None  # A second explanation, after the verdict.

    def read(self, line: str) -> None:
        """Takes the next line."""
        if match := _FINAL.match(line):
            self._close(last=True)
            self.says_correct = _says_correct(match)
        elif match := _CORRECTNESS.match(line) or self._sentence(line):
            another = self._labelled and (not self._repeated or self._second is not None)
            if self._number is None or another:
                self._open(None)  # A verdict without the step repeated before it.
            self._correct = _says_correct(match)
            self._labelled, self._explaining = True, False
        elif match := _EXPLANATION.match(line):
            if self._labelled and self._explanation and self._second is None:
                self._second = []
            self._explain(match[1])
            self._explaining = True
        elif (match := _STEP.match(line)) and not self._is_said_of_another(match):
            self._open(int(match[1]) - 1 if match[1] and int(match[1]) else None)
            self._repeated = True
            if verdict := _STEP_VERDICT.match(match[2]):  # "Step 2: Wrong. It should ..."
                self._correct = _affirms(verdict[1], "")
                self._explanation.append(verdict[2])
                self._explaining = True
            elif verdict := _TRAILING_VERDICT.search(match[2]):  # "Step 2: ... - Wrong"
                self._correct = _affirms(verdict[1], "")
        elif self._explaining:
            self._explain(line)

    def finish(self) -> tuple[ReadStep, ...]:
        """Returns the steps, by number."""
        self._close(last=True)
        return tuple(self._steps[number] for number in sorted(self._steps))

    def _open(self, number: int | None) -> None:
        self._close()
        self._number = max(self._steps, default=-1) + 1 if number is None else number

    def _sentence(self, line: str) -> re.Match[str] | None:
        """A verdict without a label; after the verdict on a repeated step it is explanation."""
        return None if self._labelled and self._repeated else _SENTENCE.match(line)

    def _is_said_of_another(self, match: re.Match[str]) -> bool:
        """Whether "Step 1 gave 24, so ..." explains a later step, and does not open step 1."""
        known = self._steps.get(int(match[1]) - 1) if match[1] else None
        judged = known is not None and known.correct is not None
        return judged and self._explaining and self._correct is None

    def _explain(self, line: str) -> None:
        (self._explanation if self._second is None else self._second).append(line)

    def _close(self, last: bool = False) -> None:
        """Files the step just read; of two readings of a step the first with a verdict counts.

        What is explained after a last step that is right is not about that step: it is the remark.
        """
        if self._number is not None:
            second = self._second or []
            if last and self._correct:
                self.remark = _joined(second)
                second = []
            known = self._steps.get(self._number)
            if known is None or known.correct is None:
                words = _joined([*self._explanation, *second])
                self._steps[self._number] = ReadStep(self._number, words, self._correct)
        self._number, self._repeated, self._correct, self._labelled = None, False, None, False
        self._explanation, self._explaining, self._second = [], False, None


def _joined(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).replace("**", "").split())


def _says_correct(match: re.Match[str]) -> bool:
    return _affirms(match[1], match[2])


def _affirms(word: str, rest: str) -> bool:
    """Whether a verdict says correct.

    "Correct for the equation but wrong in context" does not, nor does "Correct? No".
    """
    return word.lower() in ("correct", "right", "accurate") and not _TAKEN_BACK.match(rest)
