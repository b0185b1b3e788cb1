"""Rewrites the many spellings of LaTeX and plain text into the one that the parser reads.

Everything here is linear text replacement on at most `MAX_ANSWER` characters.
"""

import re

from jaxcritique.grading.characters import spelled

_MAX_NESTED = 4  # Styles within styles.
MAX_ANSWER = 2000  # Characters; no answer of GSM8K or MATH is a tenth as long.

# Commands that only change how a formula looks: alone, with an argument that is not seen or names
# a colour, and around what is seen.
_INVISIBLE = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?|(?:display|text|(?:script){1,2})style|(?:no)?limits|rm|bf|it"
    r"|sf|tt|cal|large|Large|LARGE|huge|Huge|(?:normal|footnote|script)size|small|tiny|boldmath|bfseries"
    r"|boldsymbol|bm|pmb|emph|framebox|uline|math(?:op|ord|rel|bin|open|close|punct|inner|strut)|strut|hfill|newline|par"
    r"|noindent|centering|relax|(?:no|allow)break|!)(?![A-Za-z])\.?"
)
_UNSEEN = re.compile(
    r"\\(?:[hv]?phantom|label|tag\*?|(?:text)?color(?:box)?|fcolorbox\s*\{[^{}]*\}|href|style|class)"
    r"\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}"
)
_SI = re.compile(
    r"\\(?:(?:SI|qty)\s*(?:\[[^\[\]]*\])?\{([^{}]*)\}|si|unit)\s*(?:\[[^\[\]]*\])?\{([^{}]*)\}"
)
_SI_NUMBER = re.compile(r"\\num\s*(?:\[[^\[\]]*\])?(?=\{)")
_STYLE = r"\\(?:text[a-z]*|mbox|hbox|math(?:rm|bf|it|sf|tt))\s*"
_NESTED_STYLE = re.compile("(" + _STYLE + r"\{[^{}]*)" + _STYLE + r"\{([^{}]*)\}")
_STYLED_POWER = re.compile("(" + _STYLE + r"\{[^{}]*\^)\{\s*(-?[0-9]+)\s*\}(?=[^{}]*\})")
_UNIT_FRACTION = re.compile(
    r"\\[dtc]?frac\s*\{\s*" + _STYLE + r"\{([^{}]*)\}\s*\}\s*\{\s*" + _STYLE + r"\{([^{}]*)\}\s*\}"
)
_NEGATED = re.compile(r"\\not\s*(=|<|>)")
_NEGATIONS = {"=": r"\ne ", "<": r"\ge ", ">": r"\le "}
_FEET = re.compile(r"(?<![0-9.])([0-9]+)\s*'\s*([0-9]+(?:\.[0-9]+)?)\s*(?:\"|'')")
_GOES_ON = re.compile(r"(\.[0-9]+)\s*(?:\\[lc]?dots|\.{2,})(?![A-Za-z0-9])")
# "(a) 4, (b) 9": the answers to the parts of a question, which have an order.
_PARTS = re.compile(r"\s*\(a\)(?P<a>.+?)[\s,;]*(?:\band\b\s*)?\(b\)(?P<rest>.+)", re.DOTALL)
_PART = re.compile(r"[\s,;]*(?:\band\b\s*)?\([c-h]\)")
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
_OPERATOR = re.compile(r"(?<=[0-9]) ([xX]|times|multiplied by|plus|minus|divided by) (?=[0-9])")
_OPERATORS = {"plus": "+", "minus": "-", "divided by": "/"}
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
_GROUP = re.compile(r"\{+([^{}]*)(?<!\\)\}+")
_CHOICE = re.compile(r"\(?([A-Z])\)")
_TEXT = re.compile(r"\\(?:text[a-z]*|mbox|mathrm|mathbf)\s*\{([^{}]*)\}")
# What follows the mark is the option's text: not another option, and not a connective.
_OPTION = re.compile(
    r"\(?([A-J])(?:[).:](?:\s+(?!(?:and|or|is|not)\b)(?!.*\b[A-J]\b)[\w$\\].*)?)?", re.DOTALL
)
# Words before a number that make it a bound, or deny it.
HEDGE = (
    r"\b(?:(?:(?:not|never|(?:is|was|are|were|does)n't)(?:\s+equal\s+to)?|(?:can|could|must|should|may"
    r"|would|might)(?:\s*not|n't)\s+be|between|up\s+to|(?:more|less|fewer|greater|larger"
    r"|smaller|bigger|higher|lower|older|younger|longer|shorter|other|rather)\s+than|at\s+(?:least|most)"
    r"|(?<![0-9]\s)(?:over|under|above|below)|exceed(?:s|ing)?)\s+(?:exactly\s+)?)"
)
_HEDGED = re.compile(
    HEDGE + r"(?:[-+$({\s]|\\[A-Za-z]+)*[0-9]|[0-9]\s+or\s+(?:more|less|fewer|greater)\b",
    re.IGNORECASE,
)
_OPTION_VALUE = re.compile(r"(?:\([A-J]\)|[A-J][).:])\s*([-0-9.$\\].*)", re.DOTALL)
_DECIMAL_COMMA = re.compile(r"[-+]?(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+),[0-9]+")
_LAKHS = re.compile(r"[-+]?[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?")
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

