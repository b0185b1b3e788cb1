"""Self-talk via critique (section 7, Table 5): one actor that checks itself step by step.

    python -m experiments.self_talk --flagfile=experiments/flagfiles/laptop/self-talk.flags \
      --critic=DIR --run_dir=runs/self_talk

Builds self-talk data out of the actor's solutions, a critic's feedback on each step and the actor's
corrections; fine-tunes an actor on it; and compares that with an actor that corrects its whole
solution and with an actor that has a critic. RUN_DIR/self_talk.jsonl has the examples as
experiments/sft.py reads them. The same command again goes on where a killed run stopped.
"""

import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

from absl import flags

from experiments import engines, games
from experiments.program import (
    about_this_run,
    claim,
    failed_samples,
    refusing_bad_input,
    run,
    settings_but,
)
from jaxcritique.analysis.self_talk_report import (
    METHODS,
    SELF_CORRECTION,
    SELF_TALK,
    UNTOUCHED,
    comparisons,
    method_points,
    self_talk_tables,
    write_self_talk,
)
from jaxcritique.analysis.table import aligned
from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.grading import Grader
from jaxcritique.improvement.algorithm import actor_examples, self_correction_data
from jaxcritique.improvement.self_talk_data import (
    SelfTalk,
    SelfTalkConfig,
    SelfTalkData,
    build_self_talk,
    self_talk_examples,
)
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.templates import self_talk_messages, solve_messages
from jaxcritique.records import Problem, Solution
from jaxcritique.roles import Context, Start, costs_of, respond
from jaxcritique.rollout.engines import Engine
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import write_atomically, write_rows
from jaxcritique.tasks import TINY_BASE, load_problems
from jaxcritique.testtime.rounds import PROTOCOLS, Chain, Critic, Protocol, run_rounds
from jaxcritique.testtime.scores import ALONE, Point, rows_of, score_rows
from jaxcritique.testtime.voting import equality

FLAGS = flags.FLAGS
games.define_flags(seed="Decides problems, samples and the order of training data.")
games.define_task_flags()
games.define_training_flags()
flags.DEFINE_string("model", str(TINY_BASE), "Hugging Face folder: the base of all actors.")
flags.DEFINE_string(
    "actor",
    None,
    "Hugging Face folder of an actor fine-tuned on D_reason and D_refine. Without: one is "
    "fine-tuned here, from --model.",
)
flags.DEFINE_string(
    "critic",
    None,
    "Hugging Face folder of the critic. 'checker': the program that works out every step against "
    "the reference solution.",
    required=True,
)
flags.DEFINE_string(
    "data_critic", None, "Who gives the feedback in the self-talk data. Without: the critic."
)
flags.DEFINE_string(
    "smoother",
    None,
    "Hugging Face folder of a model that smooths the self-talk texts, as in the paper. Without: "
    "phrases are put in by program.",
)
flags.DEFINE_integer("samples", 4, "Reasoning paths a problem, to make data of.", lower_bound=1)
flags.DEFINE_integer("rounds", 3, "Most refinements of a path.", lower_bound=1)
flags.DEFINE_integer(
    "self_talk_examples", 4000, "Most self-talk examples (paper: 4,000); 0: all.", lower_bound=0
)
flags.DEFINE_integer("self_talk_tokens", 2048, "Most tokens of a self-talk answer.", lower_bound=1)
flags.DEFINE_integer("test_problems", 0, "Problems evaluated on; 0: all.", lower_bound=0)
flags.DEFINE_list("k", ["5"], "The K of Maj@K and Pass@K.")
flags.DEFINE_float("temperature", 0.7, "Of all samples but greedy ones.", lower_bound=0.0)
flags.DEFINE_multi_enum(
    "protocol",
    ["refine_all"],
    list(PROTOCOLS),
    "Which answers the actor with a critic refines; see experiments/evaluate.py.",
)


@dataclasses.dataclass(frozen=True)
class _Models:
    """The models that the flags name; a critic that is None is the checker."""

    base: ModelFolder
    actor: ModelFolder | None
    critic: ModelFolder | None
    data_critic: ModelFolder | None
    smoother: ModelFolder | None


