"""Critique-in-the-loop self-improvement against the vanilla method, and its ablations (section 5).

Fine-tunes the actor and, on data that AutoMathCritique builds, the critic; runs Algorithm 1 with
every arm that `methods` names; evaluates every actor.
"""

import collections
import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from jaxcritique.analysis.difficulty import DifficultyConfig, rated
from jaxcritique.analysis.intervals import accuracy
from jaxcritique.analysis.levels import accuracy_by_level, share_by_level
from jaxcritique.config import setting
from jaxcritique.critiques.annotate import Annotator, require_checker
from jaxcritique.critiques.pipeline import CritiqueDataConfig, critique_dataset
from jaxcritique.critiques.supervision import (
    actor_examples,
    critic_examples,
    refine_set,
    self_correction_data,
)
from jaxcritique.errors import checking_input
from jaxcritique.improvement.algorithm import Iteration, LoopConfig, LoopInputs, improve
from jaxcritique.improvement.arms import ARMS, Arm
from jaxcritique.improvement.results import (
    Comparison,
    IterationRow,
    SelfImprovement,
    differences,
    transcripts,
)
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import Problem
from jaxcritique.roles import Context, RolesConfig, Start, costs_of, respond
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.run_folder import about_run, claim, shown
from jaxcritique.store import write_rows
from jaxcritique.tasks import TINY_BASE, TaskConfig
from jaxcritique.testtime.critic_metrics import score_critic
from jaxcritique.testtime.scores import score_rows

# Changing these adds models and figures to a run folder, and leaves what is there valid.
_FREE = ("methods", "self_correction", "difficulty_samples", "difficulty")
_ALWAYS = ("vanilla", "critique")
_CRITIC_PROBLEMS = 300  # Test problems the critic is evaluated on; `evaluate_critic` takes any.

Costs = dict[str, Mapping[str, int]]  # `roles.COSTS` of each stage.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfImproveConfig(TaskConfig, RolesConfig, LoopConfig, CritiqueDataConfig, DifficultyConfig):
    """Settings of `self_improve`."""

    # The levels only split the results here, and rating costs 100 samples for each problem.
    difficulty_samples: int = setting(
        0,
        "Samples of the fine-tuned actor for each problem, used for nothing else, that tell its "
        "difficulty (paper: 100). 0: the levels are those of the data.",
        low=0,
    )
    model: str = setting(str(TINY_BASE), "Hugging Face folder: the base of actor and critic.")
    actor: str | None = setting(
        None,
        "Hugging Face folder of a fine-tuned actor to start from, such as one that another run's "
        "results.json names. Without: one is trained.",
    )
    critic: str | None = setting(None, "The same for the critic; then no critique data is built.")
    explore_problems: int = setting(
        0,
        "Problems explored in addition to D_reason, of which only the answers are used (paper: "
        "none).",
        low=0,
    )
    methods: tuple[str, ...] = setting(
        _ALWAYS,
        "Ways to explore, at least the first two. What each samples beyond the N responses: "
        + "; ".join(f"{arm.name}: {arm.about}" for arm in ARMS.values())
        + ".",
    )
    self_correction: bool = setting(
        False, "Also fine-tune an actor on D_refine without its critiques, Table 3's baseline."
    )
    critic_epochs: int = setting(1, "Epochs of the critic's fine-tuning.", low=1)

    def __post_init__(self) -> None:
        """Checks what no single field's bounds say."""
        super().__post_init__()
        if self.explore_problems and not self.train_problems:
            raise ValueError(
                f"`explore_problems={self.explore_problems}` needs `train_problems`: without it "
                "all of a file is D_reason."
            )
        given = f"`methods={','.join(self.methods)}`"
        if unknown := sorted(set(self.methods) - ARMS.keys()):
            raise ValueError(f"{given}: there is no {unknown[0]!r}; choose from {', '.join(ARMS)}.")
        if missing := [name for name in _ALWAYS if name not in self.methods]:
            raise ValueError(f"{given} lacks {missing[0]}, which every run compares; add it.")
        for arm in self.arms:
            if self.critiques < arm.least_critiques:
                raise ValueError(
                    f"{given} `critiques={self.critiques}`: {arm.name} is then no different from "
                    f"critique. Give `critiques={arm.least_critiques}` or more."
                )
            if arm.tokens_of is not None and arm.tokens_of not in self.methods:
                raise ValueError(f"{given}: {arm.name} needs {arm.tokens_of}; add it.")

    @property
    def arms(self) -> list[Arm]:
        """The arms that `methods` names, in the order in which they run."""
        return [arm for name, arm in ARMS.items() if name in self.methods]


