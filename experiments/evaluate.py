"""Evaluates an actor, with or without a critic, as test-time compute grows (sections 4.2 and 6).

    python -m experiments.evaluate --actor=DIR --critic=DIR --task=gsm8k --data_dir=DIR \
      --run_dir=runs/evaluation

Greedy accuracy, Maj@K and Pass@K; rounds of critique and refinement in parallel or in sequence,
against the actor alone at K, 2K and 3K samples and at equal tokens; all by difficulty. Every sample
is kept in the run folder: the same command again goes on where a killed run stopped, and another
--protocol or --scaling draws only the stages that it changes. Another number of samples (another
largest K, --samples, --noequal_compute) draws all anew.
"""

import json
import pathlib
import time
from statistics import fmean

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
from jaxcritique.analysis.difficulty import rated
from jaxcritique.analysis.evaluation_report import evaluation_tables, write_evaluation
from jaxcritique.analysis.table import aligned
from jaxcritique.grading import Grader
from jaxcritique.records import Problem, Solution
from jaxcritique.roles import Context, Start, costs_of, respond
from jaxcritique.rollout.sampler import Sampler, SamplerError
from jaxcritique.store import write_atomically, write_rows
from jaxcritique.tasks import TINY_BASE, load_problems
from jaxcritique.testtime.rounds import PROTOCOLS, Chain, Critic, run_rounds
from jaxcritique.testtime.scores import (
    MULTIPLES,
    Point,
    alone_points,
    before_and_after,
    by_level,
    differences,
    greedy_points,
    in_parallel,
    in_sequence,
    parallel_points,
    rows_of,
    samples_needed,
    score_rows,
    sequential_points,
)
from jaxcritique.testtime.voting import equality

FLAGS = flags.FLAGS
games.define_flags(seed="Decides samples and the bootstrap's resamples.")
games.define_task_flags()
games.define_difficulty_flags(100, of="the actor")
flags.DEFINE_integer("test_problems", 0, "Problems evaluated on; 0: all.", lower_bound=0)
flags.DEFINE_string("actor", str(TINY_BASE), "Hugging Face folder: who answers and refines.")
flags.DEFINE_string(
    "critic",
    None,
    "Hugging Face folder of the critic. 'checker': the program that works out every step against "
    "the reference solution, the ceiling. 'self': there is none, the actor corrects itself. "
    "Without: the actor alone.",
)
flags.DEFINE_list("k", ["1", "2", "4", "8"], "The K of Maj@K and Pass@K.")
flags.DEFINE_integer(
    "samples",
    0,
    "Samples a problem; more than the largest K make its estimates less noisy. 0: the largest K. "
    "With a critic so many are criticised and refined, and of the actor alone there are three "
    "times the largest K at least.",
    lower_bound=0,
)
flags.DEFINE_float(
    "temperature", 0.7, "Of the samples, and of their critiques and refinements.", lower_bound=0.0
)
flags.DEFINE_multi_enum(
    "protocol",
    ["refine_all"],
    list(PROTOCOLS),
    "Which answers are refined: all, those that the critic does not call correct, or those that "
    "are wrong. May be given several times; they then share their samples.",
)
flags.DEFINE_multi_enum(
    "scaling",
    ["parallel"],
    ["parallel", "sequential"],
    "K responses with a round of critique and refinement each, or K rounds after one response. May "
    "be given both times.",
)

flags.DEFINE_bool(
    "equal_compute",
    True,
    "Compare also with the actor alone at 2K and 3K samples and at equal tokens: half of the cost.",
)

# What may change within a run folder.
_FREE = (
    "run_dir", "k", "samples", "protocol", "scaling", "equal_compute", "difficulty_samples",
    "difficulty",
)  # fmt: skip


def main(_: list[str]) -> None:
    """Runs the program."""
    started = time.monotonic()
    run_dir = pathlib.Path(FLAGS.run_dir)
    with refusing_bad_input():
        ks, samples = _ks_and_samples()
        for name in ("protocol", "scaling"):
            if FLAGS[name].present and not FLAGS.critic:
                raise ValueError(f"--{name} is about a critic: name one with --critic.")
        actor_model = games.model("actor", FLAGS.actor)
        critic_model = None
        if FLAGS.critic and FLAGS.critic not in (games.CHECKER, games.SELF):
            critic_model = games.model("critic", FLAGS.critic)
        data = FLAGS.task, FLAGS.data_dir
        problems = load_problems(*data, "test", FLAGS.test_problems, games.TEST_SEED)
        if FLAGS.critic == games.CHECKER:
            games.refuse_without_calculations(problems)
        keys = {"actor": actor_model.key, "critic": critic_model.key if critic_model else None}
        claim(run_dir, settings_but(_FREE) | {f"{name} model": key for name, key in keys.items()})
        engine = engines.engine()
    with Grader() as grader, engine:
        critic = None
        if FLAGS.critic == games.SELF:
            critic = games.no_critic
        elif FLAGS.critic:
            critic = games.critic(critic_model, engine)
        actor = engine.sampler(actor_model)
        points, samplewise, rated_problems, costs = _evaluate(
            games.context(grader), actor, critic, problems, ks, samples
        )
    results = {
        **about_this_run(started),
        "task": FLAGS.task,
        "actor": FLAGS.actor,
        "critic": FLAGS.critic,
        "problems": len(problems),
        "failed": failed_samples(costs.values()),
        "points": rows_of(points, FLAGS.seed),
        "differences": differences(points, FLAGS.seed),
        "levels_by": games.levels_by(),
        "by_level": by_level(rated_problems, points, FLAGS.seed),
        "costs": costs,
    }
    write_rows(run_dir / "scores.jsonl", score_rows(rated_problems, [*points, *samplewise]))
    write_evaluation(results, run_dir)
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    for table in evaluation_tables(results):
        print(f"{table.title}\n{aligned(table.rows)}\n")
    print(f"{run_dir / 'results.json'}\n{run_dir / 'report.html'}")


