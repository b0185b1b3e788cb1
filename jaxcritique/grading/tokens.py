"""Splits a cleaned answer into tokens; decides which letters are words and which variables."""

import re
from typing import Literal, NamedTuple

Kind = Literal["number", "letter", "command", "text", "separator", "sign", "end"]


class Token(NamedTuple):
    """One token: `value` is the digits, the letter, the command without backslash, or the sign."""

    kind: Kind
    value: str


END = Token("end", "")

FUNCTIONS = frozenset({
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh",
    "tanh", "ln", "log", "exp", "gcd", "lcm", "max", "min", "det", "arg", "Re", "Im",
})  # fmt: skip
_ALIASES = {
    "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=",
    "lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "approx": "~", "simeq": "~", "in": "in",
    "cdot": "*", "times": "*", "ast": "*", "div": "/", "bmod": "mod", "pmod": "mod", "mod": "mod",
    "pm": "pm", "mp": "mp", "cup": "cup", "lbrace": "{{", "rbrace": "}}", "{": "{{", "}": "}}",
    "lvert": "|", "rvert": "|", "vert": "|", "lVert": "|", "rVert": "|", "Vert": "|", "|": "|",
    "langle": "(", "rangle": ")", "lbrack": "[", "rbrack": "]", "colon": ":", "equiv": "=",
    "lfloor": "lfloor", "rfloor": "rfloor", "lceil": "lceil", "rceil": "rceil",
    "\\": "\\\\", "cr": "\\\\", "lor": "or", "vee": "or", "land": "and", "wedge": "and", "&": "and",
    "setminus": "setminus", "backslash": "setminus",
}  # fmt: skip
_SIGN_ALIASES = {"==": "=", "**": "^", "=<": "<=", "=>": ">="}
_COMMANDS = frozenset({
    "frac", "dfrac", "tfrac", "cfrac", "sqrt", "binom", "dbinom", "tbinom", "infty", "pi",
    "begin", "end", "sum", "prod", "int", "lim", "overline", "bar", "vec", "hat", "tilde",
    "overrightarrow", "underline", "mathbf", "mathrm", "text", "mathbb", "emptyset",
    "varnothing", "ldots", "dots", "cdots", "alpha", "beta", "gamma", "delta", "epsilon",
    "theta", "lambda", "mu", "phi", "omega", "sigma", "rho",
})  # fmt: skip
_UNITS = frozenset({
    "cm", "mm", "km", "kg", "mg", "ml", "ft", "yd", "mi", "lb", "lbs", "oz", "hr", "hrs",
    "in", "min", "mins", "sec", "secs", "am", "pm", "mph", "kph", "USD",
})  # fmt: skip
_UNIT_LETTERS = frozenset("mgshlL")  # Units where marked as text behind a value.
_SHORT_WORDS = frozenset({
    "no", "yes", "the", "is", "of", "for", "if", "not", "per", "are", "one", "two",
    "six", "ten", "odd", "day", "all", "any", "set", "red", "an",
})  # fmt: skip

_TOKEN = re.compile(
    r"(?P<text>\\(?:text[a-z]*|mbox|hbox|math(?:rm|bf|it|sf)|operatorname\*?)\s*\{[^{}]*\})"
    r"|(?P<numeral>(?=[A-F]*[0-9])[0-9]*[A-F][0-9A-F]*(?=_\{?[0-9]))"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<command>\\(?:[A-Za-z]+|.))"
    r"|(?P<word>or(?![a-z])|and(?![a-z])|[A-Za-z]+)"
    r"|(?P<sign><=|>=|!=|==|\*\*|=<|=>|[^\s])",
    re.DOTALL,
)
_SEPARATOR_TEXT = re.compile(r"[\s,]*(and|or|,)[\s,]*")
_LISTED = re.compile(r"\s*,\s*(?:(?:and|or)\s+)?|\s+(?:and|or)\s+")
_ENDS_LIST = re.compile(r"(.*[\w.)])(?:,\s*(and|or)|\s(and|or)|,)", re.DOTALL)
_TIME = re.compile(r"[0-9]+(?::[0-9]+)+")
_SEPARATORS = frozenset({"and", "or"})
# What follows a word that is then no unit: `min(1, 2)` is not a time, `x in [0, 1]` not a length.
_OPENS = {"min": re.compile(r" ?\("), "in": re.compile(r" ?(?:[(\[]|\\[{m])")}

# A dollar a day, four eggs a person.
_EACH = re.compile(
    r" (?:second|minute|hour|day|night|week|month|year|mile|gallon|pound|piece|person)s?\b"
)