def self_improve(
    config: SelfImproveConfig,
    run_dir: str | os.PathLike[str],
    engine: EngineConfig = EngineConfig(),
) -> SelfImprovement:
    """Compares ways of self-improvement from the same actor.

    The same call again goes on where a killed one stopped. `run_dir` gets results.json,
    report.html, scores.jsonl (of each test problem) and training.jsonl (rows of each explored
    problem in the actors' training data).

    Args:
      config: settings.
      run_dir: folder for everything this run makes.
      engine: what samples, and on which devices.

    Raises:
      InvalidInput: settings, files or the folder cannot be used. Known within seconds.
    """
    started, run_dir = time.monotonic(), pathlib.Path(run_dir)
    with checking_input():
        base = ModelFolder.named("model", config.model)
        given = {
            name: ModelFolder.named(name, folder)
            for name in ("actor", "critic")
            if (folder := getattr(config, name)) is not None
        }
        wanted = config.train_problems and config.train_problems + config.explore_problems
        explored = config.load_train(wanted, config.seed)
        train, test = explored[: config.train_problems or None], config.load_test()
        annotator = require_checker(f"task={config.task}", train)
        engine.check_training(base, config)
        sampling = engine.start()
        decisive = {k: v for k, v in config.to_json().items() if k not in _FREE}
        keys = {name: model.key for name, model in {"model": base, **given}.items()}
        claim(run_dir, "self_improve", decisive | keys)

    costs: Costs = {}
    with Context.open(config, base, run_dir, sampling) as context:
        # ---- actor and critic, by supervised fine-tuning (equations 2 and 1)
        refinements = refine_set(train, annotator, config, config.seed)
        reasoning = [(problem, problem.rationale) for problem in train]
        examples = actor_examples(context.prompts, reasoning, refinements, config.beta)
        actor = given.get("actor") or context.fine_tune("actor-0", base, examples, config)
        models = {"sft actor": actor}
        if config.self_correction:
            alone = self_correction_data(refinements)
            examples = actor_examples(context.prompts, reasoning, alone, config.beta)
            models["self_correction actor"] = context.fine_tune(
                "actor-self_correction", base, examples, config
            )
        critic, critique_data = given.get("critic"), None
        if critic is None:
            critic, critique_data = _train_critic(
                context, actor, annotator, base, train, config, costs
            )
        models["critic"] = critic

        # ---- the difficulty of problems, by which results are split
        explored_rated = _rated(context, "difficulty-train", actor, explored, config, costs)
        test_rated = _rated(context, "difficulty-test", actor, test, config, costs)

        # ---- Algorithm 1 with every arm; every actor evaluated greedily on the test problems
        inputs = LoopInputs(base, actor, critic, train, explored, refinements)
        histories: dict[str, list[Iteration]] = {}
        rows: list[IterationRow] = []
        tested_rows: list[dict[str, Any]] = []
        training_rows: list[dict[str, Any]] = []
        scores: dict[str, dict[str, float]] = {}  # After the last iteration, by arm.
        responses = []  # Of the actor that all arms start from.
        for arm in config.arms:
            matched = histories[arm.tokens_of] if arm.tokens_of else ()
            history = histories[arm.name] = improve(context, arm, inputs, config, matched)
            models[f"{arm.name} actor"] = history[-1].actor
            for number, iteration in enumerate([Iteration(actor, tuple(train)), *history]):
                tested = respond(
                    context,
                    f"test-{arm.name if number else 'actor'}-{number}",
                    context.sampler(iteration.actor),
                    [Start(problem) for problem in test],
                    1,
                    0.0,
                )
                costs |= {**iteration.costs, tested.key: costs_of(tested)}
                responses = responses or list(tested)
                scores[arm.name] = {s.problem.id: float(s.correct) for s in tested}
                estimate = accuracy(scores[arm.name], config.seed)
                trained_on = [explored_rated[problem.id] for problem in iteration.trained_on]
                row = IterationRow(
                    method=arm.name,
                    iteration=number,
                    accuracy=estimate.mean,
                    ci95=estimate.ci95,
                    accuracy_by_level=accuracy_by_level(test_rated.values(), scores[arm.name]),
                    train_size=len(trained_on),
                    train_share_by_level=share_by_level(trained_on),
                    **dataclasses.asdict(iteration.counts),
                )
                rows.append(row)
                about = {"method": arm.name, "iteration": number}
                tested_rows += score_rows(test_rated.values(), [(about, scores[arm.name])])
                many = collections.Counter(problem.id for problem in trained_on)
                training_rows += score_rows(explored_rated.values(), [(about, many)], "rows")
                print(f"{arm.label}, iteration {number}: accuracy {row.accuracy:.3f}")

        critic_report, refined, spent = score_critic(
            context,
            "test-critic",
            context.sampler(actor),
            context.sampler(critic),
            responses[:_CRITIC_PROBLEMS],
        )
        costs |= spent

    write_rows(run_dir / "training.jsonl", training_rows)
    compared = differences(scores, config.seed)
    results = SelfImprovement(
        **about_run(run_dir, config, started, costs),
        test_problems=len(test),
        iterations=rows,
        comparison=Comparison.among(compared),
        levels_by=config.levels_by,
        critic=critic_report,
        critique_data=critique_data,
        transcripts=transcripts(refined),
        models={name: shown(model.folder, run_dir) for name, model in models.items()},
        comparisons=compared if len(compared) > 1 else None,
    )
    results.write(tested_rows)
    results.write_report()
    return results