def _ks_and_samples() -> tuple[list[int], int]:
    """Reads --k, and how many samples are drawn of a problem.

    Raises:
      ValueError: --k is no list of positive numbers, or --samples are fewer than the largest.
    """
    ks = games.ks()
    if 0 < FLAGS.samples < ks[-1]:
        raise ValueError(
            f"--k={ks[-1]} needs as many samples a problem, and --samples={FLAGS.samples} draws "
            f"fewer. Give --samples={ks[-1]} or more, or a smaller --k."
        )
    return ks, FLAGS.samples or ks[-1]


def _evaluate(
    context: Context,
    actor: Sampler,
    critic: Critic | None,
    problems: list[Problem],
    ks: list[int],
    samples: int,
) -> tuple[list[Point], list[Point], list[Problem], dict[str, dict[str, int]]]:
    """Samples and scores.

    Returns:
      Points, those of all samples before and after a round, problems with their levels, and costs
      by stage.
    """
    costs: dict[str, dict[str, int]] = {}
    same = equality(context.grader)
    names = dict.fromkeys(FLAGS.protocol)
    protocols = {name: PROTOCOLS[name] for name in names} if critic else {}

    def answer(name: str, turn: int, n: int, temperature: float) -> list[Solution]:
        starts = [Start(problem) for problem in problems]
        found = respond(context.reseeded(turn), name, actor, starts, n, temperature)
        costs[name] = costs_of(found)
        return list(found)

    def rounds(name: str, responses: list[Solution], many: int, temperature: float) -> list[Chain]:
        if critic is None:
            return [Chain(response) for response in responses]
        rules = list(protocols.values())
        chains, spent = run_rounds(
            context, name, actor, critic, responses, rules, many, temperature
        )
        costs.update(spent)
        return chains

    # ---- the actor alone
    greedy = answer("greedy", 0, 1, 0.0)
    compared = critic is not None and FLAGS.equal_compute
    drawn = max(samples, MULTIPLES[-1] * ks[-1]) if compared else samples
    pool = answer("respond", 0, drawn, FLAGS.temperature)
    if FLAGS.difficulty_samples:
        # Samples of their own: by those that are scored, chance alone would make a problem hard and
        # the answer to it wrong.
        rating = answer("difficulty", 1, FLAGS.difficulty_samples, FLAGS.temperature)
        problems = rated(problems, rating, FLAGS.difficulty_samples, FLAGS.difficulty)

    # ---- with the critic
    points = greedy_points(rounds("greedy", greedy, 1, 0.0), protocols)
    of_each = [pool[first : first + drawn] for first in range(0, len(pool), drawn)]
    with_critic: list[Point] = []
    samplewise: list[Point] = []
    if critic and "parallel" in FLAGS.scaling:
        first = [response for responses in of_each for response in responses[:samples]]
        chains = rounds("parallel", first, 1, FLAGS.temperature)
        for name, protocol in protocols.items():
            method = in_parallel(name)
            with_critic += parallel_points(problems, method, protocol, chains, ks, same)
        methods = {in_parallel(name): protocol for name, protocol in protocols.items()}
        samplewise = before_and_after(problems, methods, chains, same)
    if critic and "sequential" in FLAGS.scaling:
        first = [responses[0] for responses in of_each]
        chains = rounds("sequential", first, ks[-1], FLAGS.temperature)
        for name, protocol in protocols.items():
            method = in_sequence(name)
            with_critic += sequential_points(problems, method, protocol, chains, ks, same)

    # ---- the actor alone with the same compute
    price = fmean(response.tokens for response in pool)
    if not price:
        raise SamplerError("not one sample could be had; look at the messages above.")
    rivals = with_critic if compared else []
    if rivals and (more := samples_needed(rivals, price) - drawn) > 0:
        pool += answer("respond-more", 2, more, FLAGS.temperature)
    alone = alone_points(problems, pool, ks, rivals, price, same)
    return [*points, *alone, *with_critic], samplewise, problems, costs


if __name__ == "__main__":
    run(main)
