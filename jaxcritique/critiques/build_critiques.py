"""The experiment of section 3: builds critique data with AutoMathCritique, and publishes it."""

import dataclasses
import os
import pathlib
import time

from absl import logging

from jaxcritique.config import setting
from jaxcritique.critiques import annotate, pipeline
from jaxcritique.critiques.duplicates import decontaminated
from jaxcritique.critiques.filtering import KINDS, FilterRule
from jaxcritique.critiques.publish import discarded_rows, training_row, write_dataset
from jaxcritique.critiques.results import CritiqueData, statistics_of
from jaxcritique.errors import checking_input
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.annotation import Mode
from jaxcritique.records import Problem, to_json
from jaxcritique.roles import Context, RolesConfig
from jaxcritique.rollout.engines import Engine, EngineConfig
from jaxcritique.run_folder import about_run, claim
from jaxcritique.store import write_rows
from jaxcritique.tasks import TINY_BASE, TaskConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildCritiquesConfig(TaskConfig, RolesConfig, pipeline.CritiqueDataConfig):
    """Settings of `build_critiques`."""

    train_problems: int = setting(0, "Training problems used; 0: all of a file.", low=0)
    actor: str = setting(
        str(TINY_BASE), "Hugging Face folder of the model that writes solutions and refinements."
    )
    annotator: str = setting(
        annotate.CHECKER,
        "What writes the critiques: 'checker', a program for solutions whose calculations are "
        "marked, or a model's Hugging Face folder; with `annotator_endpoint` the name its servers "
        "know.",
    )
    annotator_endpoint: tuple[str, ...] = setting(
        (),
        "Base URLs of OpenAI-compatible servers of the annotator, as https://host/v1; the key is "
        "in the variable that `api_key_env` names. `engine` samples the actor all the same.",
    )
    annotation: Mode = setting(
        "step_by_step",
        "How a model annotates: the whole at once, step by step until the first error, or without "
        "hints in the critic's own format.",
    )
    annotation_attempts: int = setting(
        3, "Times a model is shown a solution before its unusable reply is final.", low=1
    )
    annotation_temperature: float = setting(0.7, "Of an annotating model.", low=0)
    contaminated: float = setting(
        0.5,
        "Share of the shorter question's n-grams that a training question has in common with one "
        "test question from which it is left out.",
        low=0.01,
        high=1,
    )

    def __post_init__(self) -> None:
        """Checks that there is a model for the annotator's servers."""
        super().__post_init__()
        if self.annotator == annotate.CHECKER and self.annotator_endpoint:
            raise ValueError("`annotator_endpoint`: name the model it serves with `annotator`.")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """All that `build_critiques` reads."""

    actor: ModelFolder
    annotator: ModelFolder | None  # None: a program, or a model behind an endpoint.
    problems: list[Problem]
    tests: list[Problem]
    kept_out: list[Problem]  # Test problems that no training problem may resemble.
    checker: annotate.ArithmeticAnnotator | None

    @classmethod
    def read(cls, config: BuildCritiquesConfig) -> "Inputs":
        """Reads the models' names and the problems.

        Raises:
          OSError, ValueError: something cannot be used.
        """
        actor, annotator = ModelFolder.named("actor", config.actor), None
        if config.annotator != annotate.CHECKER and not config.annotator_endpoint:
            annotator = ModelFolder.named("annotator", config.annotator)
        problems = config.load_train(config.train_problems, config.seed)
        program = annotate.checker(problems)
        if program is None and (
            config.annotator == annotate.CHECKER or config.mistakes == "program"
        ):
            raise ValueError(
                f"`task={config.task}`: a program can annotate and make mistakes only where "
                "solutions have calculations (<<1+2=3>>), which most of these do not. Name a model "
                "with `annotator`, and give `mistakes=model`."
            )
        tests = config.load_test()
        return cls(actor, annotator, problems, tests, config.load_all_tests(), program)


