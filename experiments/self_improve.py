"""Critique-in-the-loop self-improvement against the vanilla method (section 5, Figure 6).

    python -m experiments.self_improve --flagfile=experiments/flagfiles/quickstart.flags

Runs the whole method: fine-tunes the actor and, on data AutoMathCritique builds, the critic; then
explores and learns for T iterations, with the critic and without; evaluates every actor. The same
command again goes on where a killed run stopped.
"""

import collections
import dataclasses
import json
import pathlib
import resource
import shlex
import sys
import time
from typing import Any

from absl import flags, logging

from experiments import engines, games
from experiments.program import claim, refusing_bad_input, run, settings_but
from jaxcritique.analysis.intervals import accuracy, paired_difference
from jaxcritique.analysis.levels import accuracy_by_level, share_by_level
from jaxcritique.analysis.report import headline, write_report
from jaxcritique.analysis.table import results_table
from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.critiques.build import CritiqueDataConfig, build_critiques
from jaxcritique.grading import Grader
from jaxcritique.improvement.self_improve import (
    Iteration,
    LoopConfig,
    actor_examples,
    critic_examples,
    improve,
)
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.players import Game, Start, respond
from jaxcritique.records import Problem, Refinement, Solution
from jaxcritique.rollout.load import Engine
from jaxcritique.store import write_atomically
from jaxcritique.tasks import TINY_BASE, load_problems
from jaxcritique.testtime.critic import evaluate_critic

FLAGS = flags.FLAGS
games.define_flags(seed="Decides problems, samples and the order of training data.")
games.define_task_flags()
games.define_training_flags()
flags.DEFINE_string("model", str(TINY_BASE), "Hugging Face folder: the base of actor and critic.")
flags.DEFINE_integer(
    "explore_problems",
    0,
    "Problems explored beside D_reason, of which only the answers are used (paper: none).",
    lower_bound=0,
)
flags.DEFINE_integer("test_problems", 0, "Problems evaluated on; 0: all.", lower_bound=0)
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
flags.DEFINE_float(
    "tau", 0.3, "Critiques are kept above this success rate.", lower_bound=0.0, upper_bound=1.0
)
flags.DEFINE_integer(
    "max_flawed", 0, "Critiques of flawed paths that are filtered; 0: all.", lower_bound=0
)
flags.register_validator(
    "explore_problems",
    lambda explored: not explored or FLAGS.train_problems > 0,
    message="--explore_problems needs --train_problems: without it all of a file is D_reason.",
)


def main(_: list[str]) -> None:
    """Runs the program."""
    started = time.monotonic()
    run_dir = pathlib.Path(FLAGS.run_dir)
    settings = settings_but(["run_dir"])
    with refusing_bad_input():
        base = ModelFolder.of(FLAGS.model)
        data = FLAGS.task, FLAGS.data_dir
        wanted = FLAGS.train_problems and FLAGS.train_problems + FLAGS.explore_problems
        explored = load_problems(*data, "train", wanted, FLAGS.seed)
        train = explored[: FLAGS.train_problems or None]
        test = load_problems(*data, "test", FLAGS.test_problems, games.TEST_SEED)
        if games.checker(train) is None:
            raise ValueError(
                f"--task={FLAGS.task}: the annotator checks calculations (<<1+2=3>>), which most "
                "of these annotated solutions do not have. Use word_problems or gsm8k."
            )
        claim(run_dir, {**settings, "model": base.key})
        engine = engines.engine()
    with Grader() as grader, engine:
        game = games.game(grader)
        results = _experiment(game, engine, base, train, explored, test)
    results = {
        "command": shlex.join(["python", "-m", "experiments.self_improve", *sys.argv[1:]]),
        "seed": FLAGS.seed,
        "settings": settings,
        "wall_seconds": time.monotonic() - started,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **results,
    }
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    write_report(results, run_dir / "report.html")
    print(results_table(results))
    print(headline(results))
    print(f"{run_dir / 'results.json'}\n{run_dir / 'report.html'}")


