"""Ways in which models and people write an answer: as an answer alone, and in a response."""

import random
from collections.abc import Iterator

_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
_ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")

# Around a value: what changes its look.
DRESSES = [
    r"{}",
    r"\large {}",
    r"{{\Large {}}}",
    r"\boldsymbol{{{}}}",
    r"\bm{{{}}}",
    r"\pmb{{{}}}",
    r"{{\color{{red}} {}}}",
    r"\textcolor{{blue}}{{{}}}",
    r"\colorbox{{yellow}}{{{}}}",
    r"{} \tag{{7}}",
    r"{} \label{{eq:5}}",
    r"\mathop{{{}}}",
    r"{}\phantom{{3}}",
    r"\tiny {}",
    r"\fcolorbox{{red}}{{white}}{{{}}}",
    r"\displaystyle {}",
    "\u200b{}\u200b",
    "\u2066{}\u2069",
    "\ufeff{}",
    r"$ {} $",
    r"\( {} \)",
    r"\ensuremath{{{}}}",
    r"\,{}\,",
    "**{}**",
    "`{}`",
    " {} .",
]
# Around a value: the words that a response announces it with. None of the other numbers counts.
ANNOUNCED = [
    r"\boxed{{{}}}",
    "The answer is {}.",
    "#### {}",
    "**Answer: {}**",
    "Final answer: {}",
    "The answer is {}, with 8 left over.",
    "The answer is {} (8 x 9).",
    "**{}** is it.\nAnswer: {}",
    "The answer is **{}** out of 80.",
    "The answer is {}; 8 fewer than 80.",
    "The answer is {}—8 more.",
    "The answer is {}, in total.",
    "The answer is {}, making 8 for each of 9.",
    "The answer is {}: see 3.",
    "The answer is {}, because 3 of 9 were left.",
    "The answer is {}, not 31.",
    "#### {} clips of 80",
    "Answer: {} — she sold 3 of 21 boxes.",
    r"Put it into \boxed{{}}. 3 of 9." "\nAnswer: {}",
    r"I fill in \boxed{{...}} now. So \boxed{{{}}}.",
    r"\boxed{{{}}}, as \boxed{{}} was asked for.",
    "<think>\nIt may be 31. \\boxed{{31}}\n</think>\nThe answer is {}.",
    "The answer is {}.\n\nQuestion: Ann has 3 and 5. How many?\nAnswer: 8. The answer is 8.",
    "#### {}\n\nQ: What is 3 + 5?\nA: 3+5=8\n#### 8",
    "#### {} Question: 3+5? #### 8",
    "The answer is {}.<|eot_id|><|start_header_id|>user<|end_header_id|>\nThe answer is 8.",
    "The answer is {}.<end_of_turn>\n<start_of_turn>user\nThe answer is 8.",
    "The answer is {}.<｜end▁of▁sentence｜>The answer is 8.",
    "#### {}</s><s>[INST] And 8? [/INST] #### 8",
    "The answer is {}.\nCheck: 3 + 5 = 8. ✓",
    "The answer is $ {} $, which is 3 more than 9.",
]
# Around a value: what makes it no answer, or another one.
DENIED = [
    "The answer is not {}.",
    "The answer is more than {}.",
    "The answer is between 1 and {}.",
    "The answer is at least {}.",
    "The answer is at most {}.",
    "The answer is less than {}.",
    r"\boxed{{\text{{not }} {}}}",
    r"\boxed{{\text{{at most }} {}}}",
    r"\boxed{{\text{{more than }} {}}}",
    r"\boxed{{\text{{between }} 1 \text{{ and }} {}}}",
    "There are fewer than {} of them.",
    "<think>\nIt is {}",
    "<think>\nSo \\boxed{{{}}}. But wait",
    "[THINK]So the answer is {}.",
    "<think>\nThe answer is {}.\n</think>",
    "#### 1000003\n\nQuestion: And then?\n#### {}",
    "The answer is {} or 1000003.",
    r"\boxed{{{}, 1000003}}",
    r"\boxed{{{}}} is wrong. I redo it: \boxed{{}}",
    "The answer is 1000003.<|im_end|>\nThe answer is {}.",
    "The answer is 1000003, with {} left over.",
    "The answer is 1000003; {} fewer than before.",
    "The answer is 1000003 ({} + 1).",
    "The answer is up to {}.",
]


