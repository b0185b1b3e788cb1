"""Critique-in-the-loop self-improvement against the vanilla method, and its ablations (section 5).

    python -m experiments.self_improve --flagfile=experiments/flagfiles/quickstart.flags

Runs the whole method: fine-tunes the actor and, on data AutoMathCritique builds, the critic; then
explores and learns for T iterations, with the critic and without, and in what other ways --methods
names; evaluates every actor. The same command again goes on where a killed run stopped.
"""

import dataclasses
import json
import pathlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags, logging

from experiments import engines, games
from experiments.program import (
    about_this_run,
    claim,
    failed_samples,
    refusing_bad_input,
    run,
    settings_but,
)
from jaxcritique.analysis.difficulty import rated
from jaxcritique.analysis.intervals import accuracy, paired_difference
from jaxcritique.analysis.levels import accuracy_by_level, share_by_level
from jaxcritique.analysis.report import headline, write_report
from jaxcritique.analysis.table import results_table
from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.critiques.pipeline import CritiqueDataConfig, build_critiques
from jaxcritique.grading import Grader
from jaxcritique.improvement.algorithm import (
    Iteration,
    LoopConfig,
    actor_examples,
    critic_examples,
    improve,
    self_correction_data,
)
from jaxcritique.improvement.arms import Arm, arms
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import Problem, Refinement, Solution
from jaxcritique.roles import Context, Start, costs_of, respond
from jaxcritique.rollout.engines import Engine
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import write_atomically, write_rows
from jaxcritique.tasks import TINY_BASE, load_problems
from jaxcritique.testtime.critic_metrics import evaluate_critic

FLAGS = flags.FLAGS
games.define_flags(seed="Decides problems, samples and the order of training data.")
games.define_task_flags()
games.define_training_flags()
games.define_difficulty_flags(0, of="the fine-tuned actor")
flags.DEFINE_string("model", str(TINY_BASE), "Hugging Face folder: the base of actor and critic.")
flags.DEFINE_string(
    "actor",
    None,
    "Hugging Face folder of a fine-tuned actor to begin with, as the results.json of another run "
    "names one; without it one is trained.",
)
flags.DEFINE_string("critic", None, "The critic, likewise; no critique data is built then.")
flags.DEFINE_integer(
    "explore_problems",
    0,
    "Problems explored beside D_reason, of which only the answers are used (paper: none).",
    lower_bound=0,
)
flags.DEFINE_integer("test_problems", 0, "Problems evaluated on; 0: all.", lower_bound=0)
flags.DEFINE_list(
    "methods",
    ["vanilla", "critique"],
    "What is compared with critique: vanilla, at least. Table 4's ablations: "
    "no_difficulty_awareness (as many critiques, of all responses alike), more_refinements (one "
    "critique of a wrong response and L refinements after it). vanilla_equal_tokens: as many more "
    "responses as bring it to critique's tokens.",
)
flags.DEFINE_bool(
    "self_correction",
    False,
    "Fine-tune an actor also on D_refine without its critiques, Table 3's baseline.",
)
flags.DEFINE_integer("iterations", 3, "T, exploration and learning steps.", lower_bound=1)
flags.DEFINE_integer("samples", 10, "N, responses a problem (paper: 5 and 10).", lower_bound=1)
flags.DEFINE_integer(
    "critiques", 1, "L, critiques of a wrong response (the paper does not say).", lower_bound=1
)
flags.DEFINE_float("temperature", 0.7, "Of exploration.", lower_bound=0.0)
flags.DEFINE_integer("critic_epochs", 1, "Of the critic's fine-tuning.", lower_bound=1)
flags.DEFINE_integer("rg1_samples", 4, "RG1: samples a problem.", lower_bound=1)
flags.DEFINE_integer("rg2_rounds", 2, "RG2: steps tried, hotter each time.", lower_bound=0)
flags.DEFINE_float("rg2_temperature", 1.0, "RG2: temperature of the first round.", lower_bound=0.0)
flags.DEFINE_float("rg2_increase", 0.2, "RG2: what each round adds to it.", lower_bound=0.0)
flags.DEFINE_integer("rg3_attempts", 16, "RG3: attempts a path (paper: 16).", lower_bound=0)
flags.DEFINE_integer("filter_refinements", 10, "Refinements a critique.", lower_bound=1)
games.define_tau()
flags.DEFINE_integer(
    "max_flawed", 0, "Critiques of flawed paths that are filtered; 0: all.", lower_bound=0
)
flags.register_validator(
    "explore_problems",
    lambda explored: not explored or FLAGS.train_problems > 0,
    message="--explore_problems needs --train_problems: without it all of a file is D_reason.",
)