def main(_: list[str]) -> None:
    """Runs the program."""
    started = time.monotonic()
    run_dir = pathlib.Path(FLAGS.run_dir)
    with refusing_bad_input():
        ks = games.ks()
        data_critic = FLAGS.data_critic or FLAGS.critic
        models = _Models(
            games.model("model", FLAGS.model),
            games.model("actor", FLAGS.actor) if FLAGS.actor else None,
            _critic_model("critic", FLAGS.critic),
            _critic_model("data_critic" if FLAGS.data_critic else "critic", data_critic),
            games.model("smoother", FLAGS.smoother) if FLAGS.smoother else None,
        )
        data = FLAGS.task, FLAGS.data_dir
        train = load_problems(*data, "train", FLAGS.train_problems, FLAGS.seed)
        test = load_problems(*data, "test", FLAGS.test_problems, games.TEST_SEED)
        annotator = games.annotator(train)
        keys = {
            f"{name} model": model.key if model else None for name, model in vars(models).items()
        }
        engines.check_training(models.base, games.sft_config())
        claim(run_dir, settings_but(["run_dir"]) | keys)
        engine = engines.engine()
    with Grader() as grader, engine:
        results, points = _experiment(
            games.context(grader), engine, models, annotator, train, test, ks
        )
    results = {
        **about_this_run(started),
        "task": FLAGS.task,
        "critic": FLAGS.critic,
        "data_critic": data_critic,
        "problems": len(test),
        "failed": failed_samples(results["costs"].values()),
        **results,
    }
    write_rows(run_dir / "scores.jsonl", score_rows(test, points))
    write_self_talk(results, run_dir)
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    for table in self_talk_tables(results):
        print(f"{table.title}\n{aligned(table.rows)}\n")
    print(f"{run_dir / 'results.json'}\n{run_dir / 'report.html'}")


def _critic_model(flag: str, folder: str) -> ModelFolder | None:
    return None if folder == games.CHECKER else games.model(flag, folder)


def _experiment(
    context: Context,
    engine: Engine,
    models: _Models,
    annotator: ArithmeticAnnotator,
    train: list[Problem],
    test: list[Problem],
    ks: list[int],
) -> tuple[dict[str, Any], list[Point]]:
    """Trains and evaluates everything; returns what results.json says of it, and all scores."""
    fine_tune = engines.trainer(engine)
    reasoning = [(problem, problem.rationale) for problem in train]
    refine_set = games.refine_set(train, annotator)
    sft = games.sft_config()

    # ---- the baselines' actors: D_reason, and D_refine with its critiques or without
    actor = models.actor or fine_tune(
        context.store,
        "actor-sft",
        models.base,
        actor_examples(context.prompts, reasoning, refine_set, FLAGS.beta),
        sft,
        context.seed,
    )
    corrector = fine_tune(
        context.store,
        "actor-self-correction",
        models.base,
        actor_examples(context.prompts, reasoning, self_correction_data(refine_set), FLAGS.beta),
        sft,
        context.seed,
    )

    # ---- self-talk: the data, then an actor of D_reason and it
    config = SelfTalkConfig(
        FLAGS.samples, FLAGS.rounds, FLAGS.temperature, FLAGS.self_talk_examples
    )
    smoother = engine.sampler(models.smoother) if models.smoother else None
    data_critic = games.critic(models.data_critic, engine)
    data = build_self_talk(context, engine.sampler(actor), data_critic, smoother, train, config)
    if not data.examples:
        sys.exit(
            "error: no self-talk example is left to learn from; the paths were lost so: "
            + ", ".join(f"{name} {count}" for name, count in data.counts.items() if count)
            + ". Give more --samples or --rounds, or a better critic (--data_critic=checker)."
        )
    learnt = self_talk_examples(context.prompts, data.examples)
    path = context.store.run_dir / "self_talk.jsonl"
    write_rows(path, ({"messages": e.messages, "target": e.reply} for e in learnt))
    talker = fine_tune(
        context.store,
        "actor-self-talk",
        models.base,
        [*actor_examples(context.prompts, reasoning, [], 0.0), *learnt],
        sft,
        context.seed,
    )

    # ---- evaluation
    critic = games.critic(models.critic, engine)
    points, costs, answers = _evaluate(
        context,
        engine.sampler(actor),
        engine.sampler(corrector),
        engine.sampler(talker),
        critic,
        test,
        ks,
    )
    folders = {"sft actor": actor, "self-correction actor": corrector, "self-talk actor": talker}
    results = {
        "points": rows_of(points, context.seed),
        "differences": comparisons(points, context.seed),
        "counts": data.counts,
        "costs": data.costs | costs,
        "models": {name: games.shown(model.folder) for name, model in folders.items()},
        "transcripts": _transcripts(data, answers),
    }
    return results, points


