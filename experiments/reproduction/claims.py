"""The paper's fourteen claims (arXiv 2411.16579), each with the differences that it asserts.

A function for each says what is compared, and `CLAIMS` what is said of it; how differences become
verdicts is in `measuring.py`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from experiments.reproduction.evidence import (
    CRITICS,
    CRITIQUE,
    EVALUATE,
    FILTERS,
    IMPROVE,
    IMPROVE_SMALL,
    SELF_CORRECTION,
    SELF_TALK,
    TRAINED,
    UNTRAINED,
    VANILLA,
    Evidence,
    NotMeasured,
    actors_by_size,
    common_k,
    last_iteration,
    levels_of_test_problems,
    mean_over_actors,
    scores_of_actor,
)
from experiments.reproduction.measuring import (
    Aspect,
    Claim,
    Lookup,
    difference,
    harder,
    less,
    measure,
    scored,
    share_contrast,
)
from jaxcritique.analysis.levels import HARD
from jaxcritique.analysis.methods import (
    ALONE,
    MULTIPLES,
    SHARE,
    VOTE,
    equal_tokens,
    in_parallel,
    in_sequence,
    multiple,
)
from jaxcritique.improvement import self_talk_report as table5


def measure_claims(evidence: Evidence, protocol: str, seed: int = 0) -> list[dict[str, Any]]:
    """Measures all claims.

    Args:
      evidence: what the programs left.
      protocol: which answers are refined (`testtime.rounds.PROTOCOLS`), where a critic is used.
      seed: decides the bootstrap's resamples.

    Returns:
      What `measuring.measure` says of each, in their order.

    Raises:
      ValueError: records contradict each other.
    """
    return [measure(claim, evidence, protocol, seed) for claim in CLAIMS]


def _c1(e: Evidence, protocol: str) -> list[Aspect]:
    method = in_parallel(protocol)
    few, many = _fewest_and_most(e.values(EVALUATE, "k", method=method, metric="maj"))
    vote = partial(scored, e, EVALUATE, metric="maj")
    critic = vote(method=method, k=many)

    def gap(k: int) -> Lookup:
        return less(vote(method=method, k=k), vote(method=ALONE, k=k))

    return [
        *(
            difference(
                f"Maj@{many} with critic - vote of {times * many} samples without",
                critic,
                vote(method=multiple(times), k=many),
            )
            for times in MULTIPLES
        ),
        difference(
            f"this gain against as many samples, at K={many} - at K={few}", gap(many), gap(few)
        ),
        difference(
            f"Maj@{many} with critic - vote of as many generated tokens without",
            critic,
            vote(method=equal_tokens(method), k=many),
            beside=True,
        ),
    ]


def _c2(e: Evidence, protocol: str) -> list[Aspect]:
    trained = partial(scored, e, CRITICS, method=TRAINED)
    untrained = partial(scored, e, CRITICS, method=UNTRAINED)
    accuracy = f"accuracy_{protocol}"
    return [
        *(
            difference(
                f"{column}, trained - untrained critic",
                trained(metric=column),
                untrained(metric=column),
            )
            for column in ("discriminability", "helpfulness")
        ),
        difference(
            "accuracy with critic - without",
            trained(metric=accuracy),
            trained(metric="accuracy_without"),
        ),
        difference(
            "accuracy with critic, trained - untrained",
            trained(metric=accuracy),
            untrained(metric=accuracy),
            beside=True,
        ),
    ]


def _c3(e: Evidence, protocol: str) -> list[Aspect]:
    greedy = partial(scored, e, EVALUATE, metric="greedy")
    return [
        harder(
            "critic's gain (greedy) on levels 4-5 - on levels 1-3",
            less(greedy(method=protocol), greedy(method=ALONE)),
            partial(e.levels, EVALUATE),
        )
    ]


def _c4(e: Evidence, _: str) -> list[Aspect]:
    def later(method: str) -> Lookup:
        first = scored(e, IMPROVE, method=method, iteration=1)
        return less(partial(last_iteration, e, IMPROVE, method), first)

    return [
        *(
            difference(
                f"{n}: critique-in-the-loop - vanilla, last iteration",
                partial(last_iteration, e, part, "critique"),
                partial(last_iteration, e, part, "vanilla"),
            )
            for n, part in (("larger N", IMPROVE), ("smaller N", IMPROVE_SMALL))
        ),
        difference(
            "larger N: what each gains after its first iteration, critique-in-the-loop - vanilla",
            later("critique"),
            later("vanilla"),
            beside=True,
        ),
        difference(
            "larger N: critique-in-the-loop - vanilla of as many generated tokens, last iteration",
            partial(last_iteration, e, IMPROVE, "critique"),
            partial(last_iteration, e, IMPROVE, EQUAL_TOKENS),
            beside=True,
        ),
    ]


def _c5(e: Evidence, _: str) -> list[Aspect]:
    says = "share of levels 4-5 in the last training set, critique-in-the-loop - vanilla"
    return [Aspect(says, partial(share_contrast, e, HARD))]


def _c6(e: Evidence, _: str) -> list[Aspect]:
    last = partial(partial, last_iteration, e, IMPROVE)
    return [
        harder(
            "critique-in-the-loop - vanilla, on levels 4-5 - on levels 1-3",
            less(last("critique"), last("vanilla")),
            partial(levels_of_test_problems, e),
        )
    ]


def _c7(e: Evidence, protocol: str) -> list[Aspect]:
    k = common_k(e, (EVALUATE, VANILLA, CRITIQUE, SELF_CORRECTION))
    vote = partial(scored, e, metric="maj", k=k)
    method = in_parallel(protocol)
    both, sft = vote(CRITIQUE, method=method), vote(EVALUATE, method=method)
    others = (
        ("fine-tuning, with critic", sft),
        ("vanilla self-improvement, response only", vote(VANILLA, method=ALONE)),
        ("vanilla self-improvement, with critic", vote(VANILLA, method=method)),
        ("critique-in-the-loop, response only", vote(CRITIQUE, method=ALONE)),
    )
    return [
        difference(
            f"MV@{k}: fine-tuning, with critic - response only", sft, vote(EVALUATE, method=ALONE)
        ),
        *(
            difference(f"MV@{k}: critique-in-the-loop, with critic - {name}", both, other)
            for name, other in others
        ),
        difference(
            f"MV@{k}: fine-tuning, with critic - self-correction",
            sft,
            vote(SELF_CORRECTION, method=in_parallel("refine_all")),
        ),
    ]


def _c8(e: Evidence, _: str) -> list[Aspect]:
    def last(method: str) -> Lookup:
        return partial(last_iteration, e, IMPROVE, method)

    return [
        difference(f"critique-in-the-loop - {name}", last("critique"), last(method))
        for method, name in ABLATIONS.items()
    ]


def _c9(e: Evidence, protocol: str) -> list[Aspect]:
    def of(actor: str, method: str) -> Lookup:
        return partial(scores_of_actor, e, actor, method)

    return [
        *(
            difference(
                f"{actor}: with critic - without", of(actor, protocol), of(actor, str(ALONE))
            )
            for actor in actors_by_size(e)
        ),
        difference(
            "mean over actors: with critic and oracle - with critic",
            partial(mean_over_actors, e, "oracle"),
            partial(mean_over_actors, e, protocol),
        ),
    ]


def _c10(e: Evidence, protocol: str) -> list[Aspect]:
    after = partial(scored, e, EVALUATE, method=in_parallel(protocol))
    before = partial(scored, e, EVALUATE, method=ALONE)
    return [
        difference(
            "share of a question's samples that are right, with critic - without",
            after(metric=SHARE),
            before(metric=SHARE),
        ),
        difference(
            "votes turned right - votes turned wrong", after(metric=VOTE), before(metric=VOTE)
        ),
    ]


def _c11(e: Evidence, protocol: str) -> list[Aspect]:
    ks = e.values(EVALUATE, "k", method=in_sequence(protocol), metric="pass")
    found = partial(scored, e, EVALUATE, metric="pass")
    return [
        difference(
            f"Pass@{k}, parallel - sequential",
            found(method=in_parallel(protocol), k=k),
            found(method=in_sequence(protocol), k=k),
            beside=k != ks[-1],
            at_least=True,
        )
        for k in sorted(ks, reverse=True)
    ]


def _c12(e: Evidence, protocol: str) -> list[Aspect]:
    parallel = partial(scored, e, EVALUATE, method=in_parallel(protocol), metric="maj")
    sequential = partial(scored, e, EVALUATE, method=in_sequence(protocol))
    ks = e.values(EVALUATE, "k", method=in_sequence(protocol), metric="maj")
    # Of one refinement and its response the vote is the response's, whatever the critic says.
    small, large = _fewest_and_most([k for k in ks if k > 1])
    final = sequential(metric="final", k=large)
    vote = sequential(metric="maj", k=large)
    return [
        difference(f"K={large}, sequential: vote - final answer", vote, final),
        difference(f"K={large}: parallel vote - sequential final answer", parallel(k=large), final),
        difference(
            f"K={small}: parallel vote - sequential vote",
            parallel(k=small),
            sequential(metric="maj", k=small),
        ),
        difference(f"K={large}: sequential vote - parallel vote", vote, parallel(k=large)),
    ]


def _c13(e: Evidence, protocol: str) -> list[Aspect]:
    greedy = partial(scored, e, SELF_TALK, metric="greedy")
    talk = greedy(method=table5.SELF_TALK)
    return [
        difference("self-talk - self-correction", talk, greedy(method=table5.SELF_CORRECTION)),
        difference("fine-tuning with critic - self-talk", greedy(method=protocol), talk),
    ]


def _c14(e: Evidence, protocol: str) -> list[Aspect]:
    def soft_less(other: str, says: str, column: str, beside: bool = True) -> Aspect:
        of = partial(scored, e, FILTERS, metric=column)
        return difference(says, of(method="soft"), of(method=other), beside)

    accuracy = f"accuracy_{protocol}"
    says = "accuracy with critic, of soft-filtered - of"
    return [
        soft_less("none", f"{says} unfiltered data", accuracy, beside=False),
        soft_less("none", "discriminability, soft - none", "discriminability"),
        soft_less("none", "helpfulness, soft - none", "helpfulness"),
        soft_less("hard", f"{says} hard-filtered data", accuracy),
    ]


def _fewest_and_most(ks: Sequence[int]) -> tuple[int, int]:
    """Returns the ends of a list of K.

    Raises:
      NotMeasured: they are one.
    """
    if len(ks) < 2:
        raise NotMeasured("a comparison of a small K with a large one needs two of them in --k")
    return ks[0], ks[-1]


# The method of self_improve without a critic that may generate as much as the one with it.
EQUAL_TOKENS = "vanilla_equal_tokens"

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
        "Gain of greedy answers on levels 4 and 5 against levels 1 to 3. Where levels are of the "
        "actor's own right samples, easy questions leave little to gain.",
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
        "Share of rows of levels 4 and 5 among the solutions of the last training set, D_refine "
        "(the same for both) not counted; training problems resampled.",
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
        "Greedy accuracy of the last actors, with as many refinements of each "
        "wrong response of its own actor; with more of them after each critique there are fewer "
        "critiques, and fewer tokens are generated.",
        _c8,
    ),
    Claim(
        "C9",
        "One small critic helps actors of every size, and the more with an oracle.",
        "Figure 9",
        "no figure given",
        "Greedy accuracy of each actor; the oracle's on average over actors (who never refines a "
        "right answer can only gain by it).",
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
        "Parallel scaling reaches at least the Pass@K of sequential scaling.",
        "Figure 11",
        "no figure given",
        "At the largest K, others beside it. Of K answers each: K responses after a round, and "
        "what K rounds leave of one response, that response not counted.",
        _c11,
    ),
    Claim(
        "C12",
        "The final answer of a sequence is worse than votes; parallel votes are better at small K, "
        "sequential ones at large K.",
        "Figure 12",
        "no figure given",
        "At the largest K, and the smallest above 1: of a response and one refinement the vote is "
        "the response's. A parallel vote of two is the first's, too.",
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
        "filtered and not. What is filtered is also less: the cost table has the training steps.",
        _c14,
    ),
)
