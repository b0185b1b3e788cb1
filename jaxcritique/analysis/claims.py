"""The paper's fourteen claims, each measured with an interval (arXiv 2411.16579).

A claim is made of aspects, differences between two methods on the same problems (or between two
groups of problems), each written so that the claim says it is above zero. An aspect's interval
resamples problems, each with its scores in all seeds at once: the test problems are the same in
every seed, so scores of one problem are not independent of each other, and a mean over seeds is
less noisy than one run. Such an interval says what other problems would change, not what further
seeds would; the effect in each seed is therefore given beside it.

An aspect holds if its 95% interval lies above zero, and does not if it lies below. A claim holds if
all its aspects do (a conjunction, so no correction for their number is due), does not if one of
them does not, and is undecided otherwise. What is reported as its effect is the first aspect's.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from jaxcritique.analysis.evaluation import (
    ALONE,
    MULTIPLES,
    SHARE,
    VOTE,
    equal_tokens,
    in_parallel,
    in_sequence,
    multiple,
)
from jaxcritique.analysis.evidence import Evidence, NotMeasured, Row, Scores, minus
from jaxcritique.analysis.intervals import Estimate, block_difference
from jaxcritique.analysis.levels import HARD

FEWEST = 10  # Problems below which resampling them says nothing.
# The parts of a reproduction that claims are read from, as experiments/parts.py names them.
IMPROVE, IMPROVE_SMALL = "improve", "improve-small"  # self_improve with the larger and smaller N.
EVALUATE = "evaluate"  # evaluate: the SFT actor and the critic.
VANILLA, CRITIQUE = "evaluate-vanilla", "evaluate-critique"  # The same of the improved actors.
SELF_CORRECTION = "evaluate-self-correction"  # The self-correcting actor, without a critic.
CRITICS = "critics"  # evaluate_critic: UNTRAINED and TRAINED.
CRITICS_LARGE = "critics-large"  # The same of a larger one.
FILTERS = "filters"  # evaluate_critic: critics of data filtered in each of three ways.
SCALING, SELF_TALK = "scaling", "self-talk"
UNTRAINED, TRAINED = "untrained", "trained"

Blocks = Mapping[int, Mapping[str, Sequence[float]]]  # Seed, problem, and its scores or rows.


@dataclasses.dataclass(frozen=True)
class Contrast:
    """The mean of `above` less that of `below`, by seed and problem."""

    above: Blocks
    below: Blocks


@dataclasses.dataclass(frozen=True)
class Aspect:
    """A difference that the claim says is above zero, or one reported beside the claim."""

    says: str
    contrast: Callable[[], Contrast]  # May raise NotMeasured.
    beside: bool = False


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim and how it is measured."""

    id: str
    says: str
    where: str  # In the paper.
    paper: str  # The paper's figure.
    method: str  # How it is measured here.
    aspects: Callable[[Evidence, str], list[Aspect]]  # From evidence and the protocol.


def measure_claims(evidence: Evidence, protocol: str, seed: int = 0) -> list[dict[str, Any]]:
    """Measures all claims.

    Args:
      evidence: what the programs left.
      protocol: which answers are refined (`testtime.rounds.PROTOCOLS`), where a critic is used.
      seed: decides the bootstrap's resamples.

    Returns:
      For each claim {id, says, where, paper, method, holds, effect, ci95, n, seeds, why, aspects},
      holds being "yes", "no" or "undecided", effects shares (not points), n how many problems,
      seeds the effect in each. What could not be measured has None for numbers and says why.

    Raises:
      ValueError: records contradict each other.
    """
    return [measure(claim, evidence, protocol, seed) for claim in CLAIMS]


def measure(claim: Claim, evidence: Evidence, protocol: str, seed: int = 0) -> dict[str, Any]:
    """Measures one claim, as `measure_claims` does all."""
    try:
        aspects = claim.aspects(evidence, protocol)
    except NotMeasured as error:
        aspects = [Aspect(claim.says, _missing(str(error)))]
    measured = [_measured(aspect, seed) for aspect in aspects]
    required = [found for found in measured if not found["beside"]]
    verdicts = [found["holds"] for found in required]
    holds = "yes" if set(verdicts) == {"yes"} else "no" if "no" in verdicts else "undecided"
    first = required[0]
    return {
        **{key: getattr(claim, key) for key in ("id", "says", "where", "paper", "method")},
        "holds": holds,
        **{key: first[key] for key in ("effect", "ci95", "n", "seeds")},
        "why": "; ".join(dict.fromkeys(found["why"] for found in required if found["why"])),
        "aspects": measured,
    }


