"""Claims on made-up records whose effects are known."""

import dataclasses
import itertools
import json
from statistics import fmean

import numpy as np
import pytest
from synthetic import PROBLEMS, PROTOCOL, everything

from experiments.reproduction.claims import CLAIMS, measure_claims
from experiments.reproduction.evidence import Evidence, NotMeasured, PartOutput, minus, read_output
from experiments.reproduction.figures import paper_figures
from experiments.reproduction.measuring import (
    FEWEST,
    Aspect,
    Claim,
    Contrast,
    MeasuredClaim,
    harder,
    measure,
    verdict,
)
from jaxcritique.analysis.intervals import Estimate, block_difference, paired_difference


@pytest.fixture
def evidence() -> Evidence:
    return Evidence({0: everything(), 1: everything()})


def judge(evidence: Evidence, id_: str, protocol: str = PROTOCOL) -> MeasuredClaim:
    return measure(next(claim for claim in CLAIMS if claim.id == id_), evidence, protocol)


@pytest.mark.parametrize("protocol", ["refine_flagged", "refine_all"])
def test_all_fourteen_hold_where_they_were_made_to(protocol):
    evidence = Evidence({0: everything(protocol), 1: everything(protocol)})
    measured = measure_claims(evidence, protocol)
    assert [claim.claim.id for claim in measured] == [f"C{number}" for number in range(1, 15)]
    assert {claim.claim.id: claim.holds for claim in measured} == {
        claim.claim.id: "yes" for claim in measured
    }
    json.dumps([claim.to_json() for claim in measured])  # As it goes into results.json.
    for claim in measured:
        low, high = claim.first.ci95
        assert low <= claim.first.effect <= high
        assert claim.first.seeds.keys() == {0, 1}
        assert claim.why == ""


# Of all aspects in their order, those beside the claim too.
EFFECTS = {
    "C1": [0.18, 0.16, 0.13, 0.13, 0.13],
    "C2": [0.3, 0.2, 0.15, 0.2],
    "C3": [0.3],
    "C4": [0.18, (3 * 0.05 + 2 * 0.15) / 5, 0.18, 0.13],
    "C5": [2 * 2 / (3 + 2 * 2) - 2 / 5],
    "C6": [0.2],
    "C7": [0.18, 0.15, 0.25, 0.1, 0.07, 0.19],
    "C8": [0.16, 0.16],
    "C9": [0.1, 0.1, 0.1],
    "C10": [0.2, 0.25],
    "C11": [0.2, 0.1],
    "C12": [0.25, 0.15, 0.03, 0.1],
    "C13": [0.1, 0.1],
    "C14": [0.1, 0.1, 0.1, 0.0],
}


@pytest.mark.parametrize("protocol", ["refine_flagged", "refine_all"])
@pytest.mark.parametrize("id_", EFFECTS)
def test_effects_are_those_the_records_were_made_with(protocol, id_):
    claim = judge(Evidence({0: everything(protocol)}), id_, protocol)
    assert claim.first.effect == claim.aspects[0].effect
    effects = [aspect.effect for aspect in claim.aspects]
    assert effects == pytest.approx(EFFECTS[id_], abs=0.011)


def test_what_was_refined_otherwise_is_not_taken_for_it(evidence):
    measured = {claim.claim.id: claim for claim in measure_claims(evidence, "refine_all")}
    same = {"C4", "C5", "C6", "C8"}  # About training alone.
    assert {id_ for id_, claim in measured.items() if claim.holds == "yes"} == same
    for id_ in measured.keys() - same:
        assert "refine_all" in measured[id_].why


@pytest.mark.parametrize("id_", ["C1", "C12"])
def test_one_k_is_not_a_small_one_and_a_large_one(evidence, id_):
    claim = judge(changed(evidence, "evaluate", lambda r: r if r["k"] == 5 else None), id_)
    assert (claim.holds, claim.first.effect) == ("unmeasured", None)
    assert "needs two of them" in claim.why


def test_n_counts_problems_not_seeds(evidence):
    assert judge(evidence, "C1").first.n == len(PROBLEMS)
    assert judge(evidence, "C5").first.n == len(PROBLEMS)


def changed(evidence: Evidence, part: str, change) -> Evidence:
    """The evidence with each row of a part changed, or left out where that gives None."""

    def run(old: PartOutput) -> PartOutput:
        new = [row for row in map(change, old.scores) if row is not None]
        return dataclasses.replace(old, scores=new)

    return Evidence(
        {
            seed: {name: run(old) if name == part else old for name, old in runs.items()}
            for seed, runs in evidence.outputs.items()
        }
    )


