import json
import pathlib

import pytest

from jaxcritique.prompts.players import read_critique
from jaxcritique.testtime.localisation import localisation_report, predicted, read_samples

PROCESSBENCH = (
    pathlib.Path(__file__).resolve().parents[3] / "shared/data/critique/processbench_gsm8k.jsonl"
)
FIRST_WRONG = "Step 1: a\nCorrectness: Wrong\nFinal answer: Wrong"
SECOND_WRONG = "Step 1: a\nCorrectness: Correct\nStep 2: b\nCorrectness: Wrong"
ALL_RIGHT = "Step 1: a\nCorrectness: Correct\nFinal answer: Correct"


def write(path: pathlib.Path, *rows: dict) -> pathlib.Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sample(first_error: int, number: int = 0) -> dict:
    return {"problem": f"{number}?", "steps": ["a", "b\nc"], "first_error": first_error}


@pytest.fixture
def samples(tmp_path):
    rows = [sample(label, number) for number, label in enumerate([0, 1, 0, -1, -1])]
    return read_samples(write(tmp_path / "s.jsonl", *rows))


def test_f1_is_the_harmonic_mean_of_both_accuracies(samples):
    texts = [FIRST_WRONG, FIRST_WRONG, "Hm.", ALL_RIGHT, SECOND_WRONG]
    critiques = [read_critique(s.solution, t) for s, t in zip(samples, texts, strict=True)]
    report = localisation_report(samples, critiques)
    assert (report.n, report.erroneous, report.unparsable) == (5, 3, 1)
    assert report.accuracy_erroneous == pytest.approx(1 / 3)
    assert report.accuracy_correct == pytest.approx(1 / 2)
    assert report.f1 == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


def test_no_hits_and_one_sided_files(samples):
    critiques = [read_critique(s.solution, "Hm.") for s in samples]
    assert localisation_report(samples, critiques).f1 == 0.0
    assert localisation_report(samples[:3], critiques[:3]).f1 is None
    assert localisation_report([], []).accuracy_correct is None


@pytest.mark.parametrize(("text", "step"), [
    (FIRST_WRONG, 0), (SECOND_WRONG, 1), (ALL_RIGHT, -1), ("", None),
    ("Final answer: Wrong", None),  # Wrong, but no step is named.
    ("Step 2: b\nCorrectness: Wrong\nFinal answer: Correct", 1),
])  # fmt: skip
def test_what_a_critique_names(text, step, samples):
    assert predicted(read_critique(samples[0].solution, text)) == step


def test_one_step_is_one_line(samples):
    assert samples[0].solution.text == "a\nb c"


@pytest.mark.parametrize(("row", "message"), [
    ({"steps": ["a"], "first_error": 0}, "the row has no 'problem'"),
    ({"problem": "?", "first_error": 0}, "its 'steps' is not a list of texts"),
    ({"problem": "?", "steps": [], "first_error": 0}, "its 'steps' is not a list of texts"),
    ({"problem": "?", "steps": ["a"], "first_error": 1}, "'first_error' is not a step's number"),
    ({"problem": "?", "steps": ["a"], "first_error": True}, "'first_error' is not a step's number"),
    ({"problem": "?", "steps": ["a"]}, "'first_error' is not a step's number"),
])  # fmt: skip
def test_bad_rows_are_named(row, message, tmp_path):
    path = write(tmp_path / "bad.jsonl", sample(0), row)
    with pytest.raises(ValueError, match=message) as caught:
        read_samples(path)
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.skipif(not PROCESSBENCH.is_file(), reason=f"ProcessBench is not at {PROCESSBENCH}")
def test_processbench_is_read():
    found = read_samples(PROCESSBENCH)
    assert len(found) == 400
    assert sum(s.first_error == -1 for s in found) == 193
    assert all(s.solution.problem.answer for s in found)
