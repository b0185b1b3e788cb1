"""Model text cannot hang, grow, crash or take over the process that grades it."""

import time
from pathlib import Path

import hostile
import psutil
import pytest

from jaxcritique.grading import Grader, extract_answer
from jaxcritique.grading.algebra import FastAlgebra
from jaxcritique.grading.compare import compare

TIMEOUT = 3.0
STARTING = 10.0  # Seconds that a new worker may need on a busy machine, before its deadline runs.
GOLDS = ["5", r"\sqrt{2}", "x^2+1", "(1,2)", r"x<1"]


def attack(strings, gold=None):
    """Grades every string as a response and as an answer; returns the slowest and the verdicts."""
    slowest, verdicts = 0.0, []
    with Grader(workers=1, timeout=TIMEOUT) as grader:
        for index, text in enumerate(strings):
            for kind in ("response", "answer"):
                started = time.monotonic()
                grade = grader.grade(gold or GOLDS[index % len(GOLDS)], text, kind)
                elapsed = time.monotonic() - started
                if elapsed > slowest:
                    slowest = elapsed
                verdicts.append(grade.verdict)
    return slowest, verdicts


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: hostile.giants(), id="giants"),
        pytest.param(lambda path: hostile.misapplied(), id="misapplied"),
        pytest.param(lambda path: hostile.injections(path), id="injections"),
        pytest.param(lambda path: hostile.fuzz(4000), id="fuzz"),
    ],
)
def test_hostile_strings(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Other tests may write where this one was started.
    target = tmp_path / "made"
    process = psutil.Process()
    before, files = process.memory_info().rss, set(Path.cwd().iterdir())
    strings = list(make(str(target)))
    slowest, verdicts = attack(strings)
    assert len(verdicts) == 2 * len(strings)
    assert slowest < TIMEOUT + STARTING
    assert process.memory_info().rss - before < 200 << 20
    assert not target.exists()
    assert set(Path.cwd().iterdir()) == files
    assert not [child for child in process.children() if "worker" in " ".join(child.cmdline())]


def test_what_is_dear_to_compare_is_left_to_a_worker():
    algebra, strings = FastAlgebra(strict=False), list(hostile.costly())
    for text in strings:
        for gold in (text, text.replace("x", "y") + "1", "5", "x<1", "1,2"):
            started = time.process_time()
            compare(gold, text, algebra)
            extract_answer(text)
            assert time.process_time() - started < 1.0, (gold[:50], text[:50])


@pytest.mark.slow
def test_long_answers_are_not_remembered():
    process = psutil.Process()
    before = process.memory_info().rss
    with Grader(workers=1) as grader:
        for index in range(1000):
            grader.grade("5", f"{index}" + "x" * 500_000, "answer")
    assert process.memory_info().rss - before < 50 << 20


def test_a_hostile_gold_answer_is_no_worse():
    for gold in (
        "9^{9^{9^9}}",
        "(" * 1000,
        "\x00",
        "99999!",
        "__import__('os')",
        "x^{10^{10}} < 1",
    ):
        slowest, verdicts = attack(["5", "x", r"\boxed{\frac12}"], gold)
        assert slowest < TIMEOUT + STARTING
        assert "correct" not in verdicts


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "5" + "٣" * 500),
        ("5", "5" + "٣" * 50),
        ("5", "5" + "①" * 300),
        ("5", "5⑴"),
        ("5", "5" + "⁰" * 300),
        ("5", "5" + "₀" * 300),
        ("5", "5" + "\u0301" * 300 + "1"),
        ("51", "5①"),
        ("1", "①1"),
    ],
)
def test_no_part_of_a_number_vanishes(gold, answer):
    with Grader(workers=1) as grader:
        assert grader.grade(gold, answer, "answer").verdict != "correct"
        assert grader.grade(gold, f"So it is {answer} in all").verdict != "correct"
        assert grader.grade(gold, f"The answer is {answer}.").verdict != "correct"


def test_digits_of_any_script_have_their_value():
    with Grader(workers=1) as grader:
        for digits in ("42", "٤٢", "۴۲", "४२", "４２", "𝟒𝟐"):
            assert grader.grade("42", digits, "answer").verdict == "correct"
        for others in ("④②", "⁴²", "₄₂", "⒋⒉"):
            assert grader.grade("42", others, "answer").verdict != "correct"
