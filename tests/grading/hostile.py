"""Strings made to hang, crash, fill or take over a grader."""

import random
from collections.abc import Iterator

_FRAGMENTS_TEXT = r"""
\frac{ \sqrt{ \boxed{ } { ( ) [ ] ^ ^{ _ _{ ! !! | \left( \right) \begin{pmatrix} & \\
\end{pmatrix} \int_0^ \sum_{k=1}^{ \lim_{x\to 9 99999999999 x e i \pi + - * / , ; : = < > \le
\cup \in \pm % $ \text{ \operatorname{ 1/0 0^0 \infty or and \binom{ \log_ \sin \lfloor \gcd(
\bmod #### </think> {0.__class__} %s%n 9.9 _2 1,000 ° ½ ٣ ９ 𝟗
"""
_FRAGMENTS = [
    *_FRAGMENTS_TEXT.split(),
    "\x00",
    "\n",
    "\t",
    " ",
    "\u202e",
    "\ud800",
    "x = ",
    "answer is ",
]
_REPEATED_TEXT = r"""
( [ { \{ | - 9 9, 9; x^ \sqrt \frac \boxed{ $ \( \[ 1/ \pm \left( <think> #### A: 10e ٣ \text{
9. 0.1 \, {,} ,\! = < : ! % ° ' _ . \\ \setminus {9\choose 1th
"""
_REPEATED = [
    *_REPEATED_TEXT.split(),
    "a ",
    "answer is ",
    "1 0",
    " ",
    "\n",
    "\x00",
    "and ",
    "1, ",
    "\ud800",
]
_CODE = [
    "__import__('os').system('touch {path}')",
    "().__class__.__bases__[0].__subclasses__()",
    "open('{path}','w').write('x')",
    "exec(compile('import os', 'x', 'exec'))",
    "lambda: (yield)",
    'f\'{{open("{path}", "w")}}\'',
    "$({path})",
    "`touch {path}`",
    "\\input{{{path}}}",
    "\\write18{{touch {path}}}",
    "\\def\\x{{\\x\\x}}\\x",
    "\\newcommand{{\\a}}{{\\a}}\\a",
    "Symbol('x').subs(x, open('{path}','w'))",
    "S('__import__(\"os\")')",
    "{{0.__init__.__globals__}}",
]
_SYMPY_NAMES_TEXT = r"""
N E I S O Q oo nan zoo pi gamma beta zeta factorial Integral Sum Product Limit solve simplify
expand factor integrate diff limit series fibonacci bell catalan prime primepi totient divisors
factorint isprime randprime Matrix eye ones zeros lambdify sympify parse_expr preview plot test
doctest init_printing srepr Function Lambda Wild Dummy Rational Float Integer Poly groebner
"""
_FUNCTIONS_TEXT = r"""
sin tan arcsin sinh ln log exp gcd lcm max min det arg Re Im frac sqrt binom overline vec lfloor
text mathbb sum lim begin{pmatrix} end boxed pm abs infty cup { [ |
"""
_FUNCTIONS = _FUNCTIONS_TEXT.split()
_SYMPY_NAMES = _SYMPY_NAMES_TEXT.split()