def _train_critic(
    context: Context,
    actor: ModelFolder,
    annotator: Annotator,
    base: ModelFolder,
    train: Sequence[Problem],
    config: SelfImproveConfig,
    costs: Costs,
) -> tuple[ModelFolder, dict[str, int]]:
    """Fine-tunes a critic on D_critique (section 3, equation 1); adds what the data cost.

    Returns:
      The critic (the base itself where no critique passed the filter), and the counts of its data.
    """
    data = critique_dataset(
        context, context.sampler(actor), train, annotator, config.part(CritiqueDataConfig)
    )
    costs |= data.facts["costs"]
    if not len(data):
        logging.warning("No critique passed the filter: the base itself is the critic.")
        return base, data.facts["counts"]
    sft = dataclasses.replace(config, epochs=config.critic_epochs)
    examples = critic_examples(context.prompts, data)
    return context.fine_tune("critic", base, examples, sft), data.facts["counts"]


def _rated(
    context: Context,
    name: str,
    actor: ModelFolder,
    problems: Sequence[Problem],
    config: SelfImproveConfig,
    costs: Costs,
) -> dict[str, Problem]:
    """Returns the problems by id, with the levels that results are split by; adds the cost.

    Algorithm 1 gets the problems as they are: levels do not decide what is sampled.
    """
    n = config.difficulty_samples
    if n:
        # Separate samples: levels read from those that are trained on or scored would be biased.
        starts = [Start(problem) for problem in problems]
        sampler = context.sampler(actor)
        samples = respond(context.reseeded(1), name, sampler, starts, n, config.temperature)
        costs[name] = costs_of(samples)
        problems = rated(problems, samples, n, config.difficulty)
    return {problem.id: problem for problem in problems}
