"""The paper's fourteen claims (arXiv 2411.16579), each with the differences that it asserts.

Under each claim a function says what is compared; how differences become verdicts is in
`measuring.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial

from experiments.reproduction import parts
from experiments.reproduction.evidence import (
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
    MeasuredClaim,
    difference,
    harder,
    less,
    measure,
    scored,
    share_contrast,
)
from jaxcritique.analysis.levels import HARD
from jaxcritique.analysis.methods import ALONE, BASELINES, SHARE, VOTE, Method
from jaxcritique.improvement import self_talk_report as table5

# The method of self_improve without a critic that may generate as much as the one with it.
EQUAL_TOKENS = "vanilla_equal_tokens"

# Methods of self_improve that take something away from critique-in-the-loop (Table 4).
ABLATIONS = {
    "no_difficulty_awareness": "without difficulty-aware allocation",
    "more_refinements": "more refinements instead of more critiques",
}

CLAIMS: list[Claim] = []


def measure_claims(evidence: Evidence, protocol: str, seed: int = 0) -> list[MeasuredClaim]:
    """Measures all claims, in their order.

    Args:
      evidence: the outputs of the parts.
      protocol: which answers are refined with a critic (`testtime.rounds.PROTOCOLS`).
      seed: decides the bootstrap's resamples.

    Raises:
      ValueError: records contradict each other.
    """
    return [measure(claim, evidence, protocol, seed) for claim in CLAIMS]


def _claim(
    id: str, says: str, where: str, method: str, paper: str = "no figure given"
) -> Callable[[Callable[[Evidence, str], list[Aspect]]], None]:
    """Adds a claim to `CLAIMS`; the function returns its aspects."""
    return lambda aspects: CLAIMS.append(Claim(id, says, where, paper, method, aspects))


def _last(e: Evidence, part: str) -> Callable[[str], Lookup]:
    """Returns a function: a method of self-improvement -> the lookup of its last actor's scores."""
    return lambda method: lambda: last_iteration(e, part, method)


def _fewest_and_most(ks: Sequence[int]) -> tuple[int, int]:
    """Returns the ends of a list of K.

    Raises:
      NotMeasured: they are one.
    """
    if len(ks) < 2:
        raise NotMeasured("a comparison of a small K with a large one needs two of them in --k")
    return ks[0], ks[-1]


@_claim(
    "C1",
    "Majority votes with a critic beat votes of as many, twice and three times as many samples "
    "without, and the gain grows with K.",
    "Figure 1",
    "Expected vote over subsets of the samples, of refined answers against the actor's own.",
    paper="+12.4 points (GSM8K), +14.8 (MATH)",
)
def _c1(e: Evidence, protocol: str) -> list[Aspect]:
    method = Method("parallel", protocol)
    few, many = _fewest_and_most(e.values(parts.EVALUATE, "k", method=method, metric="maj"))
    vote = partial(scored, e, parts.EVALUATE, metric="maj")
    critic = vote(method=method, k=many)

    def gap(k: int) -> Lookup:
        return less(vote(method=method, k=k), vote(method=ALONE, k=k))

    return [
        *(
            difference(
                f"Maj@{many} with critic - vote of {alone.multiple * many} samples without",
                critic,
                vote(method=alone, k=many),
            )
            for alone in BASELINES
        ),
        difference(
            f"this gain against as many samples, at K={many} - at K={few}", gap(many), gap(few)
        ),
        difference(
            f"Maj@{many} with critic - vote of as many generated tokens without",
            critic,
            vote(method=Method("alone", tokens_of=method), k=many),
            beside=True,
        ),
    ]


@_claim(
    "C2",
    "A trained critic tells right from wrong, helps to mend wrong responses, and raises the "
    "actor's accuracy.",
    "Table 2",
    "Against the untrained critic on the same greedy responses; helpfulness on the wrong ones.",
    paper="discriminability 79.4% (GSM8K), 75.7% (MATH) of the 8B critic",
)
def _c2(e: Evidence, protocol: str) -> list[Aspect]:
    trained = partial(scored, e, parts.CRITICS, method=parts.TRAINED)
    untrained = partial(scored, e, parts.CRITICS, method=parts.UNTRAINED)
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


