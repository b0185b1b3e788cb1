"""Rewrites the many spellings of LaTeX and plain text into the one that the parser reads.

Everything here is linear text replacement on at most `MAX_ANSWER` characters.
"""

import re
import unicodedata

MAX_ANSWER = 2000  # Characters; no answer of GSM8K or MATH is a tenth as long.

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/",
    "∗": "*", "√": r"\sqrt ", "π": r"\pi ", "θ": r"\theta ", "∞": r"\infty ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "°": r"^\circ ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "′": "'", "’": "'", "\u00a0": " ", "\u202f": " ",
    "\u2009": " ", "²": "^2", "³": "^3", "¼": r"\frac14 ", "½": r"\frac12 ", "¾": r"\frac34 ",
    "€": "", "£": "", "¥": "",
}  # fmt: skip
_UNICODE_TABLE = str.maketrans(_UNICODE)

# Commands that only change how a formula looks.
_INVISIBLE = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|rm|bf|it|strut|phantom|!)"
    r"(?![A-Za-z])\.?"
)
_DELIMITERS = re.compile(r"\\?\$|(?<!\\)\\[()\[\]]")
_SPACE = re.compile(
    r"(?<!\\)\\(?:[,;: ]|(?:q?quad|enspace|thinspace|hspace\*?\{[^{}]*\})(?![a-z]))|~"
)
# A space that is only a thin gap between the digits of one number: 10\,000.
_DIGIT_GAP = re.compile(r"(?<=[0-9])\\[,;:!](?=[0-9]{3}(?![0-9]))")
_SAFE_THOUSANDS = re.compile(r"(?<=[0-9])(?: ?\{ ?, ?\}|,\\!)\s*(?=[0-9]{3})")
_SPACED_THOUSANDS = re.compile(r"(?<![0-9.,/] )(?<![0-9.,])[0-9]{1,3}(?: [0-9]{3})+(?![0-9.])")
_THOUSANDS = re.compile(r"(?<![0-9.,_^])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
_MIXED = re.compile(r"(?<![0-9./])([0-9]+) ([0-9]+)/([0-9]+)(?![0-9.])")
_SCIENTIFIC = re.compile(
    r"(?<![0-9A-Za-z.])([0-9]+(?:\.[0-9]*)?)[eE]([+-]?[0-9]{1,3})(?![0-9A-Za-z.])"
)
_LETTER_TIMES = re.compile(r"(?<=[0-9]) [xX] (?=10\^)")
_SPEED = re.compile(
    r"(?<=[0-9}$]) ?\b(km|mi|cm|ft|mm|(?<= )m|miles|feet|meters) ?/ ?(hr?|sec|s|min|hour|second)\b"
)
_ESCAPED_TWICE = re.compile(r"\\\\(?=[A-Za-z]{2})")
_DEGREE = re.compile(
    r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree(?:s)?(?![A-Za-z])|\\circ(?![A-Za-z])"
)
_TEMPERATURE = re.compile(r"°\s*(?:\\(?:text|mathrm)\s*\{\s*([FC])\s*\}|([FC])\b)")
_PERCENT = re.compile(r"\\?%|\b(?:percent(?:age)?|pct)\b")
_HALF_DAY = re.compile(r"\b([AaPp])\.\s?[Mm]\b\.?")
_CLOCK = re.compile(r"(:[0-9]{2}) ?([AP])M\b")
_ORDINAL = re.compile(
    r"(?<=[0-9])(?:\^?\{?\\(?:text|mathrm)\{(?:st|nd|rd|th)\}\}?|(?:st|nd|rd|th)\b)"
)
_CHOICE = re.compile(r"\(?([A-Z])\)")
_TEXT = re.compile(r"\\(?:text[a-z]*|mbox|mathrm|mathbf)\s*\{([^{}]*)\}")
# What follows the mark is the option's text: not another option, and not a connective.
_OPTION = re.compile(
    r"\(?([A-J])(?:[).:](?:\s+(?!(?:and|or|is|not)\b)(?!.*\b[A-J]\b)[\w$\\].*)?)?", re.DOTALL
)
_OPENING, _CLOSING = ("(", "[", r"\{"), (")", "]", r"\}")
_INFIX = re.compile(r"\{([^{}\\]{1,20})\\(choose|over)(?![a-z])([^{}\\]{1,20})\}")
_PREFIX = {"choose": "binom", "over": "frac"}
_EMPTY_ROOT = re.compile(r"\\sqrt\s*\{\s*\}")
_UNWRAP = re.compile(r"\\(?:boxed|fbox|ensuremath)\s*(?=\{)")

# A blank separates two letters (`\pi r`) or two digits, and `12, 345` is not 12,345; other blanks
# mean nothing.
_REDUNDANT = re.compile(
    r"(?<![0-9A-Za-z,])\s+|(?<=,)\s+(?!\s|[0-9]{3})|\s+(?![0-9A-Za-z])"
    r"|(?<=[A-Za-z])\s+(?=[0-9])|(?<=[0-9])\s+(?=[A-Za-z])"
)
_WORD = re.compile(
    r"(?:\\(?:text[a-z]*|mbox|hbox|emph|math(?:rm|bf|it|sf))\s*\{)?"
    r"\s*\(?([A-Za-z]{3,})\)?\s*\}?"
)

_LEADING = re.compile(r"(?:[\s,;:*_`\"=]|\\approx(?![a-z]))+")
_FACTORIAL = re.compile("!(?!!)")
_MEANINGLESS_ENDS = ' \t\n.,;:\\*_`"!'


def clean(text: str) -> str:
    """Returns `text` in the parser's spelling: no `$`, no layout commands, one form of a sign."""
    if not text.isascii():
        # The table goes first: the compatibility form of "²" is a plain "2".
        text = unicodedata.normalize("NFKC", text.translate(_UNICODE_TABLE))
    if "\\begin" not in text or "\\\\begin" in text:
        text = _ESCAPED_TWICE.sub(r"\\", text)
    text = _DELIMITERS.sub("", text)
    text = _SAFE_THOUSANDS.sub("", text)
    if "\\" in text:
        text = _DIGIT_GAP.sub("", text)
        text = _INVISIBLE.sub("", text)
        text = _UNWRAP.sub("", text)
        text = _INFIX.sub(lambda match: rf"\{_PREFIX[match[2]]}{{{match[1]}}}{{{match[3]}}}", text)
        text = _EMPTY_ROOT.sub(r"\\sqrt", text)
        text = _DEGREE.sub("°", text)
        text = _SPACE.sub(" ", text)
    text = _one_blank(text)
    if "°" in text:
        text = _TEMPERATURE.sub(r"\\text{degrees \1\2}", text)
    text = _PERCENT.sub("%", text)
    text = _LETTER_TIMES.sub(r"\\times ", text)
    text = _SPEED.sub(r"\\text{\1/\2}", text)
    text = _HALF_DAY.sub(r"\1m", text)
    text = _CLOCK.sub(lambda match: f"{match[1]} {match[2].lower()}m", text)
    text = _ORDINAL.sub("", text)
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _SCIENTIFIC.sub(r"\1*10^{\2}", text)
    text = strip_ends(text)
    choice = _CHOICE.fullmatch(text)
    return choice[1] if choice else text


def strip_ends(text: str) -> str:
    """Removes blanks, closing punctuation and stray emphasis around an answer."""
    text = text.strip()
    stripped = text.rstrip(_MEANINGLESS_ENDS)
    if _FACTORIAL.match(text, len(stripped)) and stripped[-1:].isalnum() | (stripped[-1:] in ")}"):
        stripped += "!"
    opening = _LEADING.match(stripped)
    return stripped[opening.end() :] if opening else stripped


def key(cleaned: str) -> str:
    """Returns the text that decides whether two cleaned answers are the same string."""
    return _REDUNDANT.sub("", _one_blank(cleaned))


def _one_blank(text: str) -> str:
    return " ".join(text.split())


def word(cleaned: str) -> str | None:
    """Returns a one-word answer in lower case (`\\text{Even}`, `even`), None for anything else."""
    match = _WORD.fullmatch(cleaned)
    return match[1].lower() if match else None


def plain(cleaned: str) -> str:
    """Returns a cleaned answer without text commands: `\\text{Row 3}` as `Row 3`."""
    return key(_TEXT.sub(r" \1 ", cleaned))


def choice(cleaned: str) -> str | None:
    """Returns the letter of a multiple-choice answer (`C`, `(C) 12 apples`), else None."""
    match = _OPTION.fullmatch(_TEXT.sub(r"\1", cleaned).strip())
    return match[1] if match else None


def readings(cleaned: str) -> list[str]:
    """Returns the ways to read the commas of `cleaned`, the likeliest first.

    "1,234" is one number and may be a list of two; "2,74" is a list and may be a decimal.
    Commas inside brackets always separate items: `(1,234)` is a pair.
    """
    merged = _THOUSANDS.sub(_merge_outside_brackets, cleaned)
    result = [merged] if merged == cleaned else [merged, cleaned]
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", cleaned) and merged == cleaned:
        result.append(cleaned.replace(",", "."))
    return result


def _merge_outside_brackets(match: re.Match[str]) -> str:
    before = match.string[: match.start()]
    depth = sum(map(before.count, _OPENING)) - sum(map(before.count, _CLOSING))
    return match[0] if depth > 0 else match[0].replace(",", "")
