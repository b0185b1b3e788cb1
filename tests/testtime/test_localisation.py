import itertools
import json
import pathlib

import numpy as np
import pytest

from jaxcritique.analysis.intervals import of_block_means
from jaxcritique.prompts.critique import split_steps
from jaxcritique.roles import read_critique
from jaxcritique.testtime.localisation import (
    harmonic_mean,
    localisation_report,
    localisation_scores,
    predicted,
    read_labelled,
)

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
def labelled(tmp_path):
    rows = [sample(label, number) for number, label in enumerate([0, 1, 0, -1, -1])]
    return read_labelled(write(tmp_path / "s.jsonl", *rows))


def test_f1_is_the_harmonic_mean_of_both_accuracies(labelled):
    texts = [FIRST_WRONG, FIRST_WRONG, "Hm.", ALL_RIGHT, SECOND_WRONG]
    critiques = [read_critique(s.solution, t) for s, t in zip(labelled, texts, strict=True)]
    report = localisation_report(labelled, critiques)
    assert (report.n, report.erroneous, report.unparsable) == (5, 3, 1)
    assert report.accuracy_erroneous == pytest.approx(1 / 3)
    assert report.accuracy_correct == pytest.approx(1 / 2)
    assert report.f1 == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


def test_no_hits_and_one_sided_files(labelled):
    critiques = [read_critique(s.solution, "Hm.") for s in labelled]
    assert localisation_report(labelled, critiques).f1 == 0.0
    assert localisation_report(labelled[:3], critiques[:3]).f1 is None
    assert localisation_report([], []).accuracy_correct is None


def test_solutions_of_one_question_are_resampled_together(tmp_path):
    """Three questions, one with two solutions: F1 of all 27 ways to draw three of them."""
    rows = [sample(0, 1), sample(-1, 1), sample(1, 2), sample(-1, 3)]
    labelled = read_labelled(write(tmp_path / "s.jsonl", *rows))
    texts = [FIRST_WRONG, ALL_RIGHT, FIRST_WRONG, ALL_RIGHT]
    critiques = [read_critique(s.solution, t) for s, t in zip(labelled, texts, strict=True)]
    scores = localisation_scores(labelled, critiques)
    hits = {"1?": (1, 1), "2?": (0, None), "3?": (None, 1)}
    values = []
    for drawn in itertools.product(hits, repeat=3):
        sides = [[hits[q][side] for q in drawn if hits[q][side] is not None] for side in (0, 1)]
        if all(sides):
            found, sound = (sum(side) / len(side) for side in sides)
            values.append(2 * found * sound / (found + sound))
    estimate = of_block_means(harmonic_mean, list(scores.values()), 0)
    assert estimate.mean == localisation_report(labelled, critiques).f1 == pytest.approx(2 / 3)
    expected = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    assert estimate.ci95 == pytest.approx(expected, abs=1e-9)


def test_a_sample_given_twice_counts_twice(tmp_path):
    labelled = read_labelled(write(tmp_path / "s.jsonl", sample(0), sample(0), sample(-1)))
    critiques = [read_critique(s.solution, FIRST_WRONG) for s in labelled]
    report = localisation_report(labelled, critiques)
    assert (report.n, report.erroneous, report.accuracy_erroneous) == (3, 2, 1.0)


@pytest.mark.parametrize(("text", "step"), [
    (FIRST_WRONG, 0), (SECOND_WRONG, 1), (ALL_RIGHT, -1), ("", None),
    ("Final answer: Wrong", None),  # Wrong, but no step is named.
    ("Step 2: b\nCorrectness: Wrong\nFinal answer: Correct", 1),
])  # fmt: skip
def test_what_a_critique_names(text, step, labelled):
    assert predicted(read_critique(labelled[0].solution, text)) == step


def test_the_gold_answer_may_be_a_number(tmp_path):
    path = write(tmp_path / "s.jsonl", *({**sample(0), "gold": gold} for gold in (2, " 2 ", None)))
    assert [s.solution.problem.answer for s in read_labelled(path)] == ["2", "2", ""]


def test_one_step_is_one_line(labelled):
    assert labelled[0].solution.text == "a\nb c"


def test_a_line_that_states_the_answer_is_no_step(tmp_path):
    """Critiques do not number it, so that a first error after it has another number."""
    steps = ["a=3", "The answer is b=4 for Tom.", "so b+1=6", "The answer is 6."]
    rows = [{"problem": "?", "steps": steps, "first_error": error} for error in (0, 2, -1)]
    found = read_labelled(write(tmp_path / "s.jsonl", *rows))
    assert [row.first_error for row in found] == [0, 1, -1]
    assert split_steps(found[1].solution.text)[1] == "so b+1=6"
    critiques = [read_critique(row.solution, SECOND_WRONG) for row in found]
    assert localisation_report(found[1:2], critiques[1:2]).accuracy_erroneous == 1.0


@pytest.mark.parametrize(("row", "message"), [
    ({"steps": ["a"], "first_error": 0}, "the row has no 'problem'"),
    ({"problem": "?", "first_error": 0}, "its 'steps', missing, is not a list of texts"),
    ({"problem": "?", "steps": [], "first_error": 0}, r"its 'steps', \[\], is not a list"),
    ({"problem": "?", "steps": ["a"], "first_error": 1}, "'first_error', 1, is none of its 1"),
    ({"problem": "?", "steps": ["a"], "first_error": True}, "'first_error', True, is none of its"),
    ({"problem": "?", "steps": ["a"]}, "'first_error', missing, is none of its"),
    ({"problem": "?", "steps": ["a"], "first_error": 0, "gold": [2]}, "its 'gold' is neither text"),
    ({"problem": "?", "steps": ["a"], "first_error": 0, "gold": True}, "its 'gold' is neither"),
    ({"problem": "?", "steps": ["a", " "], "first_error": 0}, "its step 1, counted from 0, is bl"),
    (
        {"problem": "?", "steps": ["a", "So the answer is 4."], "first_error": 1},
        "its 'first_error', 1, is the step 'So the answer is 4.', which only states the answer",
    ),
])  # fmt: skip
def test_bad_rows_are_named(row, message, tmp_path):
    path = write(tmp_path / "bad.jsonl", sample(0), row)
    with pytest.raises(ValueError, match=message) as caught:
        read_labelled(path)
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.skipif(not PROCESSBENCH.is_file(), reason=f"ProcessBench is not at {PROCESSBENCH}")
def test_processbench_is_read():
    found = read_labelled(PROCESSBENCH)
    assert len(found) == 400
    assert sum(s.first_error == -1 for s in found) == 193
    assert all(s.solution.problem.answer for s in found)