def build_critiques(
    config: BuildCritiquesConfig,
    run_dir: str | os.PathLike[str],
    engine: EngineConfig = EngineConfig(),
) -> CritiqueData:
    """Builds critique data (section 3): flawed solutions, their critiques, the Monte-Carlo filter.

    Called again with the same folder it resumes; with another `tau` or `filter` it samples nothing,
    with another setting of `pipeline.CHOSEN_LATER` it samples only for the filter.

    Args:
      config: all settings that decide the outcome.
      run_dir: gets dataset/ (for `datasets.load_dataset`), critic.jsonl (examples to fine-tune a
        critic on), critic-none.jsonl, critic-soft.jsonl and critic-hard.jsonl (the same under each
        filter), discarded.jsonl (what the filter never saw, with its text and why),
        test_problems.jsonl and results.json.
      engine: what samples.

    Raises:
      InvalidInput: a setting or an input cannot be used, or the folder is another run's.
      SamplerError: a model cannot be asked.
    """
    started, run_dir = time.monotonic(), pathlib.Path(run_dir)
    with checking_input():
        inputs = Inputs.read(config)
        settings = config.to_json() | {"actor": inputs.actor.key}
        if inputs.annotator is not None:
            settings["annotator"] = inputs.annotator.key
        for name in ("annotator_endpoint", *pipeline.CHOSEN_LATER):
            del settings[name]
        running = engine.start()
        annotator = _annotator(config, inputs, running, engine)
        claim(run_dir, "build_critiques", settings)
    clean, contaminated = decontaminated(
        inputs.problems, inputs.kept_out, config.ngram, config.contaminated
    )
    with Context.open(config, inputs.actor, run_dir, running) as context:
        actor = context.sampler(inputs.actor)
        annotations = pipeline.annotate_paths(context, actor, clean, annotator, config)
        candidates = pipeline.build_candidates(context, actor, annotations, annotator.name, config)

    def passing(rule: FilterRule) -> list[dict[str, object]]:
        kept, _ = pipeline.keep(candidates, rule, config.seed)
        return [training_row(context.prompts, candidate) for candidate in kept]

    # ---- files, then results.json, then the dataset with its card
    write_rows(run_dir / "discarded.jsonl", discarded_rows(annotations, candidates))
    for kind in KINDS:  # To compare critics trained on the same critiques, filtered otherwise.
        write_rows(run_dir / f"critic-{kind}.jsonl", passing(FilterRule(kind, config.tau)))
    write_rows(run_dir / "test_problems.jsonl", map(to_json, inputs.tests))
    kept, counts = pipeline.keep(candidates, config.rule, config.seed)
    results = CritiqueData(
        **about_run(run_dir, config, started, candidates.facts["costs"]),
        **vars(statistics_of(candidates.records, kept, inputs.checker, config)),
        counts={
            "problems": len(inputs.problems),
            "contaminated problems": len(contaminated),
            **candidates.facts["counts"],
            **counts,
        },
        costs=candidates.facts["costs"],
        provenance={
            "problems": f"{config.task}, {len(clean)} for training; {len(inputs.kept_out)} test "
            "problems kept out",
            "actor": config.actor,
            "annotator": annotator.name,
            "RG3's mistakes": f"put in by a {config.mistakes}",
            "filter": f"{config.filter}, tau={config.tau:g}",
        },
        critiques=[candidate.critique for candidate in kept],
    )
    write_rows(results.examples, passing(config.rule))
    results.write()
    chosen = set(map(id, kept))
    write_dataset(kept, [c for c in candidates if id(c) not in chosen], results)
    if not kept:
        logging.warning("No critique was kept; `counts` in the results says where they went.")
    return results


def _annotator(
    config: BuildCritiquesConfig, inputs: Inputs, running: Engine, engine: EngineConfig
) -> annotate.Annotator:
    if config.annotator == annotate.CHECKER and inputs.checker is not None:
        return inputs.checker
    if inputs.annotator is not None:
        model = running.sampler(inputs.annotator)
    else:
        served = dataclasses.replace(engine, endpoint=config.annotator_endpoint)
        model = served.hosted(config.annotator)
    return annotate.ModelAnnotator(
        model,
        pathlib.Path(config.annotator).name,
        config.annotation,
        config.critic_tokens,
        config.annotation_temperature,
        config.annotation_attempts,
    )