_LEADING = re.compile(r"(?:[\s,;:*`\"=]|_(?!\{)|\\approx(?![a-z]))+")
_FACTORIAL = re.compile("!(?!!)")
_MEANINGLESS_ENDS = ' \t\n.,;:\\*_`"!'


def clean(text: str) -> str:
    """Returns `text` in the parser's spelling: no `$`, no layout commands, one form of a sign."""
    text = spelled(text).replace("—", "-")
    if "\\begin" not in text or "\\\\begin" in text:
        text = _ESCAPED_TWICE.sub(r"\\", text)
    text = _DELIMITERS.sub("", text)
    text = _SAFE_THOUSANDS.sub("", text)
    if "\\" in text:
        text = _DIGIT_GAP.sub("", text)
        text = _UNSEEN.sub("", text)
        text = _INVISIBLE.sub("", text)
        text = _NEGATED.sub(lambda match: _NEGATIONS[match[1]], text)
        text = _SI_NUMBER.sub("", text)
        text = _SI.sub(_quantity, text)
        text = _UNWRAP.sub("", text)
        text = _INFIX.sub(lambda match: rf"\{_PREFIX[match[2]]}{{{match[1]}}}{{{match[3]}}}", text)
        text = _EMPTY_ROOT.sub(r"\\sqrt", text)
        text = _DEGREE.sub("°", text)
        text = _SPACE.sub(" ", text)
        text = _while_changing(_STYLED_POWER, r"\1\2", text)
        text = _while_changing(_NESTED_STYLE, r"\1\2", text)
        text = _UNIT_FRACTION.sub(r"\\text{\1/\2}", text)
    text = _GOES_ON.sub(r"\1", text)
    text = _FEET.sub(r"\1 ft \2 in", text)
    text = _one_blank(text)
    parts = _PARTS.fullmatch(text)
    if parts:
        text = "({})".format(", ".join([parts["a"], *_PART.split(parts["rest"])]))
    if "°" in text:
        text = _TEMPERATURE.sub(r"\\text{degrees \1\2}", text)
    text = _PERCENT.sub("%", text)
    text = _OPERATOR.sub(lambda match: _OPERATORS.get(match[1], r"\times "), text)
    text = _SPEED.sub(r"\\text{\1/\2}", text)
    text = _HALF_DAY.sub(r"\1m", text)
    text = _CLOCK.sub(lambda match: f"{match[1]} {match[2].lower()}m", text)
    text = _ORDINAL.sub("", text)
    text = _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _SCIENTIFIC.sub(r"\1*10^{\2}", text)
    text = strip_ends(text)
    group = _GROUP.fullmatch(text)
    text = group[1].strip() if group else text
    choice = _CHOICE.fullmatch(text)
    return choice[1] if choice else text


def _quantity(match: re.Match[str]) -> str:
    unit = match[2].replace("\\", " ")
    return f"{match[1] or ''}\\text{{ {unit} }}"


def _while_changing(pattern: re.Pattern[str], replacement: str, text: str) -> str:
    for _ in range(_MAX_NESTED):
        text, count = pattern.subn(replacement, text)
        if not count:
            break
    return text


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


def is_hedged(text: str) -> bool:
    """Whether words beside a number make it a bound or deny it: `at most 18`, `18 or more`."""
    return _HEDGED.search(_TEXT.sub(r" \1 ", text)) is not None


def choice(cleaned: str) -> str | None:
    """Returns the letter of a multiple-choice answer (`C`, `(C) 12 apples`), else None."""
    match = _OPTION.fullmatch(_TEXT.sub(r"\1", cleaned).strip())
    return match[1] if match else None


def readings(cleaned: str) -> list[str]:
    """Returns the ways to read `cleaned`, the likeliest first.

    "1,234" is one number and may be a list of two; "2,74" and "1.234,5" are lists and may be
    decimals, "1,23,456" may be a number of India. "(B) 12" is a choice and may be its value. Commas
    inside brackets always separate items: `(1,234)` is a pair.
    """
    merged = _THOUSANDS.sub(_merge_outside_brackets, cleaned)
    result = [merged] if merged == cleaned else [merged, cleaned]
    if _DECIMAL_COMMA.fullmatch(cleaned) and merged == cleaned:
        result.append(cleaned.replace(".", "").replace(",", "."))
    if _LAKHS.fullmatch(cleaned):
        result.append(cleaned.replace(",", ""))
    option = _OPTION_VALUE.fullmatch(_TEXT.sub(r"\1", cleaned))
    if option:
        result.append(option[1])
    return result


def _merge_outside_brackets(match: re.Match[str]) -> str:
    before = match.string[: match.start()]
    depth = sum(map(before.count, _OPENING)) - sum(map(before.count, _CLOSING))
    return match[0] if depth > 0 else match[0].replace(",", "")