def _evaluate(
    context: Context,
    actor: Sampler,
    corrector: Sampler,
    talker: Sampler,
    critic: Critic,
    problems: list[Problem],
    ks: list[int],
) -> tuple[list[Point], dict[str, dict[str, int]], list[Solution]]:
    """Plays Table 5's methods; returns scores, costs, and the greedy self-talk answers."""
    costs: dict[str, dict[str, int]] = {}
    starts = [Start(problem) for problem in problems]
    same = equality(context.grader)
    talking = dataclasses.replace(context, actor_tokens=FLAGS.self_talk_tokens)
    corrections = {SELF_CORRECTION: PROTOCOLS["refine_all"]}
    with_critic = {name: PROTOCOLS[name] for name in dict.fromkeys(FLAGS.protocol)}

    def played(
        name: str,
        player: Sampler,
        judge: Critic | None,
        rules: dict[str, Protocol],
        aloud: bool = False,
    ) -> tuple[dict[str, list[Point]], list[Solution]]:
        """A player's greedy answers and samples, thought aloud or not, by what each rule does."""
        room, ask = (talking, self_talk_messages) if aloud else (context, solve_messages)
        chains: dict[str, list[Chain]] = {}
        greedy: list[Solution] = []
        for kind, n, temperature in (("greedy", 1, 0.0), ("samples", ks[-1], FLAGS.temperature)):
            stage = f"{name}-{kind}"
            asked = respond(room, stage, player, starts, n, temperature, ask)
            costs[stage] = costs_of(asked)
            responses = list(asked)
            greedy = greedy or responses
            chains[kind] = [Chain(response) for response in responses]
            if judge is not None:
                protocols = list(rules.values())
                chains[kind], spent = run_rounds(
                    context, stage, player, judge, responses, protocols, 1, temperature
                )
                costs.update(spent)
        scored = {
            method: method_points(
                problems, method, rule, chains["greedy"], chains["samples"], ks, same
            )
            for method, rule in rules.items()
        }
        return scored, greedy

    sft, _ = played("sft", actor, critic, {ALONE: UNTOUCHED, **with_critic})
    corrected, _ = played("self-correction", corrector, games.no_critic, corrections)
    talked, answers = played("self-talk", talker, None, {SELF_TALK: UNTOUCHED}, aloud=True)
    scored = sft | corrected | talked
    points = [point for method in METHODS for point in scored.get(method, ())]
    return points, costs, answers


def _transcripts(data: SelfTalkData, answers: list[Solution]) -> list[dict[str, Any]]:
    """Examples learnt from, those with corrections first; and test answers, right and wrong."""
    learnt = sorted(data.examples, key=lambda talk: not talk.corrections)[:3]
    right, wrong = ([a for a in answers if a.correct is verdict] for verdict in (True, False))
    shown = [*right[:2], *wrong[:2]]
    found: list[tuple[str, SelfTalk | Solution]] = [("Training example", talk) for talk in learnt]
    found += [("Answer to a test problem", answer) for answer in shown]
    return [
        {
            "of": of,
            "question": talk.problem.question,
            "answer": talk.problem.answer,
            "text": talk.text,
            "verdict": talk.verdict,
        }
        for of, talk in found
    ]


if __name__ == "__main__":
    run(main)
