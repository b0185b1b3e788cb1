"""Table 5 from chains whose scores are known."""

import itertools

import pytest

from jaxcritique.analysis.methods import ALONE, Method
from jaxcritique.improvement.self_talk import SelfTalkResults, SelfTalkTranscript
from jaxcritique.improvement.self_talk_report import (
    METHODS,
    SELF_CORRECTION,
    SELF_TALK,
    UNTOUCHED,
    comparisons,
    method_points,
    self_talk_tables,
)
from jaxcritique.records import Critique, Problem, Refinement, Solution
from jaxcritique.roles import COSTS, no_critique
from jaxcritique.testtime.rounds import PROTOCOLS, Chain
from jaxcritique.testtime.scores import rows_of

REFINE_ALL = Method("one round", "refine_all")
PROBLEMS = [Problem(f"p{i}", f"{i}?", "5", "", "gsm8k", level=i + 1) for i in range(4)]


def answered(problem: Problem, right: bool, tokens: int = 10) -> Solution:
    answer = "5" if right else "6"
    return Solution(problem, answer, "correct" if right else "wrong", answer, tokens=tokens)


def mended(problem: Problem, before: bool, after: bool, critic: bool) -> Chain:
    """An answer refined once; with a critic that cost 3 tokens, or by the actor alone."""
    first, last = answered(problem, before), answered(problem, after)
    critique = Critique(first, "c", False, None, 3) if critic else no_critique(first)
    return Chain(first, (critique,), (Refinement(critique, "r", last.verdict, last.answer, 7),))


@pytest.fixture
def points():
    every = PROTOCOLS["refine_all"]

    def of(method, protocol, chains):
        greedy, sampled = [chains(p, i) for i, p in enumerate(PROBLEMS)], []
        for i, problem in enumerate(PROBLEMS):
            sampled += [chains(problem, i), chains(problem, i + 1)]
        same = str.__eq__
        return method_points(PROBLEMS, method, protocol, greedy, sampled, [1, 2], same)

    return [
        *of(REFINE_ALL, every, lambda p, i: mended(p, i < 1, i < 4, critic=True)),
        *of(ALONE, UNTOUCHED, lambda p, i: mended(p, i < 1, i < 4, critic=True)),
        *of(SELF_TALK, UNTOUCHED, lambda p, i: Chain(answered(p, i < 3, tokens=30))),
        *of(SELF_CORRECTION, every, lambda p, i: mended(p, i < 1, i < 2, critic=False)),
    ]


def test_each_method_is_scored_after_its_own_rounds(points):
    found = {(p.method, p.metric, p.k): p for p in points}
    greedy = {m: found[m, "greedy", 1] for m in (ALONE, SELF_CORRECTION, SELF_TALK, REFINE_ALL)}
    assert [sum(p.scores.values()) for p in greedy.values()] == [1, 2, 3, 4]
    # Without a critic only the answer is paid for; whoever corrects himself pays no critic.
    assert [p.tokens for p in greedy.values()] == [10, 17, 30, 20]
    # Of two samples the second is of a harder kind: self-talk fails at it one problem earlier.
    assert found[SELF_TALK, "pass", 1].scores == {"p0": 1, "p1": 1, "p2": 0.5, "p3": 0}
    assert found[SELF_TALK, "pass", 2].scores == {"p0": 1, "p1": 1, "p2": 1, "p3": 0}
    assert found[SELF_TALK, "maj", 2].scores == {"p0": 1, "p1": 1, "p2": 1, "p3": 0}


def test_every_pair_is_compared_at_the_same_metric_and_k(points):
    rows = comparisons(points, seed=0)
    pairs = {(row["method"], row["minus"]) for row in rows}
    order = [str(m) for m in (REFINE_ALL, SELF_TALK, SELF_CORRECTION, ALONE)]
    assert pairs == set(itertools.combinations(order, 2))
    assert len(rows) == 6 * 5  # Greedy, and two metrics at two K.
    [row] = [
        row for row in rows
        if (row["method"], row["minus"], row["metric"]) == (*order[1:3], "greedy")
    ]  # fmt: skip
    assert row["difference"] == 0.25
    assert row["ci95"][0] <= 0.25 <= row["ci95"][1]


def test_the_page_escapes_what_models_wrote(points, tmp_path):
    order = [p for method in METHODS for p in points if p.method == method]
    results = SelfTalkResults(
        command="python -m experiments.self_talk",
        seed=0,
        settings={"rounds": 3},
        wall_seconds=1.0,
        peak_rss_bytes=2**30,
        run_dir=tmp_path,
        task="gsm8k",
        critic="checker",
        data_critic="checker",
        problems=4,
        failed=0,
        points=rows_of(order, 0),
        differences=comparisons(order, 0),
        counts={"paths": 1234, "kept": 5},
        costs={"sft-greedy": dict.fromkeys(COSTS, 7)},
        models={},
        transcripts=[
            SelfTalkTranscript(
                of="Training example",
                question="q",
                answer="5",
                text="<script>alert(1)</script>\nWait, ждать.",
                verdict="correct",
            )
        ],
    )
    results.write_report()
    page = (tmp_path / "report.html").read_text()
    assert "<script>" not in page
    assert "ждать" in page
    assert "1,234" in page
    table = self_talk_tables(results.to_json())[0].rows
    assert [row[0] for row in table] == [
        "Method", "SFT, response only", "Self-correction", "Self-talk via critique",
        "SFT + test-time critic, refine_all",
    ]  # fmt: skip
    assert [row[1] for row in table[1:]] == ["25.0%", "50.0%", "75.0%", "100.0%"]
    assert table[0][3:7] == ("Maj@1", "Maj@2", "Pass@1", "Pass@2")
    assert all(cell in page for row in table for cell in row)
