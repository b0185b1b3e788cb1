"""Scores, differences and levels on made-up records whose figures can be worked out by hand."""

import csv
import itertools
import pathlib
import random
from statistics import fmean

import pytest

from jaxcritique.analysis.evaluation_report import evaluation_figures, evaluation_tables
from jaxcritique.analysis.methods import Method
from jaxcritique.analysis.page import write_report
from jaxcritique.records import Critique, Problem, Refinement, Solution
from jaxcritique.roles import COSTS
from jaxcritique.testtime.rounds import PROTOCOLS, Chain
from jaxcritique.testtime.scores import (
    Point,
    alone_points,
    before_and_after,
    by_level,
    differences,
    greedy_points,
    parallel_points,
    rows_of,
    samples_needed,
    sequential_points,
)

ALONE = "no critic"
PROBLEMS = [Problem(f"p-{i}", "?", "5", "", "gsm8k", level=1 + 4 * i) for i in range(2)]
EVERY, FLAGGED, ORACLE = PROTOCOLS.values()


def same(first: str, second: str) -> bool:
    return first == second


def solution(problem: Problem, answer: str, tokens: int = 10) -> Solution:
    return Solution(problem, "", "correct" if answer == "5" else "wrong", answer, tokens=tokens)


def chain(problem: Problem, *answers: str, says: bool | None = False) -> Chain:
    """Answers with critiques of 6 tokens and refinements of 4 between them."""
    made = Chain(solution(problem, answers[0]))
    for answer in answers[1:]:
        critique = Critique(made.response, "", says, None, 6)
        verdict = "correct" if answer == "5" else "wrong"
        refinement = Refinement(critique, "", verdict, answer, 4)
        made = Chain(made.response, (*made.critiques, critique), (*made.refinements, refinement))
    return made


def table(points: list[Point]) -> dict[tuple[str, str, int], Point]:
    return {(str(point.method), point.metric, point.k): point for point in points}


def test_greedy_accuracy_under_each_protocol():
    chains = [chain(PROBLEMS[0], "5", "7", says=True), chain(PROBLEMS[1], "7", "5")]
    found = table(greedy_points(chains, PROTOCOLS))
    scores = {method: list(point.scores.values()) for (method, _, _), point in found.items()}
    assert scores == {
        ALONE: [1, 0],
        "refine_all": [0, 1],
        "refine_flagged": [1, 1],
        "oracle": [1, 1],
    }
    tokens = [point.tokens for point in found.values()]
    assert tokens == [10, 20, (10 + 6 + 20) / 2, (10 + 20) / 2]


def test_before_and_after_a_round_as_counted_by_hand():
    before = {"p-0": "577", "p-1": "575"}  # The votes: 7 and 5.
    after = {"p-0": "557", "p-1": "477"}  # 5 and 7: one turns right, one wrong.
    says = {"p-0": (None, False, True), "p-1": (False, True, False)}
    chains = [
        chain(problem, *answers, says=verdict)
        for problem in PROBLEMS
        for *answers, verdict in zip(
            before[problem.id], after[problem.id], says[problem.id], strict=True
        )
    ]
    protocols = {Method("named", "all"): EVERY, Method("named", "flagged"): FLAGGED}
    found = table(before_and_after(PROBLEMS, protocols, chains, same))
    scores = {key: list(point.scores.values()) for key, point in found.items()}
    assert scores == {
        (ALONE, "share", 3): [1 / 3, 2 / 3],
        (ALONE, "vote", 3): [0, 1],
        ("all", "share", 3): [2 / 3, 0],
        ("all", "vote", 3): [1, 0],
        ("flagged", "share", 3): [2 / 3, 0],  # 5, 5, 7 and 4, 7, 7.
        ("flagged", "vote", 3): [1, 0],
    }
    assert found["all", "vote", 3].tokens == 3 * 20
    with pytest.raises(ValueError, match="problem p-1 has 0 samples"):
        before_and_after(PROBLEMS, protocols, chains[:3], same)


@pytest.mark.parametrize("seed", range(20))
def test_before_and_after_is_the_share_and_the_plain_vote_of_any_answers(seed):
    rng = random.Random(seed)
    answers = {p.id: [rng.choices("5789", k=2) for _ in range(5)] for p in PROBLEMS}
    chains = [chain(p, *pair) for p in PROBLEMS for pair in answers[p.id]]
    found = table(before_and_after(PROBLEMS, {Method("named", "all"): EVERY}, chains, same))
    for side, method in enumerate((ALONE, "all")):
        for id_, pairs in answers.items():
            given = [pair[side] for pair in pairs]
            assert found[method, "share", 5].scores[id_] == given.count("5") / 5
            wins = max(given, key=given.count) == "5"
            assert found[method, "vote", 5].scores[id_] == wins


