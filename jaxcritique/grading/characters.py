r"""Spells Unicode mathematics in ASCII and LaTeX, one character at a time.

A superscript is an exponent and a subscript an index or a base, never a digit of the number before
it. A character that is neither a digit nor decomposed here stays as it is, so that no part of a
number vanishes.
"""

import re
import unicodedata

RANGE = "〜"  # Between two numerals: neither of them, nor their difference. No formula has it.
_SPELLINGS = {
    "−": "-", "–": "-", "‐": "-", "‑": "-", "‒": "-", "×": r"\times ", "✕": r"\times ",
    "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "∗": "*",
    "√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "π": r"\pi ", "θ": r"\theta ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≦": r"\le ",
    "≧": r"\ge ", "≠": r"\ne ", "≮": r"\ge ", "≯": r"\le ", "≈": r"\approx ", "≃": r"\approx ",
    "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "∖": r"\setminus ", "∨": r" \lor ", "∧": r" \land ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}", "°": r"^\circ ", "º": r"^\circ ",
    "∘": r"^\circ ", "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∑": r"\sum ",
    "∏": r"\prod ", "∫": r"\int ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "δ": r"\delta ", "ε": r"\epsilon ", "λ": r"\lambda ", "μ": r"\mu ", "µ": r"\mu ",
    "φ": r"\phi ", "ω": r"\omega ", "σ": r"\sigma ", "ρ": r"\rho ",
    "′": "'", "’": "'", "‘": "'", "″": '"', "“": '"', "”": '"', "∶": ":", "。": ". ", "、": ", ",
    "٫": ".", "٬": ",", "¢": r"\text{ cents}", "～": RANGE, "＄": "$", "⊤": r"\top ",
}  # fmt: skip
# A fraction of small digits: one character (⅔), or three and more (²⁄₃).
_SMALL_FRACTION = re.compile("([⁰¹²³⁴-⁹]+)[⁄/]([₀-₉]+)")
_ROOT = re.compile(r"([√∛∜])\s*([0-9]+(?:\.[0-9]+)?)")  # \sqrt 12 would be the root of 1, times 2.
_RANGE = re.compile("(?<=[0-9])–(?=[0-9])")
_RAISED = re.compile("[⁰¹²³⁴-⁹⁺⁻⁼⁽⁾ⁿⁱᵀᵃᵇᶜᵈᵉᵏᵐᵖᵗˣʸᶻ]+")
_LOWERED = re.compile("[₀-₎ₐₑₒₓₖₗₘₙₚₛₜᵢⱼ]+")
_SAME_IN_ASCII = frozenset(
    {"<wide>", "<narrow>", "<small>", "<font>", "<noBreak>", "<compat>", "<square>", "<circle>"}
)


class _Table(dict[int, str]):
    """A table for `str.translate` that is filled as characters are met."""

    def __missing__(self, code: int) -> str:
        self[code] = spelling = _spell(chr(code))
        return spelling


_TABLE = _Table()


def spelled(text: str) -> str:
    """Returns `text` with its mathematical characters in ASCII and LaTeX.

    Dashes that part words (—) and letters of other scripts stay.
    """
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    text = _RANGE.sub(RANGE, text)
    text = _ROOT.sub(r"\1{\2}", text)
    text = _SMALL_FRACTION.sub(
        lambda match: rf"\frac{{{_plain(match[1])}}}{{{_plain(match[2])}}}", text
    )
    text = _RAISED.sub(lambda match: "^{" + _plain(match[0]) + "}", text)
    text = _LOWERED.sub(lambda match: "_{" + _plain(match[0]) + "}", text)
    return text.translate(_TABLE)


def _plain(small: str) -> str:
    """Returns superscripts or subscripts as what they are made from: ⁻³ as -3."""
    return "".join(_spell(unicodedata.normalize("NFKC", sign)) for sign in small)


def _spell(sign: str) -> str:
    if sign.isascii():
        return sign
    if sign in _SPELLINGS:
        return _SPELLINGS[sign]
    if sign.isdecimal():
        return str(int(sign))
    category = unicodedata.category(sign)
    if category == "Zs":
        return " "
    # Currencies; and what has no width: joiners, marks of direction, choices of a glyph.
    if category in ("Sc", "Cf") or "\ufe00" <= sign <= "\ufe0f":
        return ""
    kind, *codes = unicodedata.decomposition(sign).split() or [""]
    inner = "".join(_spell(chr(int(code, 16))) for code in codes if kind.startswith("<"))
    if kind == "<fraction>" and not inner.endswith("/"):
        return r"\frac{{{}}}{{{}}}".format(*inner.split("/"))
    if kind == "<super>":
        return "^{" + inner + "}"
    # ⑴, ⒈ and ① are labels: beside a number they are not its last digits. ㎡ is m^{2}.
    return inner if kind in _SAME_IN_ASCII and not re.search("(?<![^_]{)[0-9]", inner) else sign
