"""Builds critique data with AutoMathCritique (section 3 of the paper).

    python -m experiments.build_critiques --flagfile=experiments/flagfiles/critiques_laptop.flags \
      --run_dir=runs/critiques

Flawed reasoning paths, their critiques, the Monte-Carlo filter. The dataset is in RUN_DIR/dataset,
for `datasets.load_dataset`, and in RUN_DIR/critic.jsonl as experiments/sft.py learns it; in
critic-none.jsonl, critic-soft.jsonl and critic-hard.jsonl is what it would be under each filter,
and in discarded.jsonl what never came to the filter, with its text and why: its annotation was
discarded, it gives the answer away ("leaking"), or --max_flawed or --mixture cut it. The same
command again goes on where a killed run stopped; with another --tau or --filter it samples nothing,
with another --max_flawed, --mixture, --filter_refinements or --alone_samples only for the filter.
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from experiments import engines, games
from experiments.program import (
    about_this_run,
    claim,
    command,
    failed_samples,
    refusing_bad_input,
    run,
    settings_but,
)
from jaxcritique.analysis.table import aligned, percent
from jaxcritique.critiques.annotate import Annotator, ArithmeticAnnotator, ModelAnnotator
from jaxcritique.critiques.build import (
    STRATEGIES,
    CritiqueDataConfig,
    annotate_paths,
    build_candidates,
    keep,
)
from jaxcritique.critiques.duplicates import decontaminated
from jaxcritique.critiques.errors import PROGRAM_TYPES
from jaxcritique.critiques.estimate import (
    RIGHT,
    Limits,
    StageCost,
    estimate,
    example_prompts,
)
from jaxcritique.critiques.filtering import KINDS, FilterRule
from jaxcritique.critiques.flaws import THIRDS, Inserter, ModelInserter, Placement, ProgramInserter
from jaxcritique.critiques.publish import discarded_rows, statistics_of, training_row, write_dataset
from jaxcritique.grading import Grader
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.prompts.annotation import MODES
from jaxcritique.prompts.mistakes import ERROR_TYPES
from jaxcritique.prompts.templates import PROMPT_SETS
from jaxcritique.records import Problem, to_json
from jaxcritique.roles import COSTS
from jaxcritique.rollout.engines import Engine
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.store import write_atomically, write_rows
from jaxcritique.tasks import TINY_BASE, load_problems

FLAGS = flags.FLAGS
games.define_flags(seed="Decides problems and samples.")
games.define_task_flags()
flags.DEFINE_bool(
    "dry_run",
    False,
    "Print an estimate of the cost and one example of each prompt; sample nothing.",
)
flags.DEFINE_integer(
    "train_problems", 0, "Training problems used; 0: all of a file.", lower_bound=0
)
flags.DEFINE_integer(
    "test_problems",
    0,
    "Test problems in RUN_DIR/test_problems.jsonl; 0: all of a file. All of a file are kept out of "
    "the data, however many these are.",
    lower_bound=0,
)
flags.DEFINE_string(
    "actor", str(TINY_BASE), "Hugging Face folder: who makes the paths and the refinements."
)
flags.DEFINE_string(
    "annotator",
    "checker",
    "Who writes the critiques: 'checker', a program for solutions whose calculations are marked, "
    "or a model's Hugging Face folder; with --annotator_endpoint the name its servers know.",
)
flags.DEFINE_list(
    "annotator_endpoint",
    [],
    "Base URLs of OpenAI-compatible servers of the annotator, as https://host/v1; the key is in "
    "the variable that --api_key_env names. The actor is sampled by --engine all the same.",
)
flags.DEFINE_enum(
    "annotation",
    "step_by_step",
    MODES,
    "How a model annotates: the whole at once, step by step until the first error, or without "
    "hints in the critic's own format.",
)
flags.DEFINE_integer(
    "annotation_attempts",
    3,
    "How often a model is shown a solution before its unusable reply is final.",
    lower_bound=1,
)
flags.DEFINE_float("annotation_temperature", 0.7, "Of an annotating model.", lower_bound=0.0)
flags.DEFINE_enum(
    "mistakes",
    "program",
    ["program", "model"],
    "RG3: who puts mistakes in: a program that changes marked calculations, or the actor.",
)
flags.DEFINE_float("temperature", 0.7, "Of RG1, RG3 and the filter.", lower_bound=0.0)
flags.DEFINE_integer("rg1_samples", 16, "RG1: samples a problem at the most.", lower_bound=1)
flags.DEFINE_integer(
    "rg1_right", 0, "RG1: right samples of a problem that are enough.", lower_bound=0
)
flags.DEFINE_integer(
    "rg1_wrong",
    0,
    "RG1: wrong samples of a problem that are enough. 0 right and 0 wrong: draw --rg1_samples.",
    lower_bound=0,
)
flags.DEFINE_integer("rg2_rounds", 3, "RG2: steps tried, hotter each time.", lower_bound=0)
flags.DEFINE_float("rg2_temperature", 1.0, "RG2: temperature of the first round.", lower_bound=0.0)
flags.DEFINE_float("rg2_increase", 0.2, "RG2: what each round adds to it.", lower_bound=0.0)
flags.DEFINE_integer("rg3_attempts", 16, "RG3: attempts a path (paper: 16).", lower_bound=0)
flags.DEFINE_list(
    "mixture",
    [],
    "Relative shares of the strategies among critiques of wrong responses, such as "
    "RG1=1,RG2=1,RG3=2; empty: as they come.",
)
flags.DEFINE_list(
    "error_types",
    [],
    "RG3: relative weights of the kinds of mistakes, such as calculation=3,operator=1; empty: "
    f"equal. A program can make {', '.join(PROGRAM_TYPES)}; a model also "
    f"{', '.join(sorted(set(ERROR_TYPES) - set(PROGRAM_TYPES)))}.",
)
flags.DEFINE_list(
    "positions",
    ["1", "1", "1"],
    "RG2 and RG3: relative weights of the first, middle and last third of a path's steps.",
)
flags.DEFINE_integer("filter_refinements", 10, "Refinements a critique.", lower_bound=1)
flags.DEFINE_enum(
    "filter", "soft", KINDS, "soft: more than --tau of the refinements right; hard: at least one."
)
games.define_tau()
flags.DEFINE_integer(
    "alone_samples",
    10,
    "Solutions without a critique, of each problem in the filter, to compare with; 0: none.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "max_flawed", 0, "Critiques of wrong responses that are filtered; 0: all.", lower_bound=0
)
flags.DEFINE_integer("ngram", 8, "Words in an n-gram, for the two likenesses.", lower_bound=1)
flags.DEFINE_float(
    "near_duplicate",
    1.0,
    "Jaccard likeness of n-grams from which a response is a duplicate of another of its problem.",
    lower_bound=0.01,
    upper_bound=1.0,
)
flags.DEFINE_float(
    "contaminated",
    0.5,
    "Share of the shorter question's n-grams that a question has in common with one test question "
    "from which it is left out.",
    lower_bound=0.01,
    upper_bound=1.0,
)

_MISTAKE_TOKENS = 200  # A step and a sentence.
# May change within a run folder: what is chosen, and sampled, of the annotated paths.
_FREE = (
    "run_dir",
    "dry_run",
    "tau",
    "filter",
    "annotator_endpoint",
    "max_flawed",
    "mixture",
    "filter_refinements",
    "alone_samples",
)


def main(_: list[str]) -> None:
    """Runs the program."""
    started = time.monotonic()
    run_dir = pathlib.Path(FLAGS.run_dir)
    with refusing_bad_input():
        config = _config()
        if FLAGS.annotator == "checker" and FLAGS.annotator_endpoint:
            raise ValueError("--annotator_endpoint: name the model it serves with --annotator.")
        models = {"actor": games.model("actor", FLAGS.actor)}
        if FLAGS.annotator != "checker" and not FLAGS.annotator_endpoint:
            models["annotator"] = games.model("annotator", FLAGS.annotator)
        data = FLAGS.task, FLAGS.data_dir
        problems = load_problems(*data, "train", FLAGS.train_problems, FLAGS.seed)
        tests = load_problems(*data, "test", FLAGS.test_problems, games.TEST_SEED)
        # Of stories there are only as many as are generated.
        generated = FLAGS.task == "word_problems"
        kept_out = tests if generated else load_problems(*data, "test", 0, games.TEST_SEED)
        checker = games.checker(problems)
        if checker is None and "program" in (FLAGS.mistakes, _program_or_model()):
            raise ValueError(
                f"--task={FLAGS.task}: a program can annotate and make mistakes only where "
                "solutions have calculations (<<1+2=3>>), which most of these do not. Name a model "
                "with --annotator, and give --mistakes=model."
            )
    if FLAGS.dry_run:
        _dry_run(problems, config)
        return
    with refusing_bad_input():
        claim(run_dir, settings_but(_FREE) | {name: model.key for name, model in models.items()})
        engine = engines.engine()
        annotator = _annotator(models, engine, checker)
    clean, contaminated = decontaminated(problems, kept_out, config.ngram, FLAGS.contaminated)
    actor = engine.sampler(models["actor"])
    inserter: Inserter = ProgramInserter()
    if FLAGS.mistakes == "model":
        inserter = ModelInserter(actor, FLAGS.temperature, _MISTAKE_TOKENS)
    with Grader() as grader, engine:
        context = games.context(grader)
        annotations = annotate_paths(context, actor, clean, annotator, config, inserter)
        candidates = build_candidates(context, actor, annotations, annotator.name, config)
    kept, counts = keep(candidates, config.rule, FLAGS.seed)
    statistics = statistics_of(list(candidates), kept, checker, config.rule)
    statistics |= {
        "counts": {
            "problems": len(problems),
            "contaminated problems": len(contaminated),
            **candidates.facts["counts"],
            **counts,
        },
        "costs": candidates.facts["costs"],
        "distribution": _distribution(config, statistics),
        "provenance": {
            "problems": f"{FLAGS.task}, {len(clean)} for training; "
            f"{len(kept_out)} test problems kept out",
            "actor": FLAGS.actor,
            "annotator": annotator.name,
            "RG3's mistakes": f"put in by a {FLAGS.mistakes}",
            "filter": f"{FLAGS.filter}, tau={FLAGS.tau:g}",
        },
    }
    chosen = set(map(id, kept))
    rest = [candidate for candidate in candidates if id(candidate) not in chosen]
    write_dataset(run_dir / "dataset", kept, rest, statistics, command())
    write_rows(run_dir / "discarded.jsonl", discarded_rows(annotations, candidates))
    write_rows(run_dir / "critic.jsonl", (training_row(context.prompts, c) for c in kept))
    for kind in KINDS:  # To compare critics of the same critiques, filtered otherwise.
        passed = keep(candidates, FilterRule(kind, FLAGS.tau), FLAGS.seed)[0]
        rows = (training_row(context.prompts, c) for c in passed)
        write_rows(run_dir / f"critic-{kind}.jsonl", rows)
    write_rows(run_dir / "test_problems.jsonl", map(to_json, tests))
    results = {
        **about_this_run(started),
        "failed": failed_samples(statistics["costs"].values()),
        **statistics,
    }
    write_atomically(run_dir / "results.json", json.dumps(results, indent=2) + "\n")
    print(_tables(statistics))
    print(f"{run_dir / 'dataset'}\n{run_dir / 'results.json'}")
    print(f"{run_dir / 'critic.jsonl'}: --data of experiments.sft, to train a critic")
    if not kept:
        logging.warning("No critique was kept; the counts above say where they went.")


def _annotator(
    models: dict[str, ModelFolder], engine: Engine, checker: ArithmeticAnnotator | None
) -> Annotator:
    if _program_or_model() == "program":
        if checker is None:
            raise RuntimeError("there is nobody to annotate")
        return checker
    if FLAGS.annotator_endpoint:
        model: Sampler = engines.endpoint(FLAGS.annotator, FLAGS.annotator_endpoint)
    else:
        model = engine.sampler(models["annotator"])
    return ModelAnnotator(
        model,
        pathlib.Path(FLAGS.annotator).name,
        FLAGS.annotation,
        FLAGS.critic_tokens,
        FLAGS.annotation_temperature,
        FLAGS.annotation_attempts,
    )


def _program_or_model() -> str:
    return "program" if FLAGS.annotator == "checker" else "model"


def _config() -> CritiqueDataConfig:
    """The framework's settings, from the flags.

    Raises:
      ValueError: a list of weights cannot be read, or names what there is not; nothing can pass.
    """
    possible = PROGRAM_TYPES if FLAGS.mistakes == "program" else tuple(ERROR_TYPES)
    positions = _weights("positions", THIRDS, [f"{t}={w}" for t, w in _thirds()])
    wanted = (FLAGS.rg1_right, FLAGS.rg1_wrong)
    return CritiqueDataConfig(
        samples=FLAGS.rg1_samples,
        wanted=wanted if any(wanted) else None,
        temperature=FLAGS.temperature,
        rg2_temperature=FLAGS.rg2_temperature,
        rg2_increase=FLAGS.rg2_increase,
        rg2_rounds=FLAGS.rg2_rounds,
        rg3_attempts=FLAGS.rg3_attempts,
        refinements=FLAGS.filter_refinements,
        filter=FLAGS.filter,
        tau=games.tau(),
        alone_samples=FLAGS.alone_samples,
        max_flawed=FLAGS.max_flawed,
        placement=Placement(
            positions=(positions["first"], positions["middle"], positions["last"]),
            error_types=tuple(
                (_weights("error_types", possible, FLAGS.error_types)).items()
                if FLAGS.error_types
                else ((kind, 1.0) for kind in possible)
            ),
        ),
        mixture=tuple(_weights("mixture", STRATEGIES, FLAGS.mixture).items())
        if FLAGS.mixture
        else (),
        ngram=FLAGS.ngram,
        near_duplicate=FLAGS.near_duplicate,
    )


def _thirds() -> list[tuple[str, str]]:
    if len(FLAGS.positions) != len(THIRDS):
        raise ValueError(f"--positions={','.join(FLAGS.positions)}: give three weights.")
    return list(zip(THIRDS, FLAGS.positions, strict=True))


def _weights(flag: str, names: Sequence[str], entries: Sequence[str]) -> dict[str, float]:
    """Reads NAME=WEIGHT entries.

    Raises:
      ValueError: an entry is not of that form, names nothing known, or all weigh nothing.
    """
    found: dict[str, float] = {}
    for entry in entries:
        name, equals, weight = entry.partition("=")
        try:
            found[name.strip()] = float(weight)
        except ValueError:
            equals = ""
        if not equals or name.strip() not in names or not 0 <= found[name.strip()] < float("inf"):
            raise ValueError(
                f"--{flag}: {entry!r} is not NAME=WEIGHT with a name of {', '.join(names)}."
            )
    if not any(found.values()):
        raise ValueError(f"--{flag}: no weight is above 0.")
    return found


def _distribution(config: CritiqueDataConfig, statistics: dict[str, Any]) -> list[dict[str, Any]]:
    """The configured shares beside those obtained."""

    def compare(what: str, wanted: dict[str, float], got: dict[str, float]) -> None:
        total = sum(wanted.values())
        rows.extend(
            {
                "what": f"{what}: {name}",
                "configured": wanted[name] / total if name in wanted else None,
                "obtained": got.get(name, 0.0),
            }
            for name in {**wanted, **got}
        )

    rows: list[dict[str, Any]] = []
    compare("strategy", dict(config.mixture), statistics["strategies"])
    compare("kind", dict(config.placement.error_types), statistics["error_types"])
    positions: dict[str, float] = dict(zip(THIRDS, config.placement.positions, strict=True))
    for strategy, got in statistics["error_positions"].items():
        in_order = {name: got[name] for name in THIRDS if name in got}
        wanted = positions if strategy != "RG1" else {}
        compare(f"{strategy}, first error in third", wanted, in_order)
    return rows


def _tables(statistics: dict[str, Any]) -> str:
    """What is printed at the end."""
    counts = [("stage", "count"), *((k, f"{v:,}") for k, v in statistics["counts"].items())]
    table1 = [("dataset, strategy", "right", "wrong")]
    table1 += [
        (f"{row['dataset']}, {row['strategy']}", f"{row['right']:,}", f"{row['wrong']:,}")
        for row in statistics["table1"]
    ]
    shares = [("share", "configured", "obtained")]
    shares += [
        (row["what"], percent(row["configured"]), percent(row["obtained"]))
        for row in statistics["distribution"]
    ]
    effects = [("filter", "kept", "of", "refined right", "right alone", "false")]
    effects += [
        (
            rule,
            f"{effect['kept']:,}",
            f"{effect['of']:,}",
            percent(effect["refined_right"]),
            percent(effect["alone_right"]),
            percent(effect["false_share"]),
        )
        for rule, effect in statistics["filter"].items()
    ]
    costs = [("cost", *COSTS)]
    costs += [
        (name, *(f"{cost[key]:,}" for key in COSTS)) for name, cost in statistics["costs"].items()
    ]
    return "\n\n".join(map(aligned, (counts, table1, shares, effects, costs)))


def _dry_run(problems: list[Problem], config: CritiqueDataConfig) -> None:
    """Prints one example of each prompt, then the estimate."""
    tokenizer = Tokenizer(FLAGS.actor)
    prompts = PROMPT_SETS[FLAGS.prompts]
    mode = None if FLAGS.annotator == "checker" else FLAGS.annotation
    instructed = FLAGS.mistakes == "model"
    for name, messages in example_prompts(problems[0], prompts, mode, instructed).items():
        print(f"==== {name}\n{tokenizer.prompt(messages)}\n")
    costs = estimate(
        problems,
        prompts,
        config,
        Limits(FLAGS.actor_tokens, FLAGS.critic_tokens, _MISTAKE_TOKENS),
        lambda messages: len(tokenizer.encode(tokenizer.prompt(messages))),
        lambda text: len(tokenizer.encode(text)),
        mode,
        instructed,
        FLAGS.annotation_attempts,
    )
    total = StageCost("all", *(sum(column) for column in zip(*(c[1:] for c in costs), strict=True)))
    rows = [
        ("stage", "requests", "prompt tokens", "generated tokens", "at most: requests", "tokens")
    ]
    rows += [(cost[0], *(f"{round(number):,}" for number in cost[1:])) for cost in [*costs, total]]
    print(aligned(rows))
    print(
        f"Expected where {percent(RIGHT)} of an actor's answers are right and replies are as long "
        "as the reference's, and every reply of an annotator is usable; nothing was sampled.\n"
        f"All tokens are counted by the actor's tokenizer ({FLAGS.actor}), an annotator's too."
    )


if __name__ == "__main__":
    run(main)