def test_parallel_is_the_mean_over_subsets_of_refined_answers():
    answers = {"p-0": "5775", "p-1": "7575"}
    chains = [chain(p, "1", answer) for p in PROBLEMS for answer in answers[p.id]]
    found = table(
        parallel_points(PROBLEMS, Method("parallel", "x"), EVERY, chains, [1, 2, 3], same)
    )
    for k in (1, 2, 3):
        point = found["parallel, x", "maj", k]
        for id_, given in answers.items():
            votes = [
                max(chosen, key=chosen.count) == "5" for chosen in itertools.combinations(given, k)
            ]
            assert point.scores[id_] == pytest.approx(fmean(votes))
        assert point.tokens == 20 * k
    assert found["parallel, x", "pass", 2].scores["p-0"] == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="problem p-0 has 4 samples where K is 5"):
        parallel_points(PROBLEMS, Method("parallel", "x"), EVERY, chains, [5], same)
    with pytest.raises(ValueError, match="problem p-1 has 0 samples"):
        parallel_points(PROBLEMS, Method("parallel", "x"), EVERY, chains[:4], [1], same)


def test_sequential_takes_the_rounds_in_their_order():
    chains = [chain(PROBLEMS[0], "7", "5", "5", "8"), chain(PROBLEMS[1], "5", "7", "7", "5")]
    found = table(
        sequential_points(PROBLEMS, Method("sequential", "x"), EVERY, chains, [1, 2, 3], same)
    )
    scores = {key[1:]: list(point.scores.values()) for key, point in found.items()}
    assert scores == {
        ("maj", 1): [0, 1],  # Of a tie the first.
        ("pass", 1): [1, 0],  # Of one answer each, as in parallel.
        ("final", 1): [1, 0],
        ("maj", 2): [1, 0],
        ("pass", 2): [1, 0],
        ("final", 2): [1, 0],
        ("maj", 3): [1, 1],
        ("pass", 3): [1, 1],
        ("final", 3): [0, 1],
    }
    assert [found["sequential, x", "maj", k].tokens for k in (1, 2, 3)] == [20, 30, 40]
    samples = {metric: found["sequential, x", metric, 3].samples for metric in ("maj", "pass")}
    assert samples == {"maj": 4, "pass": 3}
    parallel = table(parallel_points(PROBLEMS, Method("parallel", "x"), EVERY, chains, [1], same))
    assert parallel["parallel, x", "pass", 1].scores == found["sequential, x", "pass", 1].scores
    ended = sequential_points(PROBLEMS, Method("sequential", "x"), ORACLE, chains, [3], same)
    by_metric = {point.metric: point for point in ended}
    # An answer that nothing is done to any more stands for all rounds that are left.
    assert by_metric["maj"].samples == by_metric["final"].samples == 4
    assert by_metric["pass"].samples == 3
    assert by_metric["maj"].tokens == (20 + 10) / 2
    assert list(by_metric["pass"].scores.values()) == [1, 1]
    with pytest.raises(ValueError, match="problem p-0 has no critique in round 4"):
        sequential_points(PROBLEMS, Method("sequential", "x"), EVERY, chains, [4], same)
    with pytest.raises(ValueError, match="problem p-1 has 0 samples"):
        sequential_points(PROBLEMS, Method("sequential", "x"), EVERY, chains[:1], [1], same)


def test_a_refinement_that_is_accepted_outvotes_the_response_it_mends():
    mended = chain(PROBLEMS[0], "7", "5")
    accepted = Critique(mended.refinements[0], "", True, None, 6)
    mended = Chain(mended.response, (*mended.critiques, accepted), mended.refinements)
    spoilt = chain(PROBLEMS[1], "5", "7", says=False)
    accepted = Critique(spoilt.refinements[0], "", True, None, 6)
    spoilt = Chain(spoilt.response, (*spoilt.critiques, accepted), spoilt.refinements)
    found = table(
        sequential_points(
            PROBLEMS, Method("sequential", "x"), FLAGGED, [mended, spoilt], [1, 2, 9], same
        )
    )
    votes = {k: list(found["sequential, x", "maj", k].scores.values()) for k in (1, 2, 9)}
    assert votes == {1: [0, 1], 2: [1, 0], 9: [1, 0]}
    assert list(found["sequential, x", "final", 1].scores.values()) == [1, 0]
    assert [found["sequential, x", "maj", k].tokens for k in (1, 2, 9)] == [20, 26, 26]


