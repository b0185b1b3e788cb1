import collections
import dataclasses
import json

import pytest
from scripted import ScriptedModel, build

from jaxcritique.critiques.annotate import ArithmeticAnnotator, is_false
from jaxcritique.critiques.filtering import FilterRule, Tally
from jaxcritique.critiques.pipeline import Candidate, CritiqueDataConfig, keep
from jaxcritique.critiques.publish import dataset_row, discarded_rows, write_dataset
from jaxcritique.critiques.results import CritiqueData, statistics_of
from jaxcritique.records import Problem, Solution
from jaxcritique.roles import read_critique

CHECKER = ArithmeticAnnotator(one_plan=True)
SOFT = CritiqueDataConfig()


def results(folder, candidates, kept, command="python -m experiments.build_critiques"):
    return CritiqueData(
        **vars(statistics_of(candidates, kept, CHECKER, SOFT)),
        command=command,
        seed=0,
        settings={},
        wall_seconds=0.0,
        peak_rss_bytes=0,
        run_dir=folder,
        failed=0,
        counts={"problems": 40},
        costs={},
        provenance={"actor": "scripted"},
        critiques=[],
    )


COLUMNS = {
    "query", "response", "steps", "critique", "first_error", "error_type", "source_strategy",
    "annotator", "filter_counts", "problem_id", "dataset", "level", "answer", "correct",
    "error_step", "error",
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    annotations, candidates, kept = build(tmp_path_factory.mktemp("built"), ScriptedModel())
    return annotations, list(candidates), kept


def test_datasets_loads_the_folder(built, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    _, candidates, kept = built
    kept_ids = set(map(id, kept))
    rest = [candidate for candidate in candidates if id(candidate) not in kept_ids]
    data = results(tmp_path, candidates, kept)
    for _ in range(2):  # The second time in the place of the first.
        write_dataset(kept, rest, data)
    folder = data.dataset
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "rejected"}
    assert len(loaded["train"]) == len(kept)
    assert set(loaded["train"].column_names) == COLUMNS
    assert loaded["train"][0] == dataset_row(kept[0])
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "python -m experiments.build_critiques" in card
    for row in data.table1:
        assert f"| {row.strategy} | {row.right} | {row.wrong} |" in card


def test_statistics_add_up(built):
    _, candidates, kept = built
    found = statistics_of(candidates, kept, CHECKER, SOFT)
    assert sum(row.right + row.wrong for row in found.table1) == found.rows == len(kept)
    flawed = [c for c in candidates if c.refined]
    effects = found.filter
    assert effects["none"].kept == len(flawed)
    order = ["none", "hard", "soft, tau=0.1", "soft, tau=0.3", "soft, tau=0.5", "soft, tau=0.7"]
    kept_by = [effects[rule].kept for rule in order]
    assert list(effects) == order
    assert kept_by == sorted(kept_by, reverse=True)
    assert sum(found.strategies.values()) == pytest.approx(1)
    json.dumps(dataclasses.asdict(found))


@pytest.mark.parametrize(("kind", "name"), [("soft", "soft, tau=0.2"), ("hard", "hard")])
def test_the_rule_in_force_is_among_those_compared(kind, name, built):
    candidates = built[1]
    config = CritiqueDataConfig(filter=kind, tau=0.2)
    kept = keep(candidates, config.rule, 0)[0]
    effects = statistics_of(candidates, kept, CHECKER, config).filter
    assert effects[name].kept == sum(c.refined is not None for c in kept)
    assert len(effects) == 6 + (kind == "soft")


def test_what_never_came_to_the_filter_is_told_apart(built):
    annotations, candidates, _ = built
    accepted = [a for a in annotations if a.outcome == "accepted" and not a.solution.correct]
    leaking = dataclasses.replace(
        accepted[0], text="Step 1: a\nExplanation: the hint says so.\nCorrectness: Wrong"
    )
    gone = [(a.solution.problem.id, a.solution.text) for a in accepted[:2]]
    left = [
        c
        for c in candidates
        if (c.critique.solution.problem.id, c.critique.solution.text) not in gone
    ]
    read = [leaking if a is accepted[0] else a for a in annotations]
    found = list(discarded_rows(read, left))
    outcomes = collections.Counter(row["outcome"] for row in found)
    assert (outcomes["leaking"], outcomes["cut"]) == (1, 1)
    assert outcomes["unparsable"] == annotations.facts["counts"].get("annotator: unparsable", 0)
    assert len(found) + len(left) == len(annotations)
    [row] = [row for row in found if row["outcome"] == "leaking"]
    assert (row["problem_id"], row["text"]) == (gone[0][0], leaking.text)


def test_means_leave_out_what_was_never_measured():
    critique = read_critique(
        Solution(Problem("id", "?", "27", "", "gsm8k"), "28", "wrong", "28"), "Correctness: Wrong"
    )
    tallies = [(Tally(4, 3), Tally(2, 1)), (Tally(0, 0), Tally(2, 2)), (Tally(4, 1), Tally(0, 0))]
    candidates = [Candidate(critique, "me", *pair) for pair in tallies]
    effect = statistics_of(candidates, candidates, None, SOFT).filter["none"]
    assert effect.kept == effect.of == 3
    assert effect.refined_right == (0.75 + 0.25) / 2
    assert (effect.alone_right, effect.uplift) == (0.5, 0.25)


def test_nothing_kept_is_a_dataset_without_rows(built, tmp_path):
    _, candidates, _ = built
    data = results(tmp_path, candidates, [], command="")  # As a notebook builds it.
    write_dataset([], candidates, data)
    assert sorted(p.name for p in data.dataset.iterdir()) == ["README.md", "rejected.jsonl"]
    assert "implements it.\n\n## Statistics" in (data.dataset / "README.md").read_text()


def test_another_threshold_only_selects(built):
    _, candidates, _ = built
    sizes = [len(keep(candidates, FilterRule("soft", tau), 0)[0]) for tau in (0.0, 0.3, 0.9)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_a_row_of_a_flawed_response():
    problem = Problem("id", "Ünï?", "27", "<<12+15=27>>27", "gsm8k")
    solution = Solution(
        problem,
        "12+15=28\nThe answer is 28.",
        "wrong",
        "28",
        "RG3",
        0,
        "12+15 is 27",
        "calculation",
    )
    critique = read_critique(solution, "Step 1: a\nCorrectness: Wrong")
    row = dataset_row(Candidate(critique, "me", Tally(10, 4, 1), Tally(5, 2)))
    assert row["filter_counts"] == {
        "refinements": 10, "right": 4, "leaked": 1, "alone_samples": 5, "alone_right": 2,
    }  # fmt: skip
    assert (row["first_error"], row["error_step"], row["error_type"]) == (0, 0, "calculation")
    assert row["steps"] == ["12+15=28"]
    right = Candidate(read_critique(solution, "Final answer: Correct"), "me", None, None)
    assert dataset_row(right)["first_error"] == -1


@pytest.mark.parametrize(("text", "false"), [
    ("Step 1: a\nExplanation: 12+15=27, not 28.\nCorrectness: Wrong", False),
    ("Step 1: a\nExplanation: 12+15: 12+10=22, 22+5=27, not 28.\nCorrectness: Wrong", False),
    ("Step 1: a\nExplanation: 12+15: 12+10=23, 23+5=28, not 28.\nCorrectness: Wrong", True),
    ("Step 1: a\nExplanation: 12+15: 12+10=22, 22+6=28, not 28.\nCorrectness: Wrong", True),
    ("Step 1: a\nExplanation: 2: 12+15=27, not 28.\nCorrectness: Wrong", False),
    ("Step 1: a\nExplanation: no.\nCorrectness: Wrong", False),
    ("Step 1: a\nExplanation: The student says 12+15=28, but 12+15=27.\nCorrectness: Wrong", False),
    ("Step 1: a\nExplanation: 12+15=28 is wrong; it is 27.\nCorrectness: Wrong", False),
    ("Step 1: a\nExplanation: 12+15=28 is wrong; 12+15=26.\nCorrectness: Wrong", True),
    ("Step 1: a\nExplanation: 12+15=29, not 28.\nCorrectness: Wrong", True),
    ("Step 1: a\nCorrectness: Correct\nFinal answer: Correct", True),
    ("Step 1: a\nCorrectness: Correct\nStep 2: b\nCorrectness: Wrong", True),
])  # fmt: skip
def test_false_critiques(text, false):
    problem = Problem("id", "?", "27", "<<12+15=27>>27", "word_problems")
    solution = Solution(problem, "<<12+15=28>>28\nThe answer is 28.", "wrong", "28")
    assert is_false(read_critique(solution, text), CHECKER) == false


def test_no_critique_is_false_where_another_way_may_be_right():
    problem = Problem("id", "?", "72", "<<48/2=24>>24\n<<48+24=72>>72", "gsm8k")
    lines = "Twice: <<48*2=96>>96\nHalf: <<96/4=24>>24\nBoth: <<48+20=68>>68\nThe answer is 68."
    text = "Step 3: a\nExplanation: it is 24, not 20.\nCorrectness: Wrong"
    critique = read_critique(Solution(problem, lines, "wrong", "68"), text)
    assert is_false(critique, ArithmeticAnnotator(one_plan=False)) is None


def test_what_cannot_be_checked_is_not_false():
    problem = Problem("id", "?", "27", "Guess.", "math")
    assert is_false(read_critique(Solution(problem, "28", "wrong", "28"), "Hm."), CHECKER) is None