def test_each_seed_has_its_own_effects_levels_and_training_problems(evidence):
    """In the second seed what is hard in the first is easy, and other problems are trained on."""
    runs = dict(everything())
    turned = [{**row, "level": 6 - row["level"]} for row in runs["evaluate"].scores]
    runs["evaluate"] = dataclasses.replace(runs["evaluate"], scores=turned)
    others = [{**row, "problem": f"other-{row['problem']}"} for row in runs["improve"].training]
    runs["improve"] = dataclasses.replace(runs["improve"], training=others)
    both = Evidence({0: everything(), 1: runs})
    claim = judge(both, "C3")
    assert claim.first.seeds == pytest.approx({0: 0.3, 1: 0 - (0.3 + 0.3 + 0) / 3})
    assert claim.first.effect == pytest.approx((0.3 + 0) / 2 - (0 + 0.2) / 2)
    assert judge(both, "C6").first.seeds == pytest.approx({0: 0.2, 1: 0.1 - (0.3 + 0.3 + 0.1) / 3})
    assert judge(both, "C5").first.n == 2 * len(PROBLEMS)
    assert judge(both, "C4").first.n == len(PROBLEMS)


def test_a_seed_without_levels_leaves_what_is_about_them_to_the_others(evidence):
    runs = {name: run for name, run in everything().items() if name != "evaluate"}
    some = Evidence({0: everything(), 1: runs})
    assert judge(some, "C6").first.seeds.keys() == {0}
    figures = {figure.name: figure for figure in paper_figures(some, PROTOCOL)}
    assert figures["figure_8"].rows


def test_a_claim_with_one_aspect_the_wrong_way_round_does_not_hold(evidence):
    def beaten(row):
        return {**row, "score": 1.0} if row["method"] == "no critic, 3K" else row

    claim = judge(changed(evidence, "evaluate", beaten), "C1")
    assert claim.holds == "no"
    assert claim.first.effect > 0  # The first aspect's.
    assert [a.holds for a in claim.aspects if not a.beside] == ["yes", "yes", "no", "yes"]