def test_baselines_spend_as_much():
    chains = [chain(p, "7", "5") for p in PROBLEMS for _ in range(2)]
    # A triple costs 20 tokens; a sample of the actor 8, so it is worth 2.5 of them.
    with_critic = parallel_points(PROBLEMS, Method("parallel", "x"), EVERY, chains, [1, 2], same)
    assert samples_needed(with_critic, 8) == 6
    assert samples_needed(with_critic, 2) == 20
    samples = [solution(p, answer, 8) for p in PROBLEMS for answer in "575777"]
    found = table(alone_points(PROBLEMS, samples, [1, 2], with_critic, 8, same))
    taken = {(method, k): point.samples for (method, _, k), point in found.items()}
    assert taken == {
        (ALONE, 1): 1,
        (ALONE, 2): 2,
        (f"{ALONE}, 2K", 1): 2,
        (f"{ALONE}, 2K", 2): 4,
        (f"{ALONE}, 3K", 1): 3,
        (f"{ALONE}, 3K", 2): 6,
        (f"{ALONE}, tokens of parallel, x", 1): 2.5,
        (f"{ALONE}, tokens of parallel, x", 2): 5,
    }
    equal = found[f"{ALONE}, tokens of parallel, x", "pass", 1]
    assert equal.tokens == 20
    assert equal.scores["p-0"] == pytest.approx((9 / 15 + 16 / 20) / 2)  # Of 2 and of 3 samples.
    rows = differences([*found.values(), *with_critic], seed=0)
    gain = next(
        row
        for row in rows
        if row["metric"] == "pass" and row["k"] == 1 and "tokens" in row["minus"]
    )
    assert gain["difference"] == pytest.approx(0.3)
    assert {row["minus"] for row in rows} == {method for method, _ in taken}
    with pytest.raises(ValueError, match="problem p-0 has 5 samples where K is 6"):
        alone_points(PROBLEMS, samples[:5] + samples[6:], [1, 2], with_critic, 8, same)


def test_without_a_critic_there_is_the_actor_alone():
    samples = [solution(p, answer) for p in PROBLEMS for answer in "57"]
    points = alone_points(PROBLEMS, samples, [1, 2], [], 10, same)
    assert [str(point.method) for point in points] == 4 * [ALONE]
    assert differences(points, seed=0) == []


def test_ways_to_scale_are_compared_with_each_other():
    def point(method: Method, metric: str, score: float) -> Point:
        return Point(method, metric, 4, 4, 1.0, {"p-0": score, "p-1": score})

    rows = differences(
        [
            point(Method("parallel", "x"), "maj", 0.9),
            point(Method("sequential", "x"), "maj", 0.7),
            point(Method("sequential", "x"), "final", 0.6),
            point(Method("sequential", "y"), "maj", 0.1),
        ],
        seed=0,
    )
    found = {(r["method"], r["minus"], r["minus_metric"]): r["difference"] for r in rows}
    assert found == {
        ("parallel, x", "sequential, x", "maj"): pytest.approx(0.2),
        ("parallel, x", "sequential, x", "final"): pytest.approx(0.3),
        ("sequential, x", "sequential, x", "final"): pytest.approx(0.1),
    }


def test_methods_are_values_with_the_names_of_published_results():
    named_so = {
        Method("alone", multiple=1): "no critic",
        Method("alone", multiple=3): "no critic, 3K",
        Method(
            "alone", tokens_of=Method("parallel", "oracle")
        ): "no critic, tokens of parallel, oracle",
        Method("sequential", "refine_all"): "sequential, refine_all",
        Method("one round", "refine_all"): "refine_all",
        Method("named", "self-talk"): "self-talk",
    }
    assert {method: str(method) for method in named_so} == named_so
    # Equal names are not yet equal methods.
    assert Method("named", "no critic") != Method("alone", multiple=1)