# What may change within a run folder: it adds models and figures to those that are there.
_FREE = ("run_dir", "methods", "self_correction", "difficulty_samples", "difficulty")

# Test problems the critic is evaluated on here; experiments.evaluate_critic takes all one wants.
_CRITIC_PROBLEMS = 300


def main(_: list[str]) -> None:
    """Runs the program."""
    started = time.monotonic()
    run_dir = pathlib.Path(FLAGS.run_dir)
    with refusing_bad_input():
        methods = _methods()
        critique_data = _critique_data()
        base = games.model("model", FLAGS.model)
        given = {
            name: games.model(name, folder)
            for name in ("actor", "critic")
            if (folder := FLAGS[name].value) is not None
        }
        data = FLAGS.task, FLAGS.data_dir
        wanted = FLAGS.train_problems and FLAGS.train_problems + FLAGS.explore_problems
        explored = load_problems(*data, "train", wanted, FLAGS.seed)
        train = explored[: FLAGS.train_problems or None]
        test = load_problems(*data, "test", FLAGS.test_problems, games.TEST_SEED)
        annotator = games.annotator(train)
        engines.check_training(base, games.sft_config())
        models = {"model": base, **given}
        claim(run_dir, settings_but(_FREE) | {name: model.key for name, model in models.items()})
        engine = engines.engine()
    with Grader() as grader, engine:
        context = games.context(grader)
        results = _experiment(
            context, engine, methods, critique_data, annotator, base, given, train, explored, test
        )
    results = {
        **about_this_run(started),
        **results,
    }
    write_report(results, run_dir / "report.html")
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    print(results_table(results))
    print(headline(results))
    print(f"{run_dir / 'results.json'}\n{run_dir / 'report.html'}")


def _methods() -> list[Arm]:
    """Reads --methods.

    Raises:
      ValueError: it names what there is not, or lacks one of the two that are always compared.
    """
    found = arms(FLAGS.critiques)
    flag = f"--methods={','.join(FLAGS.methods)}"
    if unknown := sorted(set(FLAGS.methods) - found.keys()):
        raise ValueError(f"{flag}: there is no {unknown[0]!r}; choose from {', '.join(found)}.")
    if missing := [name for name in ("vanilla", "critique") if name not in FLAGS.methods]:
        raise ValueError(f"{flag} lacks {missing[0]}, which every run compares; add it.")
    if "more_refinements" in FLAGS.methods and FLAGS.critiques == 1:
        raise ValueError(
            f"{flag} --critiques=1: with one critique a response, more_refinements is the critique "
            "method itself. Give --critiques=2 or more."
        )
    return [arm for name, arm in found.items() if name in FLAGS.methods]


def _critique_data() -> CritiqueDataConfig:
    """Reads how D_critique is built.

    Raises:
      ValueError: nothing could pass the filter.
    """
    return CritiqueDataConfig(
        samples=FLAGS.rg1_samples,
        temperature=FLAGS.temperature,
        rg2_temperature=FLAGS.rg2_temperature,
        rg2_increase=FLAGS.rg2_increase,
        rg2_rounds=FLAGS.rg2_rounds,
        rg3_attempts=FLAGS.rg3_attempts,
        refinements=FLAGS.filter_refinements,
        tau=games.tau(),
        max_flawed=FLAGS.max_flawed,
    )