def test_no_difference_is_undecided(evidence):
    def level_with(row):
        if row["method"] != "critique":
            return row
        return {**row, "score": float(int(row["problem"][1:]) // 5 < 16)}  # As vanilla's.

    claim = judge(changed(evidence, "improve", level_with), "C4")
    larger, smaller, *_ = claim.aspects
    assert (larger.effect, larger.ci95, larger.holds) == (0, (0, 0), "undecided")
    assert smaller.holds == "yes"
    assert claim.holds == "undecided"


def test_parallel_that_equals_sequential_is_at_least_it(evidence):
    def as_parallel(row):
        sequential = row["metric"] == "pass" and row["method"].startswith("sequential")
        return None if sequential else row

    without = changed(evidence, "evaluate", as_parallel)
    for runs in without.outputs.values():
        run = runs["evaluate"]
        same = [
            {**row, "method": row["method"].replace("parallel", "sequential")}
            for row in run.scores
            if row["metric"] == "pass" and row["method"].startswith("parallel")
        ]
        runs["evaluate"] = dataclasses.replace(run, scores=[*run.scores, *same])
    claim = judge(without, "C11")
    assert (claim.holds, claim.first.effect, claim.first.ci95) == ("yes", 0, (0, 0))


def test_what_is_missing_is_not_measured_and_named(evidence):
    without = Evidence({0: {k: run for k, run in everything().items() if k != "improve-small"}})
    claim = judge(without, "C4")
    assert claim.holds == "undecided"
    assert claim.first.effect is not None  # Of the larger N.
    assert claim.why == "improve-small has not been run"
    assert (claim.aspects[1].holds, claim.aspects[1].effect) == ("unmeasured", None)
    nothing = judge(Evidence({0: {}}), "C9")
    assert (nothing.holds, nothing.first.effect, nothing.first.n) == ("unmeasured", None, None)
    assert nothing.why == "scaling has not been run"


def test_missing_rows_of_one_seed_are_not_measured(evidence):
    runs = dict(everything())
    kept = [row for row in runs["evaluate"].scores if row["metric"] != "pass"]
    runs["evaluate"] = PartOutput({}, kept)
    claim = judge(Evidence({0: everything(), 1: runs}), "C11")
    assert claim.holds == "unmeasured"
    assert "evaluate, seed 1, has no scores of metric pass, method parallel" in claim.why


def test_a_part_that_a_seed_lacks_is_said_to_be_without_it():
    less = {name: run for name, run in everything().items() if name != "improve-small"}
    claim = judge(Evidence({0: everything(), 1: less, 2: less}), "C4")
    whole, partial = claim.aspects[:2]
    assert (list(whole.seeds), whole.why) == ([0, 1, 2], "")
    assert (list(partial.seeds), partial.why) == ([0], "without seed 1, 2")
    assert (claim.holds, claim.why) == ("yes", "without seed 1, 2")


def test_one_missing_problem_is_an_error_not_a_zero(evidence):
    def all_but_one(row):
        gone = row["method"] == "vanilla" and row["iteration"] == 3 and row["problem"] == "p7"
        return None if gone else row

    with pytest.raises(ValueError, match="1 problems are scored by one side only"):
        judge(changed(evidence, "improve", all_but_one), "C4")


def test_a_problem_scored_twice_is_an_error(evidence):
    runs = dict(everything())
    runs["self-talk"] = PartOutput({}, [*runs["self-talk"].scores, runs["self-talk"].scores[0]])
    with pytest.raises(ValueError, match="self-talk, seed 0: 201 scores"):
        judge(Evidence({0: runs}), "C13")


def test_two_critics_beside_the_actors_are_for_no_claim_of_one(evidence):
    both = changed(evidence, "scaling", lambda row: {**row, "critic": "a"})
    for runs in both.outputs.values():
        scaling = runs["scaling"]
        other = [{**row, "critic": "b"} for row in scaling.scores if row["method"] != "no critic"]
        runs["scaling"] = dataclasses.replace(scaling, scores=[*scaling.scores, *other])
    measured = {claim.claim.id: claim for claim in measure_claims(both, PROTOCOL)}
    assert measured["C9"].holds == "unmeasured"
    assert measured["C9"].why.startswith(
        "cannot be judged: scaling, seed 0, has 2 critics (a, b), and this is about one"
    )
    assert {claim.holds for id_, claim in measured.items() if id_ != "C9"} == {"yes"}
    figures = {figure.name: figure for figure in paper_figures(both, PROTOCOL)}
    assert "has 2 critics" in figures["figure_9"].why


def test_a_problem_that_one_actor_lacks_is_named(evidence):
    def lacks(row):
        return None if (row["actor"], row["problem"]) == ("large", "p7") else row

    claim = judge(changed(evidence, "scaling", lacks), "C9")
    assert [aspect.holds for aspect in claim.aspects] == ["yes", "yes", "unmeasured"]
    assert claim.why == (
        "cannot be judged: scaling, seed 0, has no score of actor large with oracle for problem "
        "p7, which others have"
    )


def test_without_levels_what_is_about_them_is_not_measured(evidence):
    without = changed(evidence, "evaluate", lambda row: {**row, "level": None})
    claim = judge(without, "C3")
    assert claim.holds == "unmeasured"
    assert claim.why == "the problems of evaluate have no difficulty levels"
    assert judge(without, "C1").holds == "yes"


def test_a_test_problem_that_evaluate_did_not_rate_has_no_level(evidence):
    fewer = changed(evidence, "evaluate", lambda row: row if row["problem"] != "p7" else None)
    claim = judge(fewer, "C6")
    assert (claim.holds, claim.first.effect) == ("unmeasured", None)
    assert claim.why == "seed 0: problem p7 has no difficulty level"
    figures = {figure.name: figure for figure in paper_figures(fewer, PROTOCOL)}
    assert figures["figure_8"].why == claim.why
    assert figures["figure_5"].rows


def test_seeds_that_only_one_side_has_are_left_out():
    first = {0: {"a": 1.0}, 1: {"a": 0.0}}
    assert minus(first, {1: {"a": 1.0}}) == {1: {"a": -1.0}}
    with pytest.raises(NotMeasured, match="no seed has both"):
        minus(first, {2: {"a": 1.0}})


def test_few_problems_decide_nothing():
    blocks = {0: {f"p{index}": [1.0] for index in range(FEWEST - 1)}}
    zeros = {0: {problem: [0.0] for problem in blocks[0]}}
    aspect = Aspect("it helps", lambda: Contrast(blocks, zeros))
    claim = measure(Claim("C", "", "", "", "", lambda *_: [aspect]), Evidence({}), PROTOCOL)
    assert (claim.holds, claim.first.effect) == ("undecided", 1)
    assert claim.why == "9 problems are too few"


def test_few_hard_problems_among_many_easy_ones_decide_nothing():
    scores = {0: {f"p{index}": float(index < FEWEST - 1) for index in range(200)}}
    levels = {0: {problem: 5 if score else 1 for problem, score in scores[0].items()}}
    aspect = harder("it helps on hard ones", lambda: scores, lambda: levels)
    claim = measure(Claim("C", "", "", "", "", lambda *_: [aspect]), Evidence({}), PROTOCOL)
    assert (claim.holds, claim.first.effect, claim.first.n) == ("undecided", 1, 200)
    assert claim.why == "9 problems are too few"


@pytest.mark.parametrize(
    ("ci95", "expected"),
    [
        ((0.01, 0.2), "yes"),
        ((-0.2, -0.01), "no"),
        ((-0.01, 0.2), "undecided"),
        ((0.0, 0.2), "undecided"),
        ((-0.2, 0.0), "undecided"),
    ],
)
def test_the_interval_decides(ci95, expected):
    assert verdict(Estimate(0.05, ci95)) == expected
    at_least = "yes" if ci95[0] == 0 else expected
    assert verdict(Estimate(0.05, ci95), at_least=True) == at_least


# ---- the interval


def test_one_score_a_problem_is_the_paired_difference():
    rng = np.random.default_rng(0)
    first, second = ({p: float(rng.random() < 0.5) for p in PROBLEMS} for _ in range(2))
    block = block_difference(
        {p: [score] for p, score in first.items()}, {p: [score] for p, score in second.items()}, 3
    )
    paired = paired_difference(first, second, 3)
    assert block.mean == pytest.approx(paired.mean)
    assert block.ci95 == pytest.approx(paired.ci95)


def test_blocks_are_resampled_as_by_listing_all_resamples():
    """Three problems with scores of different numbers: all 27 ways to draw three of them."""
    above = {"a": [1.0, 1.0], "b": [0.0], "c": []}
    below = {"a": [0.0], "b": [1.0, 0.0], "c": [1.0]}
    found = block_difference(above, below, 0)
    means = []
    for drawn in itertools.product("abc", repeat=3):
        first, second = ([s for p in drawn for s in side[p]] for side in (above, below))
        if first and second:
            means.append(fmean(first) - fmean(second))
    assert found.mean == pytest.approx(2 / 3 - 2 / 4)
    expected = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    assert found.ci95 == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("by_groups", [False, True], ids=["paired", "groups"])
def test_intervals_hold_the_true_difference_nineteen_times_in_twenty(by_groups, monkeypatch):
    """Problems differ in how much they gain, and their scores in two seeds hang together."""
    monkeypatch.setattr("jaxcritique.analysis.intervals.RESAMPLES", 1000)
    rng = np.random.default_rng(1)
    inside, trials = 0, 200
    for trial in range(trials):
        gains = rng.normal(0.1, 0.5, 60)
        noise = rng.normal(0, 0.2, (2, 60))
        scores = {f"p{index}": list(gains[index] + noise[:, index]) for index in range(60)}
        if by_groups:
            hard = {p: s for p, s in scores.items() if int(p[1:]) % 2}
            easy = {p: s for p, s in scores.items() if p not in hard}
            true, estimate = 0.0, block_difference(hard, easy, trial)
        else:
            zeros = {p: [0.0, 0.0] for p in scores}
            true, estimate = 0.1, block_difference(scores, zeros, trial)
        inside += estimate.ci95[0] <= true <= estimate.ci95[1]
    assert 0.89 * trials <= inside <= 0.99 * trials


def test_no_scores_are_refused():
    with pytest.raises(ValueError, match="from no scores"):
        block_difference({"a": [1.0]}, {"a": []}, 0)


# ---- reading


def test_a_run_is_read_as_it_was_left(tmp_path):
    (tmp_path / "results.json").write_text('{"seed": 1}')
    (tmp_path / "scores.jsonl").write_text('{"problem": "a\\u2028b", "score": 1}\n')
    assert read_output(tmp_path) == PartOutput(
        {"seed": 1}, [{"problem": "a\u2028b", "score": 1}], []
    )


def test_a_damaged_file_is_named_with_its_line(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "scores.jsonl").write_text('{"problem": "a"}\n{"prob')
    with pytest.raises(ValueError, match=r"scores\.jsonl:2: not JSON"):
        read_output(tmp_path)
    (tmp_path / "scores.jsonl").write_bytes(b'{"problem": "\xff"}')
    with pytest.raises(ValueError, match=r"scores\.jsonl:1: not JSON"):
        read_output(tmp_path)
    (tmp_path / "scores.jsonl").write_text('{"problem": "a"}\n5')
    with pytest.raises(ValueError, match=r"scores\.jsonl:2: not a JSON object\. Delete results"):
        read_output(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results\.json is not a JSON object"):
        read_output(tmp_path)
