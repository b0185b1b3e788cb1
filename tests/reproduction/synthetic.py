"""Evidence made so that every claim holds, by effects that are known."""

import functools
import types
from collections.abc import Mapping

from experiments.reproduction.evidence import PartOutput

PROBLEMS = [f"p{index}" for index in range(200)]
PROTOCOL = "refine_flagged"


def level(problem: str) -> int:
    return 1 + int(problem[1:]) % 5


def rows(share, **fields):
    """Rows in which a share of the problems is right; the share may depend on the level."""
    found = []
    for wanted in range(1, 6):
        here = [problem for problem in PROBLEMS if level(problem) == wanted]
        right = round((share(wanted) if callable(share) else share) * len(here))
        for index, problem in enumerate(here):
            score = float(index < right)
            found.append({"problem": problem, "level": wanted, "score": score, **fields})
    return found


def evaluation(alone: float, critic: float, protocol: str) -> list[dict]:
    """Rows of `evaluate` at K=5 for Table 3."""
    return [
        *rows(alone, method="no critic", metric="maj", k=5),
        *rows(critic, method=f"parallel, {protocol}", metric="maj", k=5),
    ]


def main_evaluation(protocol: str) -> list[dict]:
    parallel, sequential = (f"{kind}, {protocol}" for kind in ("parallel", "sequential"))
    found = []
    for k, alone, critic, pass_parallel, pass_sequential, vote, final in (
        (2, 0.40, 0.45, 0.6, 0.5, 0.42, 0.40),
        (5, 0.42, 0.60, 0.8, 0.6, 0.70, 0.45),
    ):
        found += rows(alone, method="no critic", metric="maj", k=k)
        found += rows(alone + 0.2, method="no critic", metric="pass", k=k)
        found += rows(alone + 0.02, method="no critic, 2K", metric="maj", k=k)
        found += rows(alone + 0.05, method="no critic, 3K", metric="maj", k=k)
        found += rows(alone + 0.05, method=f"no critic, tokens of {parallel}", metric="maj", k=k)
        found += rows(critic, method=parallel, metric="maj", k=k)
        found += rows(pass_parallel, method=parallel, metric="pass", k=k)
        found += rows(pass_sequential, method=sequential, metric="pass", k=k)
        found += rows(vote, method=sequential, metric="maj", k=k)
        found += rows(final, method=sequential, metric="final", k=k)
    hard = lambda wanted: 0.2 if wanted < 4 else 0.5  # noqa: E731
    found += rows(0.2, method="no critic", metric="greedy", k=1)
    found += rows(hard, method=protocol, metric="greedy", k=1)
    for metric, before, after in (("share", 0.4, 0.6), ("vote", 0.45, 0.7)):
        found += rows(before, method="no critic", metric=metric, k=5)
        found += rows(after, method=parallel, metric=metric, k=5)
    return found


def improvement(critique: float) -> PartOutput:
    scores, training = [], []
    for method, share in (
        ("vanilla", 0.4),
        ("critique", lambda wanted: 0.4 + (critique if wanted < 4 else 3 * critique)),
        ("no_difficulty_awareness", 0.42),
        ("more_refinements", 0.42),
        ("vanilla_equal_tokens", 0.45),
    ):
        for iteration in (1, 2, 3):
            at = share if iteration == 3 else 0.4
            scores += rows(at, method=method, iteration=iteration)
            for problem in PROBLEMS:
                extra = method == "critique" and level(problem) > 3
                row = {"problem": f"train-{problem}", "level": level(problem), "method": method}
                training.append({**row, "iteration": iteration, "rows": 1 + extra})
    return PartOutput({}, scores, training)


def critics(protocol: str, **columns: tuple[float, float, float]) -> PartOutput:
    """Runs of evaluate_critic: by critic, discriminability, helpfulness and accuracy with it."""
    found = []
    for critic, (discriminability, helpfulness, accuracy) in columns.items():
        found += rows(discriminability, method=critic, metric="discriminability", k=1)
        found += rows(helpfulness, method=critic, metric="helpfulness", k=1)
        found += rows(accuracy, method=critic, metric=f"accuracy_{protocol}", k=1)
        found += rows(0.4, method=critic, metric="accuracy_without", k=1)
    return PartOutput({}, found)


def points(scores: list[dict]) -> list[dict]:
    """What results.json of `evaluate` says of each point beside its scores."""
    keys = dict.fromkeys((row["method"], row["metric"], row["k"]) for row in scores)
    found = []
    for method, metric, k in keys:
        samples = k * (3 if method.endswith("3K") else 2 if method.endswith("2K") else 1)
        tokens = 40 * samples * (4 if "refine" in method else 1)
        point = {"method": method, "metric": metric, "k": k}
        found.append({**point, "samples": samples, "tokens": tokens})
    return found


CRITIQUE_DATA = {
    "table1": [{"dataset": "word_problems", "strategy": "RG1", "right": 120, "wrong": 90}],
    "filter": {
        "none": {
            "kept": 100, "of": 100, "refined_right": 0.3, "alone_right": 0.5, "false_share": 0.4,
        },
        "soft, tau=0.3": {
            "kept": 60, "of": 100, "refined_right": 0.6, "alone_right": 0.6, "false_share": None,
        },
    },
}  # fmt: skip


@functools.cache
def everything(protocol: str = PROTOCOL) -> Mapping[str, PartOutput]:
    """One seed's evidence, in which every claim holds where answers are refined by `protocol`."""
    scaling = []
    for actor, size, alone in (("small", 100, 0.3), ("large", 200, 0.6)):
        for method, gain in (("no critic", 0.0), (protocol, 0.1), ("oracle", 0.2)):
            about = {"actor": actor, "parameters": size, "method": method}
            scaling += rows(alone + gain, **about, metric="greedy", k=1)
    self_talk = [
        *rows(0.3, method="self-correction", metric="greedy", k=1),
        *rows(0.4, method="self-talk", metric="greedy", k=1),
        *rows(0.5, method=protocol, metric="greedy", k=1),
    ]
    main = main_evaluation(protocol)
    runs = {
        "improve": improvement(0.1),
        "improve-small": improvement(0.05),
        "evaluate": PartOutput({"points": points(main)}, main),
        "critiques": PartOutput(CRITIQUE_DATA),
        "evaluate-vanilla": PartOutput({}, evaluation(0.5, 0.65, protocol)),
        "evaluate-critique": PartOutput({}, evaluation(0.68, 0.75, protocol)),
        "evaluate-self-correction": PartOutput({}, evaluation(0.40, 0.41, "refine_all")),
        "critics": critics(protocol, untrained=(0.5, 0.1, 0.35), trained=(0.8, 0.3, 0.55)),
        "filters": critics(
            protocol, none=(0.6, 0.2, 0.4), soft=(0.7, 0.3, 0.5), hard=(0.7, 0.3, 0.5)
        ),
        "scaling": PartOutput({}, scaling),
        "self-talk": PartOutput({}, self_talk),
    }
    return types.MappingProxyType(runs)