def test_levels_split_means_and_gains():
    points = [
        Point(Method("alone", multiple=1), "maj", 2, 2, 1.0, {"p-0": 1.0, "p-1": 0.0}),
        Point(Method("alone", multiple=3), "maj", 2, 6, 1.0, {"p-0": 1.0, "p-1": 0.5}),
        Point(Method("parallel", "x"), "maj", 2, 2, 1.0, {"p-0": 1.0, "p-1": 0.25}),
    ]
    rows = by_level(PROBLEMS, points, seed=0)
    assert [(r["level"], r["method"], r["mean"], r["gain"]) for r in rows] == [
        ("1", ALONE, 1.0, None),
        ("1", f"{ALONE}, 3K", 1.0, None),
        ("1", "parallel, x", 1.0, 0.0),
        ("5", ALONE, 0.0, None),
        ("5", f"{ALONE}, 3K", 0.5, None),
        ("5", "parallel, x", 0.25, 0.25),
    ]
    assert all(row["problems"] == 1 for row in rows)


@pytest.fixture
def results():
    chains = [chain(p, "7", "5", "7") for p in PROBLEMS for _ in range(2)]
    points = greedy_points(chains[::2], {"refine_all": EVERY})
    ways = parallel_points(PROBLEMS, Method("parallel", "refine_all"), EVERY, chains, [1, 2], same)
    ways += sequential_points(
        PROBLEMS, Method("sequential", "refine_all"), EVERY, chains[::2], [1, 2], same
    )
    samples = [solution(p, answer) for p in PROBLEMS for answer in "575777"]
    points += [*alone_points(PROBLEMS, samples, [1, 2], ways, 10, same), *ways]
    return {
        "command": "python -m experiments.evaluate --k=<b>1</b>",
        "seed": 7,
        "settings": {"k": ["1", "2"]},
        "wall_seconds": 61.0,
        "peak_rss_bytes": 2**30,
        "task": "gsm8k",
        "actor": "models/<i>actor</i>",
        "critic": "models/critic",
        "problems": 2,
        "failed": 3,
        "points": rows_of(points, 0),
        "differences": differences(points, 0),
        "levels_by": "100 samples, fifths",
        "by_level": by_level(PROBLEMS, points, 0),
        "costs": {"respond": dict.fromkeys(COSTS, 1234)},
    }


def write(results: dict, run_dir: pathlib.Path) -> None:
    tables, drawn = evaluation_tables(results), evaluation_figures(results)
    write_report("evaluation.html.jinja", results, run_dir, tables, drawn)


def test_the_page_holds_tables_and_figures_and_their_numbers(results, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "sequential_oracle.csv").write_text("of another --protocol")
    write(results, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 6
    for shown in ("Maj@K", "Pass@K", "Figure 12", "1,234", "3 samples failed", "0:01:01"):
        assert shown in page
    for hostile in ("<b>1</b>", "<i>actor</i>"):
        assert hostile not in page
    drawn = sorted(path.stem for path in (tmp_path / "figures").iterdir())
    assert drawn == [
        "greedy_by_level", "maj_at_k", "maj_by_level", "maj_by_tokens", "pass_at_k",
        "sequential_refine_all",
    ]  # fmt: skip
    with (tmp_path / "figures/maj_at_k.csv").open() as file:
        rows = list(csv.DictReader(file))
    point = next(r for r in rows if (r["series"], r["k"]) == ("parallel, refine_all", "2"))
    known = next(
        r
        for r in results["points"]
        if (r["method"], r["metric"], r["k"]) == ("parallel, refine_all", "maj", 2)
    )
    assert float(point["mean"]) == known["mean"]
    assert [float(point["low"]), float(point["high"])] == list(known["ci95"])


def test_tables_are_whole(results):
    tables = {table.title: table.rows for table in evaluation_tables(results)}
    for rows in tables.values():
        assert {len(row) for row in rows} == {len(rows[0])}
    assert tables["One greedy answer"][2][:4] == (
        "refine_all", "100.0%", "100.0-100.0", "+100.0 (+100.0 to +100.0)",
    )  # fmt: skip
    assert [row[0] for row in tables["Maj@K"]] == [
        "Method",
        ALONE,
        f"{ALONE}, 2K",
        f"{ALONE}, 3K",
        f"{ALONE}, tokens of parallel, refine_all",
        f"{ALONE}, tokens of sequential, refine_all",
        "parallel, refine_all",
        "sequential, refine_all",
    ]
    assert tables["By difficulty"][0][2:] == ("Level 1 (1)", "Level 5 (1)")


def test_without_a_critic_and_levels_less_is_shown(results, tmp_path):
    for name in ("points", "differences", "by_level"):
        results[name] = [row for row in results[name] if row["method"] == ALONE]
    results |= {"critic": None, "failed": 0, "by_level": []}
    write(results, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "no critic" in page
    assert "samples failed" not in page