def tokenize(cleaned: str) -> list[Token]:
    """Returns the tokens of a cleaned answer, without an end marker."""
    tokens: list[Token] = []
    for match in _TOKEN.finditer(cleaned):
        kind, value = match.lastgroup, match[0]
        if kind == "number":
            tokens.append(Token("number", value))
        elif kind == "text":
            content = value[value.index("{") + 1 : -1]
            is_unit = content.strip() in _UNIT_LETTERS and tokens and _ends_value(tokens[-1])
            tokens.extend([Token("text", content.strip())] if is_unit else _from_text(content))
        elif kind == "command":
            tokens.extend(_from_command(value[1:]))
        elif kind == "numeral":
            tokens.append(Token("letter", value))
        elif kind == "word":
            opens = _OPENS.get(value)
            if opens and opens.match(cleaned, match.end()):
                tokens.extend(_from_command(value))
            elif _continues_label(tokens, cleaned, match):
                tokens.append(Token("text", value))
            else:
                tokens.extend(_from_word(value))
        elif value in ",;":
            tokens.append(Token("separator", value))
        else:
            tokens.append(Token("sign", _SIGN_ALIASES.get(value, value)))
    return tokens


def _continues_label(tokens: list[Token], cleaned: str, match: re.Match[str]) -> bool:
    """Whether a short word continues a number's label, as in `20 years old` or `$20 a day`.

    Otherwise such a run of letters is a product of variables.
    """
    word = match[0]
    if not tokens or not word.islower() or cleaned[match.start() - 1] != " ":
        return False
    if word == "a":
        return tokens[-1].kind in ("number", "text") and bool(_EACH.match(cleaned, match.end()))
    if len(word) == 1 or _from_word(word)[0].kind != "letter":
        return False
    beside = next((token for token in reversed(tokens) if token.kind != "text"), None)
    return tokens[-1].kind == "text" and beside is not None and beside.kind == "number"


def _ends_value(token: Token) -> bool:
    return token.kind == "number" or token == Token("sign", "}")


def _from_text(content: str) -> list[Token]:
    r"""Reads what is inside `\text{...}`: a separator, a name, a list of letters, or words."""
    separator = _SEPARATOR_TEXT.fullmatch(content)
    if separator:
        return [Token("separator", separator[1])]
    content = content.strip()
    if content == "to":
        return [Token("sign", ":")]
    if content in FUNCTIONS and content not in _UNITS:
        return [Token("command", content)]
    parts = _ENDS_LIST.fullmatch(content)
    if parts:  # "hour, " of `1\text{ hour, }30\text{ minutes}`
        return [*_from_text(parts[1]), Token("separator", parts[2] or parts[3] or ",")]
    if _TIME.fullmatch(content):
        return tokenize(content)
    bare = content.strip("().: ")
    if re.fullmatch(r"[A-Za-z]|[0-9A-F]+|[0-9]+\.[0-9]+", bare):
        return [Token("number" if bare.replace(".", "").isdigit() else "letter", bare)]
    parts = _LISTED.split(content)
    if len(parts) > 1 and all(parts):
        listed = [[*_from_text(part), Token("separator", ",")] for part in parts]
        return [token for tokens in listed for token in tokens][:-1]
    return [Token("text", content)] if content else []


def _from_command(name: str) -> list[Token]:
    name = "log" if name == "lg" else name
    if name in _ALIASES:
        alias = _ALIASES[name]
        return [Token("separator" if alias in _SEPARATORS else "sign", alias)]
    if name in _COMMANDS or name in FUNCTIONS or not name[0].isalpha():
        return [Token("command", name)] if name[0].isalpha() else []
    # "\lex" is "\le x" without its blank.
    for cut in range(len(name) - 1, 1, -1):
        head, tail = name[:cut], name[cut:]
        if head in _ALIASES or head in _COMMANDS:
            return _from_command(head) + _from_word(tail)
    return [Token("command", name)]


def _from_word(word: str) -> list[Token]:
    """Reads a run of letters: a separator, a function, words, a name, or a product of variables."""
    if word in _SEPARATORS:
        return [Token("separator", word)]
    if word == "to":  # 3 to 4, as a ratio.
        return [Token("sign", ":")]
    if word in _UNITS:
        return [Token("text", word)]
    if word in FUNCTIONS or word in ("pi", "sqrt", "cup"):
        return _from_command(word)
    if word in ("inf", "infinity", "oo"):
        return [Token("command", "infty")]
    if len(word) > 1 and word.isupper():
        return [Token("letter", word)]
    if len(word) > 3 or word.lower() in _SHORT_WORDS:
        return [Token("text", word)]
    return [Token("letter", letter) for letter in word]