@_claim(
    "C3",
    "The critic's gain is larger on harder questions.",
    "Figure 5",
    "Gain of greedy answers on levels 4 and 5 against levels 1 to 3. Where levels are of the "
    "actor's own right samples, easy questions leave little to gain.",
)
def _c3(e: Evidence, protocol: str) -> list[Aspect]:
    greedy = partial(scored, e, parts.EVALUATE, metric="greedy")
    return [
        harder(
            "critic's gain (greedy) on levels 4-5 - on levels 1-3",
            less(greedy(method=Method("one round", protocol)), greedy(method=ALONE)),
            partial(e.levels, parts.EVALUATE),
        )
    ]


@_claim(
    "C4",
    "Critique-in-the-loop self-improvement beats the vanilla method for both N.",
    "Figure 6",
    "Greedy accuracy of the last iteration's actors.",
    paper="+11.1 points at N=10",
)
def _c4(e: Evidence, _: str) -> list[Aspect]:
    larger, smaller = _last(e, parts.IMPROVE), _last(e, parts.IMPROVE_SMALL)

    def later(method: str) -> Lookup:
        return less(larger(method), scored(e, parts.IMPROVE, method=method, iteration=1))

    return [
        *(
            difference(
                f"{n}: critique-in-the-loop - vanilla, last iteration",
                last("critique"),
                last("vanilla"),
            )
            for n, last in (("larger N", larger), ("smaller N", smaller))
        ),
        difference(
            "larger N: what each gains after its first iteration, critique-in-the-loop - vanilla",
            later("critique"),
            later("vanilla"),
            beside=True,
        ),
        difference(
            "larger N: critique-in-the-loop - vanilla of as many generated tokens, last iteration",
            larger("critique"),
            larger(EQUAL_TOKENS),
            beside=True,
        ),
    ]


@_claim(
    "C5",
    "Its training data holds a larger share of hard questions.",
    "Figure 7",
    "Share of rows of levels 4 and 5 among the solutions of the last training set, D_refine "
    "(the same for both) not counted; training problems resampled.",
)
def _c5(e: Evidence, _: str) -> list[Aspect]:
    says = "share of levels 4-5 in the last training set, critique-in-the-loop - vanilla"
    return [Aspect(says, partial(share_contrast, e, HARD))]


@_claim(
    "C6",
    "Its gain over the vanilla method is larger on hard questions.",
    "Figure 8",
    "Difference of the last actors on levels 4 and 5 against levels 1 to 3.",
)
def _c6(e: Evidence, _: str) -> list[Aspect]:
    last = _last(e, parts.IMPROVE)
    return [
        harder(
            "critique-in-the-loop - vanilla, on levels 4-5 - on levels 1-3",
            less(last("critique"), last("vanilla")),
            partial(levels_of_test_problems, e),
        )
    ]


@_claim(
    "C7",
    "A critic in training and at test time is the best combination, and self-correction is "
    "below a separate critic.",
    "Table 3",
    "Majority vote at the K common to all evaluations.",
    paper="+10.9 points (GSM8K), +15.1 (MATH) MV@5 of the fine-tuned actor",
)
def _c7(e: Evidence, protocol: str) -> list[Aspect]:
    k = common_k(e, (parts.EVALUATE, parts.VANILLA, parts.CRITIQUE, parts.SELF_CORRECTION))
    vote = partial(scored, e, metric="maj", k=k)
    method = Method("parallel", protocol)
    both, sft = vote(parts.CRITIQUE, method=method), vote(parts.EVALUATE, method=method)
    others = (
        ("fine-tuning, with critic", sft),
        ("vanilla self-improvement, response only", vote(parts.VANILLA, method=ALONE)),
        ("vanilla self-improvement, with critic", vote(parts.VANILLA, method=method)),
        ("critique-in-the-loop, response only", vote(parts.CRITIQUE, method=ALONE)),
    )
    return [
        difference(
            f"MV@{k}: fine-tuning, with critic - response only",
            sft,
            vote(parts.EVALUATE, method=ALONE),
        ),
        *(
            difference(f"MV@{k}: critique-in-the-loop, with critic - {name}", both, other)
            for name, other in others
        ),
        difference(
            f"MV@{k}: fine-tuning, with critic - self-correction",
            sft,
            vote(parts.SELF_CORRECTION, method=Method("parallel", "refine_all")),
        ),
    ]


@_claim(
    "C8",
    "Without difficulty-aware allocation, or with more refinements instead of more critiques, "
    "it gets worse.",
    "Table 4",
    "Greedy accuracy of the last actors, with as many refinements of each "
    "wrong response of its own actor; with more of them after each critique there are fewer "
    "critiques, and fewer tokens are generated.",
)
def _c8(e: Evidence, _: str) -> list[Aspect]:
    last = _last(e, parts.IMPROVE)
    return [
        difference(f"critique-in-the-loop - {name}", last("critique"), last(method))
        for method, name in ABLATIONS.items()
    ]