def values(count: int, seed: int = 0) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields gold answers, with equal spellings and with unequal ones that look like them."""
    source = random.Random(seed)
    for index in range(count):
        n, d = source.randint(11, 9999), source.choice([3, 4, 6, 7, 9])
        k, low = source.randint(2, 9), source.randint(3, 12)
        match index % 8:
            case 0:
                yield (
                    str(n),
                    [f"{n:,}", f"{n}.0", str(n).translate(_WIDE), str(n).translate(_ARABIC)],
                    [
                        str(n + 1),
                        f"-{n}",
                        f"{n}{k}",
                        f"{n}①",
                        f"{n}.5",
                        f"{n:,}".replace(",", "") + "²",
                        f"{str(n)[:-1]}{str(n)[-1].translate(_SUPERSCRIPTS)}",
                        f"{n}٠",
                        f"{n}–{n + k}",
                    ],
                )
            case 1:
                power = str(low).translate(_SUPERSCRIPTS)
                yield (
                    str(k**low),
                    [
                        f"{k}^{{{low}}}",
                        f"{k}{power}",
                        f"{k}^{low}" if low < 10 else f"{k}^{{{low}}}",
                    ],
                    [f"{k}{low}", f"{k}^{{{low + 1}}}", f"{k + 1}{power}", f"{k}·{low}"],
                )
            case 2:
                d = source.choice([3, 5, 6, 8])
                sign = {3: "⅓", 5: "⅕", 6: "⅙", 8: "⅛"}[d]
                yield (
                    rf"\frac{{{n * d + 1}}}{{{d}}}",
                    [
                        f"{n}{sign}",
                        f"{n} 1/{d}",
                        rf"{n}\frac{{1}}{{{d}}}",
                        f"{n}¹⁄{'₀₁₂₃₄₅₆₇₈₉'[d]}",
                    ],
                    [f"{n}1/{d}", f"{n + 1}{sign}", f"{n}", f"{sign}{n}", rf"{n}\frac{{2}}{{{d}}}"],
                )
            case 3:
                yield (
                    rf"{n}\pi",
                    [f"{n}π", rf"{n} \pi", rf"\pi \cdot {n}"],
                    [str(n), f"{n + 1}π", f"{n}π²", f"{n}+π", f"-{n}π"],
                )
            case 4:
                exponent = str(-low).translate(_SUPERSCRIPTS)
                yield (
                    rf"{k} \times 10^{{-{low}}}",
                    [f"{k} × 10{exponent}", f"{k}e-{low}", f"{k} x 10^{{-{low}}}"],
                    [
                        f"{k} × 10{str(low).translate(_SUPERSCRIPTS)}",
                        f"{k}10{low}",
                        f"{k}e-{low + 1}",
                    ],
                )
            case 5:
                yield (
                    rf"\sqrt{{{n}}}",
                    [f"√{n}", rf"\sqrt{{{n}}}", f"{n}^{{1/2}}"],
                    [str(n), f"∛{n}", f"√{n + 1}", f"-√{n}", f"{k}√{n}"],
                )
            case 6:
                yield (
                    f"{k}.{n}",
                    [f"{k}.{n}", f"{k},{n}" if n > 999 else f"{k}.{n}0"],
                    [f"{k}{n}", f"{k}.{n + 1}", f"{k + 1}.{n}", f"{k}/{n}"],
                )
            case _:
                yield (
                    f"({k}, {n})",
                    [f"({k},{n})", rf"\left({k},\ {n}\right)", f"（{k}，{n}）"],
                    [f"({n}, {k})", f"({k}, {n + 1})", rf"\{{{k}, {n}\}}", f"({k}, {n}①)"],
                )


def worn(answer: str, forms: list[str]) -> Iterator[str]:
    """Yields the answer in each of the forms; a form may have it twice."""
    for form in forms:
        yield form.format(answer, answer)