def _experiment(
    game: Game,
    engine: Engine,
    base: ModelFolder,
    train: list[Problem],
    explored: list[Problem],
    test: list[Problem],
) -> dict[str, Any]:
    """Trains and evaluates everything; returns what results.json says of it."""
    fine_tune = engines.trainer(engine)

    # ---- actor: D_reason and D_refine (equation 2)
    annotator = ArithmeticAnnotator(one_plan=FLAGS.task == "word_problems")
    refine_set = games.refine_set(train, annotator)
    reasoning = [(problem, problem.rationale) for problem in train]
    actor = fine_tune(
        game.store,
        "actor-0",
        base,
        actor_examples(game.prompts, reasoning, refine_set, FLAGS.beta),
        games.sft_config(),
        game.seed,
    )

    # ---- critic: D_critique by AutoMathCritique (section 3, equation 1)
    player = engine.sampler(actor)
    critique_data = build_critiques(
        game,
        player,
        train,
        annotator,
        CritiqueDataConfig(
            samples=FLAGS.rg1_samples,
            temperature=FLAGS.temperature,
            rg2_temperature=FLAGS.rg2_temperature,
            rg2_increase=FLAGS.rg2_increase,
            rg2_rounds=FLAGS.rg2_rounds,
            rg3_attempts=FLAGS.rg3_attempts,
            refinements=FLAGS.filter_refinements,
            tau=FLAGS.tau,
            max_flawed=FLAGS.max_flawed,
        ),
    )
    critic_model = base
    if len(critique_data):
        critic_model = fine_tune(
            game.store,
            "critic",
            base,
            critic_examples(game.prompts, critique_data),
            games.sft_config(FLAGS.critic_epochs),
            game.seed,
        )
    else:
        logging.warning("no critique passed the filter: the base itself is the critic.")
    critic = engine.sampler(critic_model)

    # ---- both methods, every actor evaluated greedily on the test problems
    loop = LoopConfig(
        iterations=FLAGS.iterations,
        samples=FLAGS.samples,
        critiques=FLAGS.critiques,
        temperature=FLAGS.temperature,
        beta=FLAGS.beta,
    )
    start = Iteration(actor, tuple(train), 0, 0, 0)
    rows: list[dict[str, Any]] = []
    models = {"critic": critic_model}
    scores: dict[str, dict[str, float]] = {}
    first: list[Solution] = []
    for method, supervisor in (("vanilla", None), ("critique", critic)):
        history = improve(
            game,
            method,
            base,
            actor,
            supervisor,
            train,
            explored,
            refine_set,
            loop,
            games.sft_config(),
            engine.sampler,
            fine_tune,
        )
        models[f"{method} actor"] = history[-1].actor
        for number, iteration in enumerate([start, *history]):
            solutions = list(
                respond(
                    game,
                    f"test-{method if number else 'actor'}-{number}",
                    engine.sampler(iteration.actor),
                    [Start(problem) for problem in test],
                    1,
                    0.0,
                )
            )
            first = first or solutions
            scores[method] = {s.problem.id: float(s.correct) for s in solutions}
            rows.append(_row(method, number, iteration, test, scores[method]))
            print(f"{method}, iteration {number}: accuracy {rows[-1]['accuracy']:.3f}")
    critic_report, refinements = evaluate_critic(game, "test-critic", player, critic, first)
    difference = paired_difference(scores["critique"], scores["vanilla"], FLAGS.seed)
    return {
        "test_problems": len(test),
        "iterations": rows,
        "comparison": {
            "critique_minus_vanilla": difference.mean,
            "ci95": difference.ci95,
            "paired_by": "problem",
        },
        "critic": dataclasses.asdict(critic_report),
        "critique_data": critique_data.facts["counts"],
        "transcripts": _transcripts(refinements),
        "models": {name: _shown(model.folder) for name, model in models.items()},
    }


def _shown(folder: pathlib.Path) -> str:
    """A folder of this run by its path within it, another by its whole path."""
    run_dir = pathlib.Path(FLAGS.run_dir)
    return str(folder.relative_to(run_dir) if folder.is_relative_to(run_dir) else folder)


def _row(
    method: str,
    number: int,
    iteration: Iteration,
    test: list[Problem],
    scores: dict[str, float],
) -> dict[str, Any]:
    estimate = accuracy(scores, FLAGS.seed)
    return {
        "method": method,
        "iteration": number,
        "accuracy": estimate.mean,
        "ci95": estimate.ci95,
        "accuracy_by_level": accuracy_by_level(test, scores),
        "train_size": len(iteration.trained_on),
        "train_share_by_level": share_by_level(iteration.trained_on),
        "generated_tokens": iteration.generated_tokens,
        "correct_responses": iteration.correct_responses,
        "correct_refinements": iteration.correct_refinements,
    }


def _transcripts(refinements: list[Refinement]) -> list[dict[str, Any]]:
    """A few of each flow: repaired, broken, still wrong, still right."""
    flows: dict[tuple[bool, bool], list[Refinement]] = collections.defaultdict(list)
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