@_claim(
    "C9",
    "One small critic helps actors of every size, and the more with an oracle.",
    "Figure 9",
    "Greedy accuracy of each actor; the oracle's on average over actors (who never refines a "
    "right answer can only gain by it).",
)
def _c9(e: Evidence, protocol: str) -> list[Aspect]:
    critic = Method("one round", protocol)

    def of(actor: str, method: Method) -> Lookup:
        return partial(scores_of_actor, e, actor, method)

    return [
        *(
            difference(f"{actor}: with critic - without", of(actor, critic), of(actor, ALONE))
            for actor in actors_by_size(e)
        ),
        difference(
            "mean over actors: with critic and oracle - with critic",
            partial(mean_over_actors, e, Method("one round", "oracle")),
            partial(mean_over_actors, e, critic),
        ),
    ]


@_claim(
    "C10",
    "The critic raises the share of right samples of a question, and turns votes right.",
    "Figure 10",
    "The same responses before and after a critique and a refinement each.",
)
def _c10(e: Evidence, protocol: str) -> list[Aspect]:
    after = partial(scored, e, parts.EVALUATE, method=Method("parallel", protocol))
    before = partial(scored, e, parts.EVALUATE, method=ALONE)
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


@_claim(
    "C11",
    "Parallel scaling reaches at least the Pass@K of sequential scaling.",
    "Figure 11",
    "At the largest K, others beside it. Of K answers each: K responses after a round, and "
    "what K rounds leave of one response, that response not counted.",
)
def _c11(e: Evidence, protocol: str) -> list[Aspect]:
    ks = e.values(parts.EVALUATE, "k", method=Method("sequential", protocol), metric="pass")
    pass_at = partial(scored, e, parts.EVALUATE, metric="pass")
    return [
        difference(
            f"Pass@{k}, parallel - sequential",
            pass_at(method=Method("parallel", protocol), k=k),
            pass_at(method=Method("sequential", protocol), k=k),
            beside=k != ks[-1],
            at_least=True,
        )
        for k in sorted(ks, reverse=True)
    ]


@_claim(
    "C12",
    "The final answer of a sequence is worse than votes; parallel votes are better at small K, "
    "sequential ones at large K.",
    "Figure 12",
    "At the largest K, and the smallest above 1: of a response and one refinement the vote is "
    "the response's. A parallel vote of two is the first's, too.",
)
def _c12(e: Evidence, protocol: str) -> list[Aspect]:
    parallel = partial(scored, e, parts.EVALUATE, method=Method("parallel", protocol), metric="maj")
    sequential = partial(scored, e, parts.EVALUATE, method=Method("sequential", protocol))
    ks = e.values(parts.EVALUATE, "k", method=Method("sequential", protocol), metric="maj")
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


@_claim(
    "C13",
    "Self-talk beats self-correction, and is beaten by fine-tuning with a critic.",
    "Table 5",
    "Greedy accuracy on the same problems.",
)
def _c13(e: Evidence, protocol: str) -> list[Aspect]:
    greedy = partial(scored, e, parts.SELF_TALK, metric="greedy")
    talk = greedy(method=table5.SELF_TALK)
    return [
        difference("self-talk - self-correction", talk, greedy(method=table5.SELF_CORRECTION)),
        difference("fine-tuning with critic - self-talk", greedy(method=protocol), talk),
    ]


@_claim(
    "C14",
    "Soft-filtered critique data trains a better critic than unfiltered data.",
    "Section 3.3",
    "Accuracy of the same responses, refined after critics trained on the same critiques, "
    "filtered and not. What is filtered is also less: the cost table has the training steps.",
    paper="1.2% of the data of low quality",
)
def _c14(e: Evidence, protocol: str) -> list[Aspect]:
    def soft_less(other: str, says: str, column: str, beside: bool = True) -> Aspect:
        of = partial(scored, e, parts.FILTERS, metric=column)
        return difference(says, of(method="soft"), of(method=other), beside)

    accuracy = f"accuracy_{protocol}"
    says = "accuracy with critic, of soft-filtered - of"
    return [
        soft_less("none", f"{says} unfiltered data", accuracy, beside=False),
        soft_less("none", "discriminability, soft - none", "discriminability"),
        soft_less("none", "helpfulness, soft - none", "helpfulness"),
        soft_less("hard", f"{says} hard-filtered data", accuracy),
    ]
