"""One critic beside actors of several sizes (section 6.1, Figure 9).

    python -m experiments.scaling --flagfile=experiments/flagfiles/laptop/scaling.flags \
      --critic=DIR

Each base of --actor_base is fine-tuned on the same D_reason and D_refine; those of --actor are used
as they are. Every actor answers greedily and refines each answer after its critique: accuracy
without a critic, with it, and where an oracle picks the answers to be refined. The same command
again goes on where a killed run stopped.
"""

import json
import pathlib
import time
from collections.abc import Mapping

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
from jaxcritique.analysis.scaling import (
    MOST_CRITICS,
    ActorScores,
    actor_scores,
    scaling_rows,
    scaling_score_rows,
    scaling_tables,
    size_name,
    write_scaling,
)
from jaxcritique.analysis.table import aligned
from jaxcritique.grading import Grader
from jaxcritique.improvement.algorithm import actor_examples
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import Problem
from jaxcritique.roles import Context, Start, costs_of, refine, respond
from jaxcritique.rollout.engines import Engine
from jaxcritique.store import write_atomically, write_rows
from jaxcritique.tasks import load_problems
from jaxcritique.testtime.critic_metrics import table2_scores

FLAGS = flags.FLAGS
games.define_flags(seed="Decides training problems and the order of training data.")
games.define_task_flags()
games.define_training_flags()
flags.DEFINE_multi_string(
    "actor_base",
    [],
    "Hugging Face folder of a base that an actor is fine-tuned from here; may be given several "
    "times.",
)
flags.DEFINE_multi_string(
    "actor", [], "Hugging Face folder of a fine-tuned actor; may be given several times."
)
flags.DEFINE_multi_string(
    "critic",
    None,
    "Hugging Face folder of a critic; may be given several times. 'checker': the program that "
    "works out every step against the reference solution, the ceiling.",
    required=True,
)
flags.DEFINE_integer("test_problems", 0, "Problems evaluated on; 0: all.", lower_bound=0)


def main(_: list[str]) -> None:
    """Runs the program."""
    started = time.monotonic()
    run_dir = pathlib.Path(FLAGS.run_dir)
    with refusing_bad_input():
        if not FLAGS.actor_base and not FLAGS.actor:
            raise ValueError("name actors with --actor_base or --actor; Figure 9 has four sizes.")
        if len(FLAGS.critic) > MOST_CRITICS:
            raise ValueError(f"--critic: a figure shows {MOST_CRITICS} critics at the most.")
        for folder in FLAGS.actor_base:
            if pathlib.Path(folder).resolve() in [pathlib.Path(a).resolve() for a in FLAGS.actor]:
                raise ValueError(
                    f"--actor_base={folder} is also an --actor: name it once, either to be "
                    "fine-tuned (--actor_base) or as it is (--actor)."
                )
        bases = {str(pathlib.Path(f)): games.model("actor_base", f) for f in FLAGS.actor_base}
        actors = {str(pathlib.Path(f)): games.model("actor", f) for f in FLAGS.actor}
        critics = {
            name: None if name == games.CHECKER else games.model("critic", name)
            for name in FLAGS.critic
        }
        data = FLAGS.task, FLAGS.data_dir
        train: list[Problem] = []
        if bases:
            train = load_problems(*data, "train", FLAGS.train_problems, FLAGS.seed)
            games.annotator(train)
        test = load_problems(*data, "test", FLAGS.test_problems, games.TEST_SEED)
        if games.CHECKER in critics:
            games.refuse_without_calculations(test)
        for base in bases.values():
            engines.check_training(base, games.sft_config())
        # Actors and critics may be added to those that a run folder has.
        claim(run_dir, settings_but(["run_dir", "actor_base", "actor", "critic"]))
        engine = engines.engine()
    costs: dict[str, dict[str, int]] = {}
    with Grader() as grader, engine:
        context = games.context(grader)
        actors |= _fine_tuned(context, engine, bases, train)
        found = [
            scored
            for name, actor in _named(actors).items()
            for scored in _scores(context, engine, name, actor, critics, test, costs)
        ]
    results = {
        **about_this_run(started),
        "task": FLAGS.task,
        "problems": len(test),
        "failed": failed_samples(costs.values()),
        "critics": [
            {"name": name, "parameters": _parameters(model) if model else None}
            for name, model in critics.items()
        ],
        "rows": scaling_rows(found, FLAGS.seed),
        "costs": costs,
        "models": {
            f"{name} actor": games.shown(actor.folder) for name, actor in _named(actors).items()
        },
    }
    write_rows(run_dir / "scores.jsonl", scaling_score_rows(test, found))
    write_scaling(results, run_dir)
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    for table in scaling_tables(results):
        print(f"{table.title}\n{aligned(table.rows)}\n")
    print(f"{run_dir / 'results.json'}\n{run_dir / 'report.html'}")


def _fine_tuned(
    context: Context, engine: Engine, bases: Mapping[str, ModelFolder], train: list[Problem]
) -> dict[str, ModelFolder]:
    """Fine-tunes an actor from each base, all of them on the same data (equation 2)."""
    if not bases:
        return {}
    fine_tune = engines.trainer(engine)
    reasoning = [(problem, problem.rationale) for problem in train]
    refinements = games.refine_set(train, games.annotator(train))
    examples = actor_examples(context.prompts, reasoning, refinements, FLAGS.beta)
    return {
        folder: fine_tune(context.store, "actor", base, examples, games.sft_config(), context.seed)
        for folder, base in bases.items()
    }


def _scores(
    context: Context,
    engine: Engine,
    name: str,
    actor: ModelFolder,
    critics: Mapping[str, ModelFolder | None],
    problems: list[Problem],
    costs: dict[str, dict[str, int]],
) -> list[ActorScores]:
    """One actor with every critic; adds what that cost to `costs`."""
    player = engine.sampler(actor)
    responses = respond(
        context, "respond", player, [Start(problem) for problem in problems], 1, 0.0
    )
    costs[f"{name}: respond"] = costs_of(responses)
    columns = {}
    for number, (critic_name, model) in enumerate(critics.items(), start=1):
        critiques = games.critic(model, engine)(context, "criticise", list(responses), 0.0)
        refined = refine(context, "refine", player, list(critiques), 1, 0.0)
        costs[f"{name}: criticise, critic {number}"] = costs_of(critiques)
        costs[f"{name}: refine, critic {number}"] = costs_of(refined)
        columns[critic_name] = table2_scores(list(refined))
    return actor_scores(name, _parameters(actor), columns)


def _named(actors: Mapping[str, ModelFolder]) -> dict[str, ModelFolder]:
    """Names actors by size, the smallest first; of equal sizes also by number."""
    ordered = sorted(actors.values(), key=_parameters)
    found: dict[str, ModelFolder] = {}
    for actor in ordered:
        size = size_name(_parameters(actor))
        same = sum(name.split(" ")[0] == size for name in found)
        found[f"{size} ({same + 1})" if same else size] = actor
    return found


def _parameters(model: ModelFolder) -> int:
    return ModelConfig.load(model.folder).num_parameters


if __name__ == "__main__":
    run(main)