def _experiment(
    context: Context,
    engine: Engine,
    methods: list[Arm],
    critique_data: CritiqueDataConfig,
    annotator: ArithmeticAnnotator,
    base: ModelFolder,
    given: Mapping[str, ModelFolder],
    train: list[Problem],
    explored: list[Problem],
    test: list[Problem],
) -> dict[str, Any]:
    """Trains what is not given and evaluates everything; returns what results.json says of it."""
    fine_tune = engines.trainer(engine)
    models: dict[str, ModelFolder] = {}

    # ---- actor: D_reason and D_refine (equation 2)
    refine_set = games.refine_set(train, annotator)
    reasoning = [(problem, problem.rationale) for problem in train]
    actor = given.get("actor") or fine_tune(
        context.store,
        "actor-0",
        base,
        actor_examples(context.prompts, reasoning, refine_set, FLAGS.beta),
        games.sft_config(),
        context.seed,
    )
    models["sft actor"] = actor
    if FLAGS.self_correction:
        models["self_correction actor"] = fine_tune(
            context.store,
            "actor-self_correction",
            base,
            actor_examples(
                context.prompts, reasoning, self_correction_data(refine_set), FLAGS.beta
            ),
            games.sft_config(),
            context.seed,
        )

    # ---- critic
    player = engine.sampler(actor)
    counts: dict[str, Any] = {}
    costs: dict[str, Mapping[str, int]] = {}  # Of every stage that asked a model.
    critic_model = given.get("critic")
    if critic_model is None:
        critic_model, facts = _trained_critic(
            context, engine, player, annotator, base, train, critique_data
        )
        counts = facts["counts"]
        costs |= facts["costs"]
    models["critic"] = critic_model
    critic = engine.sampler(critic_model)

    # ---- how difficult the problems are: what results are split by
    explored_rated = _rated(context, "difficulty-train", player, explored, costs)
    test_rated = _rated(context, "difficulty-test", player, test, costs)

    # ---- every method, every actor evaluated greedily on the test problems
    loop = LoopConfig(
        iterations=FLAGS.iterations,
        samples=FLAGS.samples,
        temperature=FLAGS.temperature,
        beta=FLAGS.beta,
    )
    start = Iteration(actor, tuple(train))
    rows: list[dict[str, Any]] = []
    score_rows: list[dict[str, Any]] = []
    training_rows: list[dict[str, Any]] = []
    histories: dict[str, list[Iteration]] = {}
    scores: dict[str, dict[str, float]] = {}
    first: list[Solution] = []
    for arm in methods:
        method = arm.name
        histories[method] = improve(
            context,
            arm,
            base,
            actor,
            critic,
            train,
            explored,
            refine_set,
            loop,
            games.sft_config(),
            engine.sampler,
            fine_tune,
            histories[arm.tokens_of] if arm.tokens_of else (),
        )
        models[f"{method} actor"] = histories[method][-1].actor
        for number, iteration in enumerate([start, *histories[method]]):
            tested = respond(
                context,
                f"test-{method if number else 'actor'}-{number}",
                engine.sampler(iteration.actor),
                [Start(problem) for problem in test],
                1,
                0.0,
            )
            costs |= {**iteration.costs, tested.key: costs_of(tested)}
            first = first or list(tested)
            scores[method] = {s.problem.id: float(s.correct) for s in tested}
            trained_on = Counter(problem.id for problem in iteration.trained_on)
            rows.append(_row(method, number, iteration, test_rated, explored_rated, scores[method]))
            named = {"method": method, "iteration": number}
            score_rows += _by_problem(test_rated, named, "score", scores[method])
            training_rows += _by_problem(explored_rated, named, "rows", trained_on)
            print(f"{method}, iteration {number}: accuracy {rows[-1]['accuracy']:.3f}")
    write_rows(context.store.run_dir / "scores.jsonl", score_rows)
    write_rows(context.store.run_dir / "training.jsonl", training_rows)
    critic_report, refinements, spent = evaluate_critic(
        context, "test-critic", player, critic, first[:_CRITIC_PROBLEMS]
    )
    costs |= spent
    difference = paired_difference(scores["critique"], scores["vanilla"], FLAGS.seed)
    found: dict[str, Any] = {
        "test_problems": len(test),
        "failed": failed_samples(costs.values()),
        "iterations": rows,
        "comparison": {
            "critique_minus_vanilla": difference.mean,
            "ci95": difference.ci95,
            "paired_by": "problem",
        },
        "levels_by": games.levels_by(),
        "critic": dataclasses.asdict(critic_report),
        **({"critique_data": counts} if counts else {}),
        "transcripts": _transcripts(refinements),
        "models": {name: games.shown(model.folder) for name, model in models.items()},
    }
    if len(methods) > 2:
        found["comparisons"] = _comparisons(scores)
    return found