def giants() -> Iterator[str]:
    """Yields what is small to write and huge to compute, or simply huge."""
    for height in range(2, 40):
        yield "^".join(["9"] * height)
        yield "9" + "^{9" * height + "}" * height
        yield "(" * height + "9" + ")^{99999}" * height
        yield "10^{" * height + "10" + "}" * height + "+1"
        yield "99999" + "!" * height
        yield "\\sqrt{" * height + "2" + "}" * height
        yield "\\frac{1}{1+" * height + "x" + "}" * height
        yield "e^{" * height + "x" + "}" * height
        yield f"\\binom{{{10**height}}}{{{10**height // 2}}}"
        yield f"({10**height}!)!"
        yield f"\\gcd({10**height}!, 3)"
        yield f"\\sin({10**height}^{{{10**height}}})"
        yield f"x^{{{10**height}}} < 1"
        yield f"(x+1)^{{{10**height}}} - x"
        yield f"\\sum_{{k=1}}^{{{10**height}}} k!"
    for size in (10**3, 10**4, 10**5, 10**6):
        for unit in _REPEATED:
            yield unit * (size // len(unit))
        yield "(" * (size // 2) + ")" * (size // 2)
        yield "\\boxed{" + "{" * (size // 2) + "}" * (size // 2) + "}"
        yield "0." + "3" * size + "e5"


def misapplied() -> Iterator[str]:
    """Yields functions and commands of too few, too many or unfit arguments."""
    arguments = ["", "5", "1,2", "1,2,3", ".5", "2^{2000}", "2^{-2000}", "[[],[]]", "0", "x", "."]
    for name in _FUNCTIONS:
        for argument in arguments:
            yield f"\\{name}({argument})"
            yield f"\\{name} {argument}"
            yield f"\\{name}_{argument}{{{argument}}}"
            yield f"\\{name}{{{argument}}}{{{argument}}}"
    for argument in arguments:
        yield from (argument, f"[[{argument}],[{argument}]]", f"0.\\overline{{{argument}}}")
    # Digits to Python's `isdigit`, but not to `int`.
    yield from ("0.\\overline{❶}", "0.\\overline{٣}", "❶", "❶_2", "\\frac❶2")
    yield r"(1.2+1.2i)10^{154}10^{154}\sqrt[3]{2}"  # Each part fits a float, its length does not.


def costly() -> Iterator[str]:
    """Yields what is short to write, cheap to read and dear to compare."""
    for size in (200, 1990):
        for unit in (
            "x^{2^{9999}}+",
            "999!*",
            "1/399!+",
            "5 apples ",
            "|x|",
            "2^{9999} \\bmod 7+",
            "x^{9^{1000}}+",
            "\\log_{1+1/455+1/9^{999}}9+",
        ):
            yield (unit * (size // len(unit)))[:-1]
        for form in ("{}x+y={}", "{}x<y", "{}\\pm x", "x^{{2^{{{}}}}}={}", "\\{{{},x\\}}", "{}%"):
            yield ",".join(form.format(index, index) for index in range(size // 8))[:size]
        for kind in ("pmatrix", "vmatrix"):
            rows = "\\\\".join(["&".join(["x"] * 4)] * 4)
            matrix = f"\\begin{{{kind}}}{rows}\\end{{{kind}}}"
            yield matrix * (size // len(matrix))
        yield "\\text{lcm}(" + ",".join(f"9^{{1000}}+{n}" for n in range(size // 12)) + ")"
        yield "5 " + "cubic " * (size // 6 - 2) + "mm"
        yield "5" + " " * (size - 2) + "5"
        yield "(" + "1," * (size // 2)
        yield "(" + "100," * (size // 4)
        yield "\\begin{vmatrix}" * (size // 33) + "x" + "\\end{vmatrix}" * (size // 33)
    for unit in (
        "The answer is (((((",
        "answer:*\\(",
        "answer is a" + " " * 980 + "b.\n",
        "final answer: \\(",
        "\\[",
        "$1",
        "\\boxed{",
    ):
        yield unit * (100_000 // len(unit))


def injections(path: str) -> Iterator[str]:
    """Yields code, templates and sympy names; run as code, some would make a file at `path`."""
    for code in _CODE:
        code = code.format(path=path)
        yield from (code, f"\\boxed{{{code}}}", f"#### {code}", f"1+{code}", f"\\text{{{code}}}")
    for name in _SYMPY_NAMES:
        yield from (
            name,
            f"{name}(10**9)",
            f"\\{name}{{x}}",
            f"\\operatorname{{{name}}}(x)",
            f"{name}.__class__",
        )


def fuzz(count: int, seed: int = 0) -> Iterator[str]:
    """Yields random runs of fragments that mean something to the parser."""
    source = random.Random(seed)
    for _ in range(count):
        yield "".join(source.choices(_FRAGMENTS, k=source.randint(1, 60)))