def _measured(aspect: Aspect, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {"says": aspect.says, "beside": aspect.beside, "holds": "undecided"}
    try:
        contrast = aspect.contrast()
        estimate = estimate_of(contrast, seed)
        n = len(_pooled(contrast.above).keys() | _pooled(contrast.below).keys())
        by_seed = {
            number: _mean(contrast.above[number]) - _mean(contrast.below[number])
            for number in contrast.above
        }
    except NotMeasured as error:
        return {**found, **dict.fromkeys(("effect", "ci95", "n", "seeds")), "why": str(error)}
    why = "" if n >= FEWEST else f"{n} problems are too few"
    found |= {"effect": estimate.mean, "ci95": list(estimate.ci95), "n": n, "seeds": by_seed}
    return {**found, "holds": "undecided" if why else verdict(estimate), "why": why}


def verdict(estimate: Estimate) -> str:
    """Says whether an effect above zero was seen: "yes", "no" (below it) or "undecided"."""
    low, high = estimate.ci95
    return "yes" if low > 0 else "no" if high < 0 else "undecided"


def estimate_of(contrast: Contrast, seed: int = 0) -> Estimate:
    """Returns a contrast with its interval, problems resampled with their scores in all seeds."""
    return block_difference(_pooled(contrast.above), _pooled(contrast.below), seed)


def average(scores: Scores) -> Estimate:
    """Returns the mean score with such an interval."""
    return estimate_of(_against_zero(scores))


def _pooled(blocks: Blocks) -> dict[str, list[float]]:
    """All seeds' scores of each problem."""
    pooled: dict[str, list[float]] = {}
    for problems in blocks.values():
        for problem, scores in problems.items():
            pooled.setdefault(problem, []).extend(scores)
    return pooled


def _mean(problems: Mapping[str, Sequence[float]]) -> float:
    return fmean(score for scores in problems.values() for score in scores)


def _missing(reason: str) -> Callable[[], Contrast]:
    def contrast() -> Contrast:
        raise NotMeasured(reason)

    return contrast


# ---- what aspects are made of


def _paired(first: Callable[[], Scores], second: Callable[[], Scores]) -> Callable[[], Contrast]:
    """One method less another on the same problems."""
    return lambda: _against_zero(minus(first(), second()))


def _against_zero(scores: Scores) -> Contrast:
    return Contrast(
        {seed: {p: [score] for p, score in found.items()} for seed, found in scores.items()},
        {seed: {p: [0.0] for p in found} for seed, found in scores.items()},
    )


def _harder(gain: Callable[[], Scores], levels: Callable[[], Mapping]) -> Callable[[], Contrast]:
    """A gain on problems of levels 4 and 5 less that on the others."""

    def contrast() -> Contrast:
        hard: dict[int, dict[str, list[float]]] = {}
        easy: dict[int, dict[str, list[float]]] = {}
        of = levels()
        for seed, scores in gain().items():
            hard[seed], easy[seed] = {}, {}
            for problem, score in scores.items():
                side = hard if str(of[seed][problem]) in HARD else easy
                side[seed][problem] = [score]
            if not (hard[seed] and easy[seed]):
                raise NotMeasured(f"seed {seed}: all problems are of one kind, hard or easy")
        return Contrast(hard, easy)

    return contrast


def _other(protocol: str) -> str:
    return "refine_all" if protocol == "refine_flagged" else "refine_flagged"


# ---- the claims


def _c1(e: Evidence, protocol: str) -> list[Aspect]:
    method = in_parallel(protocol)
    ks = e.values(EVALUATE, "k", method=method, metric="maj")

    def at(k: int, method: str) -> Callable[[], Scores]:
        return lambda: e.scores(EVALUATE, method=method, metric="maj", k=k)

    def gap(k: int) -> Callable[[], Scores]:
        return lambda: minus(at(k, method)(), at(k, ALONE)())

    aspects = [
        Aspect(
            f"Maj@{ks[-1]} with critic - vote of {times * ks[-1]} samples without",
            _paired(at(ks[-1], method), at(ks[-1], multiple(times))),
        )
        for times in MULTIPLES
    ]
    aspects.append(
        Aspect(
            f"this gain against as many samples, at K={ks[-1]} - at K={ks[0]}",
            _paired(gap(ks[-1]), gap(ks[0])),
        )
    )
    aspects.append(
        Aspect(
            f"Maj@{ks[-1]} with critic - vote of as many generated tokens without",
            _paired(at(ks[-1], method), at(ks[-1], equal_tokens(method))),
            beside=True,
        )
    )
    other = in_parallel(_other(protocol))
    aspects.append(
        Aspect(
            f"the first, with {_other(protocol)}",
            _paired(at(ks[-1], other), at(ks[-1], ALONE)),
            beside=True,
        )
    )
    return aspects


def _c2(e: Evidence, protocol: str) -> list[Aspect]:
    def of(critic: str, column: str) -> Callable[[], Scores]:
        return lambda: e.scores(CRITICS, method=critic, metric=column)

    accuracy, without = f"accuracy_{protocol}", "accuracy_without"
    return [
        *(
            Aspect(
                f"{column}, trained - untrained critic",
                _paired(of(TRAINED, column), of(UNTRAINED, column)),
            )
            for column in ("discriminability", "helpfulness")
        ),
        Aspect(
            "accuracy with critic - without", _paired(of(TRAINED, accuracy), of(TRAINED, without))
        ),
        Aspect(
            f"the same, with {_other(protocol)}",
            _paired(of(TRAINED, f"accuracy_{_other(protocol)}"), of(TRAINED, without)),
            beside=True,
        ),
        Aspect(
            "accuracy with critic, trained - untrained",
            _paired(of(TRAINED, accuracy), of(UNTRAINED, accuracy)),
            beside=True,
        ),
    ]


def _c3(e: Evidence, protocol: str) -> list[Aspect]:
    def gain(rule: str) -> Callable[[], Scores]:
        return lambda: minus(
            e.scores(EVALUATE, method=rule, metric="greedy"),
            e.scores(EVALUATE, method=ALONE, metric="greedy"),
        )

    def levels() -> Mapping:
        return e.levels(EVALUATE)

    says = "critic's gain (greedy) on levels 4-5 - on levels 1-3"
    return [
        Aspect(says, _harder(gain(protocol), levels)),
        Aspect(f"{says}, with {_other(protocol)}", _harder(gain(_other(protocol)), levels), True),
    ]


def last_iteration(e: Evidence, part: str, method: str) -> Scores:
    """Returns the scores of the last actor of a method of self-improvement.

    Raises:
      NotMeasured: the part has not been run, or without this method.
    """
    last = max(e.values(part, "iteration", method=method))
    return e.scores(part, method=method, iteration=last)


def _c4(e: Evidence, _: str) -> list[Aspect]:
    def last(part: str, method: str) -> Callable[[], Scores]:
        return lambda: last_iteration(e, part, method)

    def later(part: str, method: str) -> Callable[[], Scores]:
        return lambda: minus(
            last_iteration(e, part, method), e.scores(part, method=method, iteration=1)
        )

    aspects = [
        Aspect(
            f"{n}: critique-in-the-loop - vanilla, last iteration",
            _paired(last(part, "critique"), last(part, "vanilla")),
        )
        for n, part in (("larger N", IMPROVE), ("smaller N", IMPROVE_SMALL))
    ]
    aspects.append(
        Aspect(
            "larger N: what each gains after its first iteration, critique-in-the-loop - vanilla",
            _paired(later(IMPROVE, "critique"), later(IMPROVE, "vanilla")),
            beside=True,
        )
    )
    return aspects


def _c5(e: Evidence, _: str) -> list[Aspect]:
    return [
        Aspect(
            "share of levels 4-5 in the last training set, critique-in-the-loop - vanilla",
            lambda: share_contrast(e, HARD),
        )
    ]


def share_contrast(e: Evidence, levels: Iterable[int | str]) -> Contrast:
    """Compares the share of these levels in the last training set, critique-in-the-loop - vanilla.

    Raises:
      NotMeasured: there is no training data, or its problems have no levels.
    """
    wanted = {str(level) for level in levels}
    sides = [
        {
            seed: {r["problem"]: [float(str(r["level"]) in wanted)] * r["rows"] for r in rows}
            for seed, rows in training_rows(e, method).items()
        }
        for method in ("critique", "vanilla")
    ]
    return Contrast(*sides)


def training_rows(e: Evidence, method: str) -> dict[int, list[Row]]:
    """Returns, by seed, what the last actor of a method of self-improvement was trained on.

    Raises:
      NotMeasured: there are no such rows, or their problems have no levels.
    """
    found = {}
    for seed, run in e.of(IMPROVE).items():
        rows = [row for row in run.training if row["method"] == method]
        if not rows:
            raise NotMeasured(f"{IMPROVE}, seed {seed}, has no training data of {method}")
        last = max(row["iteration"] for row in rows)
        found[seed] = [row for row in rows if row["iteration"] == last]
        if any(row["level"] is None for row in found[seed]):
            raise NotMeasured("the training problems have no difficulty levels")
    return found


def _c6(e: Evidence, _: str) -> list[Aspect]:
    def gain() -> Scores:
        return minus(last_iteration(e, IMPROVE, "critique"), last_iteration(e, IMPROVE, "vanilla"))

    return [
        Aspect(
            "critique-in-the-loop - vanilla, on levels 4-5 - on levels 1-3",
            _harder(gain, lambda: e.levels(IMPROVE)),
        )
    ]


def _c7(e: Evidence, protocol: str) -> list[Aspect]:
    parts = (EVALUATE, VANILLA, CRITIQUE, SELF_CORRECTION)
    k = common_k(e, parts)

    def cell(part: str, method: str) -> Callable[[], Scores]:
        return lambda: e.scores(part, method=method, metric="maj", k=k)

    method = in_parallel(protocol)
    both, sft = cell(CRITIQUE, method), cell(EVALUATE, method)
    others = (
        ("fine-tuning, with critic", sft),
        ("vanilla self-improvement, response only", cell(VANILLA, ALONE)),
        ("vanilla self-improvement, with critic", cell(VANILLA, method)),
        ("critique-in-the-loop, response only", cell(CRITIQUE, ALONE)),
    )
    alone = in_parallel("refine_all")
    return [
        Aspect(
            f"MV@{k}: fine-tuning, with critic - response only", _paired(sft, cell(EVALUATE, ALONE))
        ),
        *(
            Aspect(f"MV@{k}: critique-in-the-loop, with critic - {name}", _paired(both, other))
            for name, other in others
        ),
        Aspect(
            f"MV@{k}: fine-tuning, with critic - self-correction",
            _paired(sft, cell(SELF_CORRECTION, alone)),
        ),
    ]


def common_k(evidence: Evidence, parts: Iterable[str]) -> int:
    """Returns the largest K that all of these evaluations vote at: Table 3's.

    Raises:
      NotMeasured: an evaluation is missing, or no K is common to them.
    """
    common = set.intersection(*(set(evidence.values(p, "k", metric="maj")) for p in parts))
    if not common:
        raise NotMeasured("the evaluations have no K in common")
    return max(common)


def _c8(e: Evidence, _: str) -> list[Aspect]:
    def last(method: str) -> Callable[[], Scores]:
        return lambda: last_iteration(e, IMPROVE, method)

    return [
        Aspect(f"critique-in-the-loop - {name}", _paired(last("critique"), last(method)))
        for method, name in ABLATIONS.items()
    ]


def _c9(e: Evidence, protocol: str) -> list[Aspect]:
    actors = actors_by_size(e)

    def of(actor: str, method: str) -> Callable[[], Scores]:
        return lambda: e.scores(SCALING, actor=actor, method=method, metric="greedy")

    def over_all(method: str) -> Callable[[], Scores]:
        """The mean over actors."""

        def mean() -> Scores:
            found = [of(actor, method)() for actor in actors]
            return {
                seed: {p: fmean(scores[seed][p] for scores in found) for p in found[0][seed]}
                for seed in found[0]
            }

        return mean

    return [
        *(
            Aspect(
                f"{actor}: with critic - without", _paired(of(actor, protocol), of(actor, ALONE))
            )
            for actor in actors
        ),
        Aspect(
            "mean over actors: with critic and oracle - with critic",
            _paired(over_all("oracle"), over_all(protocol)),
        ),
    ]


def actors_by_size(e: Evidence) -> list[str]:
    """Returns the names of the actors of Figure 9, the smallest first.

    Raises:
      NotMeasured: there are none.
    """
    sizes = e.values(SCALING, "parameters")
    return [name for size in sizes for name in e.values(SCALING, "actor", parameters=size)]


def _c10(e: Evidence, protocol: str) -> list[Aspect]:
    method = in_parallel(protocol)

    def of(method: str, metric: str) -> Callable[[], Scores]:
        return lambda: e.scores(EVALUATE, method=method, metric=metric)

    return [
        Aspect(
            "share of a question's samples that are right, with critic - without",
            _paired(of(method, SHARE), of(ALONE, SHARE)),
        ),
        Aspect(
            "votes turned right - votes turned wrong",
            _paired(of(method, VOTE), of(ALONE, VOTE)),
        ),
    ]


def _c11(e: Evidence, protocol: str) -> list[Aspect]:
    ks = e.values(EVALUATE, "k", method=in_sequence(protocol), metric="pass")

    def at(k: int, method: str) -> Callable[[], Scores]:
        return lambda: e.scores(EVALUATE, method=method, metric="pass", k=k)

    return [
        Aspect(
            f"Pass@{k}, parallel - sequential",
            _paired(at(k, in_parallel(protocol)), at(k, in_sequence(protocol))),
            beside=k != ks[-1],
        )
        for k in sorted(ks, reverse=True)
    ]


def _c12(e: Evidence, protocol: str) -> list[Aspect]:
    parallel, sequential = in_parallel(protocol), in_sequence(protocol)
    ks = e.values(EVALUATE, "k", method=sequential, metric="maj")
    large = ks[-1]
    # Of one refinement and its response the vote is the response's, whatever the critic says.
    small = next((k for k in ks if k > 1), large)

    def at(k: int, method: str, metric: str = "maj") -> Callable[[], Scores]:
        return lambda: e.scores(EVALUATE, method=method, metric=metric, k=k)

    return [
        Aspect(
            f"K={large}, sequential: vote - final answer",
            _paired(at(large, sequential), at(large, sequential, "final")),
        ),
        Aspect(
            f"K={large}: parallel vote - sequential final answer",
            _paired(at(large, parallel), at(large, sequential, "final")),
        ),
        Aspect(
            f"K={small}: parallel vote - sequential vote",
            _paired(at(small, parallel), at(small, sequential)),
        ),
        Aspect(
            f"K={large}: sequential vote - parallel vote",
            _paired(at(large, sequential), at(large, parallel)),
        ),
    ]


def _c13(e: Evidence, protocol: str) -> list[Aspect]:
    def of(method: str) -> Callable[[], Scores]:
        return lambda: e.scores(SELF_TALK, method=method, metric="greedy")

    return [
        Aspect("self-talk - self-correction", _paired(of("self-talk"), of("self-correction"))),
        Aspect("fine-tuning with critic - self-talk", _paired(of(protocol), of("self-talk"))),
    ]


def _c14(e: Evidence, protocol: str) -> list[Aspect]:
    def of(critic: str, column: str) -> Callable[[], Scores]:
        return lambda: e.scores(FILTERS, method=critic, metric=column)

    accuracy = f"accuracy_{protocol}"
    return [
        Aspect(
            "accuracy with critic, of soft-filtered - of unfiltered data",
            _paired(of("soft", accuracy), of("none", accuracy)),
        ),
        *(
            Aspect(f"{says}, soft - none", _paired(of("soft", column), of("none", column)), True)
            for says, column in (
                ("discriminability", "discriminability"),
                ("helpfulness", "helpfulness"),
                (f"accuracy with {_other(protocol)}", f"accuracy_{_other(protocol)}"),
            )
        ),
        Aspect(
            "accuracy with critic, of soft-filtered - of hard-filtered data",
            _paired(of("soft", accuracy), of("hard", accuracy)),
            beside=True,
        ),
    ]


# Methods of self_improve that take something away from critique-in-the-loop (Table 4).
ABLATIONS = {
    "no_difficulty_awareness": "without difficulty-aware allocation",
    "more_refinements": "more refinements instead of more critiques",
}

CLAIMS = (
    Claim(
        "C1",
        "Majority votes with a critic beat votes of as many, twice and three times as many samples "
        "without, and the gain grows with K.",
        "Figure 1",
        "+12.4 points (GSM8K), +14.8 (MATH)",
        "Expected vote over subsets of the samples, of refined answers against the actor's own.",
        _c1,
    ),
    Claim(
        "C2",
        "A trained critic tells right from wrong, helps to mend wrong responses, and raises the "
        "actor's accuracy.",
        "Table 2",
        "discriminability 79.4% (GSM8K), 75.7% (MATH) of the 8B critic",
        "Against the untrained critic on the same greedy responses; helpfulness on the wrong ones.",
        _c2,
    ),
    Claim(
        "C3",
        "The critic's gain is larger on harder questions.",
        "Figure 5",
        "no figure given",
        "Gain of greedy answers on levels 4 and 5 against levels 1 to 3.",
        _c3,
    ),
    Claim(
        "C4",
        "Critique-in-the-loop self-improvement beats the vanilla method for both N.",
        "Figure 6",
        "+11.1 points at N=10",
        "Greedy accuracy of the last iteration's actors.",
        _c4,
    ),
    Claim(
        "C5",
        "Its training data holds a larger share of hard questions.",
        "Figure 7",
        "no figure given",
        "Share of rows of levels 4 and 5 in the last training set, training problems resampled.",
        _c5,
    ),
    Claim(
        "C6",
        "Its gain over the vanilla method is larger on hard questions.",
        "Figure 8",
        "no figure given",
        "Difference of the last actors on levels 4 and 5 against levels 1 to 3.",
        _c6,
    ),
    Claim(
        "C7",
        "A critic in training and at test time is the best combination, and self-correction is "
        "below a separate critic.",
        "Table 3",
        "+10.9 points (GSM8K), +15.1 (MATH) MV@5 of the fine-tuned actor",
        "Majority vote at the K common to all evaluations.",
        _c7,
    ),
    Claim(
        "C8",
        "Without difficulty-aware allocation, or with more refinements instead of more critiques, "
        "it gets worse.",
        "Table 4",
        "no figure given",
        "Greedy accuracy of the last actors, at equal sampling budgets.",
        _c8,
    ),
    Claim(
        "C9",
        "One small critic helps actors of every size, and the more with an oracle.",
        "Figure 9",
        "no figure given",
        "Greedy accuracy of each actor; the oracle's on average over actors.",
        _c9,
    ),
    Claim(
        "C10",
        "The critic raises the share of right samples of a question, and turns votes right.",
        "Figure 10",
        "no figure given",
        "The same responses before and after a critique and a refinement each.",
        _c10,
    ),
    Claim(
        "C11",
        "Parallel scaling reaches a higher Pass@K than sequential scaling.",
        "Figure 11",
        "no figure given",
        "At the largest K; others beside it.",
        _c11,
    ),
    Claim(
        "C12",
        "The final answer of a sequence is worse than votes; parallel votes are better at small K, "
        "sequential ones at large K.",
        "Figure 12",
        "no figure given",
        "At the largest K, and the smallest at which more than two answers vote.",
        _c12,
    ),
    Claim(
        "C13",
        "Self-talk beats self-correction, and is beaten by fine-tuning with a critic.",
        "Table 5",
        "no figure given",
        "Greedy accuracy on the same problems.",
        _c13,
    ),
    Claim(
        "C14",
        "Soft-filtered critique data trains a better critic than unfiltered data.",
        "Section 3.3",
        "1.2% of the data of low quality",
        "Accuracy of the same responses, refined after critics trained on the same critiques, "
        "filtered and not.",
        _c14,
    ),
)