def _trained_critic(
    context: Context,
    engine: Engine,
    player: Sampler,
    annotator: ArithmeticAnnotator,
    base: ModelFolder,
    train: list[Problem],
    config: CritiqueDataConfig,
) -> tuple[ModelFolder, dict[str, Any]]:
    """Fine-tunes a critic on D_critique by AutoMathCritique (section 3, equation 1).

    Returns:
      The critic (the base itself where no critique passed the filter), and of the stages that made
      its data "counts" of rows and "costs".
    """
    data = build_critiques(
        context,
        player,
        train,
        annotator,
        config,
    )
    if not len(data):
        logging.warning("no critique passed the filter: the base itself is the critic.")
        return base, data.facts
    critic = engines.trainer(engine)(
        context.store,
        "critic",
        base,
        critic_examples(context.prompts, data),
        games.sft_config(FLAGS.critic_epochs),
        context.seed,
    )
    return critic, data.facts


def _rated(
    context: Context,
    name: str,
    actor: Sampler,
    problems: list[Problem],
    costs: dict[str, Mapping[str, int]],
) -> dict[str, Problem]:
    """Returns the problems by id, with the levels by which results are split.

    Adds what it cost to `costs`. The loop itself is given the problems as they are: levels do not
    decide what is sampled.
    """
    if FLAGS.difficulty_samples:
        # Samples of their own: by those that are trained on, or scored, chance would decide both.
        starts = [Start(problem) for problem in problems]
        n = FLAGS.difficulty_samples
        samples = respond(context.reseeded(1), name, actor, starts, n, FLAGS.temperature)
        costs[name] = costs_of(samples)
        problems = rated(problems, samples, n, FLAGS.difficulty)
    return {problem.id: problem for problem in problems}


def _by_problem(
    problems: Mapping[str, Problem],
    named: Mapping[str, Any],
    field: str,
    values: Mapping[str, float],
) -> Iterator[dict[str, Any]]:
    """Yields a row for each problem, of one actor."""
    for problem in problems.values():
        yield {"problem": problem.id, "level": problem.level, **named, field: values[problem.id]}


def _comparisons(scores: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """The critique method minus every other, at the last iteration."""
    rows = []
    for other in scores:
        if other != "critique":
            difference = paired_difference(scores["critique"], scores[other], FLAGS.seed)
            rows.append(
                {
                    "method": "critique",
                    "minus": other,
                    "difference": difference.mean,
                    "ci95": difference.ci95,
                    "paired_by": "problem",
                }
            )
    return rows


def _row(
    method: str,
    number: int,
    iteration: Iteration,
    test: Mapping[str, Problem],
    explored: Mapping[str, Problem],
    scores: Mapping[str, float],
) -> dict[str, Any]:
    estimate = accuracy(scores, FLAGS.seed)
    return {
        "method": method,
        "iteration": number,
        "accuracy": estimate.mean,
        "ci95": estimate.ci95,
        "accuracy_by_level": accuracy_by_level(test.values(), scores),
        "train_size": len(iteration.trained_on),
        "train_share_by_level": share_by_level(explored[p.id] for p in iteration.trained_on),
        "generated_tokens": iteration.generated_tokens,
        "responses": iteration.responses,
        "correct_responses": iteration.correct_responses,
        "critiques": iteration.critiques,
        "refinements": iteration.refinements,
        "correct_refinements": iteration.correct_refinements,
    }


def _transcripts(refinements: list[Refinement]) -> list[dict[str, Any]]:
    """A few of each flow: repaired, broken, still wrong, still right."""
    flows: dict[tuple[bool, bool], list[Refinement]] = defaultdict(list)
    for refinement in refinements:
        flows[refinement.critique.solution.correct, refinement.correct].append(refinement)
    chosen = [*flows[False, True][:3], *flows[False, False][:2], *flows[True, False][:1]]
    chosen += flows[True, True][:1]
    return [
        {
            "question": r.critique.solution.problem.question,
            "answer": r.critique.solution.problem.answer,
            "response": r.critique.solution.text,
            "critique": r.critique.text,
            "refinement": r.text,
            "first_error": r.critique.first_error,
            "response_verdict": r.critique.solution.verdict,
            "refinement_verdict": r.verdict,
        }
        for r in chosen
    ]


if __name__ == "__main__":
    run(main)
