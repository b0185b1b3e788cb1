"""One critic beside actors of several sizes (section 6.1, Figure 9)."""

import dataclasses
import os
import pathlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

from jaxcritique.analysis import page
from jaxcritique.analysis.methods import ALONE, Method
from jaxcritique.analysis.scaling_report import MOST_CRITICS, scaling_figure, scaling_tables
from jaxcritique.config import REQUIRED, setting
from jaxcritique.critiques.annotate import require_checker
from jaxcritique.critiques.supervision import ActorConfig, actor_examples, refine_set
from jaxcritique.errors import checking_input
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import Problem
from jaxcritique.roles import Context, RolesConfig, Start, costs_of, refine, respond
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.run_folder import Results, about_run, claim, shown
from jaxcritique.tasks import TaskConfig
from jaxcritique.testtime.critic_metrics import table2_scores
from jaxcritique.testtime.critics import CHECKER, critic_model, critic_of
from jaxcritique.testtime.rounds import PROTOCOLS, Critic
from jaxcritique.testtime.scores import WithGain, score_rows, with_gain


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalingConfig(RolesConfig, TaskConfig, ActorConfig):
    """Settings of a comparison of actors by size."""

    actor_base: tuple[str, ...] = setting(
        (),
        "Hugging Face folder of a base that an actor is fine-tuned from here; may be given several "
        "times.",
        repeated=True,
    )
    actor: tuple[str, ...] = setting(
        (), "Hugging Face folder of a fine-tuned actor; may be given several times.", repeated=True
    )
    critic: tuple[str, ...] = setting(
        REQUIRED,
        "Hugging Face folder of a critic; may be given several times. 'checker': the program that "
        "works out every step against the reference solution, the ceiling.",
        repeated=True,
    )

    def __post_init__(self) -> None:
        """Checks what no single field's bounds say."""
        super().__post_init__()
        if not self.actor_base and not self.actor:
            raise ValueError("name actors with `actor_base` or `actor`; Figure 9 has four sizes.")
        if len(self.critic) > MOST_CRITICS:
            raise ValueError(f"`critic`: name at most {MOST_CRITICS}; a figure shows no more.")
        as_they_are = {pathlib.Path(folder).resolve() for folder in self.actor}
        for folder in self.actor_base:
            if pathlib.Path(folder).resolve() in as_they_are:
                raise ValueError(
                    f"`actor_base={folder}` is also an `actor`: name it once, either to be "
                    "fine-tuned (`actor_base`) or as it is (`actor`)."
                )


class CriticSize(TypedDict):
    """A critic and its number of parameters; None: a program."""

    name: str
    parameters: int | None


class AboutActor(TypedDict):
    """One actor, with a critic or without."""

    actor: str  # Its size, as `size_name` writes it.
    parameters: int
    critic: str | None
    method: str  # The name of ALONE, or of a round under a protocol.


class ActorRow(AboutActor, WithGain):
    """Greedy accuracy of an actor, in results.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling(Results):
    """Results of a comparison of actors by size."""

    task: str
    problems: int
    critics: list[CriticSize]
    rows: list[ActorRow]
    costs: dict[str, dict[str, int]]  # `roles.COSTS` of each stage.
    models: dict[str, str]  # Folders of the actors, by name.

    @property
    def table(self) -> str:
        """Figure 9's numbers, the gains over each actor alone, and the costs."""
        return page.as_text(scaling_tables(self.to_json()))

    def write_report(self) -> None:
        """Writes the page, and its figure's numbers to figures/accuracy_by_size.csv."""
        results = self.to_json()
        tables, drawn = scaling_tables(results), [scaling_figure(results)]
        page.write_report("scaling.html.jinja", results, self.run_dir, tables, drawn)


@dataclasses.dataclass(frozen=True)
class ActorScores:
    """One actor's greedy answers, with a critic or without."""

    about: AboutActor
    scores: Mapping[str, float]  # By problem id, 0 or 1.
    alone: Mapping[str, float] | None = None  # The same actor's without a critic, if these are not.


def scaling(
    config: ScalingConfig,
    run_dir: str | os.PathLike[str],
    engine: EngineConfig = EngineConfig(),
) -> Scaling:
    """Measures what a critic brings actors of several sizes.

    Each base is fine-tuned on the same D_reason and D_refine (equation 2). Every actor answers
    greedily and refines each answer after its critique: accuracy without a critic, with it, and
    where an oracle picks the answers to be refined. The same call again resumes; actors and critics
    may then be added.

    Args:
      config: the actors, the critics and the training.
      run_dir: folder for stages, results.json, scores.jsonl, report.html and figures/*.csv.
      engine: what samples and trains.

    Raises:
      InvalidInput: a setting, file or folder cannot be used.
    """
    started, run_dir = time.monotonic(), pathlib.Path(run_dir)
    with checking_input():
        bases = {
            str(pathlib.Path(f)): ModelFolder.named("actor_base", f) for f in config.actor_base
        }
        actors = {str(pathlib.Path(f)): ModelFolder.named("actor", f) for f in config.actor}
        critics = {name: critic_model("critic", name) for name in config.critic}
        train: list[Problem] = []
        annotator = None
        if bases:
            train = config.load_train(config.train_problems, config.seed)
            annotator = require_checker(f"task={config.task}", train)
        test = config.load_test()
        if CHECKER in critics:
            require_checker(f"critic={CHECKER}", test)
        for base in bases.values():
            engine.check_training(base, config)
        settings = config.to_json()
        for name in ("actor_base", "actor", "critic"):
            del settings[name]
        claim(run_dir, "scaling", settings)
        models = engine.start()
    costs: dict[str, dict[str, int]] = {}
    first = next(iter([*bases.values(), *actors.values()]))
    with Context.open(config, first, run_dir, models) as context:
        if annotator is not None:
            reasoning = [(problem, problem.rationale) for problem in train]
            refinements = refine_set(train, annotator, config, config.seed)
            examples = actor_examples(context.prompts, reasoning, refinements, config.beta)
            for folder, base in bases.items():
                actors[folder] = context.fine_tune("actor", base, examples, config)
        by_name = _named(actors.values())
        with_critics = {name: critic_of(context, model) for name, model in critics.items()}
        scored = [
            scores
            for name, actor in by_name.items()
            for scores in _scores(context, name, actor, with_critics, test, costs)
        ]
    results = Scaling(
        **about_run(run_dir, config, started, costs),
        task=config.task,
        problems=len(test),
        critics=[
            {"name": name, "parameters": _parameters(model) if model else None}
            for name, model in critics.items()
        ],
        rows=scaling_rows(scored, config.seed),
        costs=costs,
        models={f"{name} actor": shown(actor.folder, run_dir) for name, actor in by_name.items()},
    )
    results.write(scaling_score_rows(test, scored))
    results.write_report()
    return results


def size_name(parameters: int) -> str:
    """Names a model by its size: 2.1M, 8.0B."""
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if parameters >= unit:
            return f"{parameters / unit:.1f}{name}"
    return f"{parameters / 1000:.0f}k"


def actor_scores(
    actor: str, parameters: int, columns: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> list[ActorScores]:
    """Returns one actor's scores alone, and with each critic under each protocol.

    Args:
      actor: its name.
      parameters: its number of parameters.
      columns: by critic, what `critic_metrics.table2_scores` returns.
    """

    def about(critic: str | None, method: Method) -> AboutActor:
        return AboutActor(actor=actor, parameters=parameters, critic=critic, method=str(method))

    alone = next(iter(columns.values()))["accuracy_without"]
    with_critic = [
        ActorScores(about(critic, Method("one round", name)), table[f"accuracy_{name}"], alone)
        for critic, table in columns.items()
        for name in PROTOCOLS
    ]
    return [ActorScores(about(None, ALONE), alone), *with_critic]


def scaling_rows(scored: Sequence[ActorScores], seed: int) -> list[ActorRow]:
    """Returns means with their intervals, and the gain over the same actor alone."""
    return [{**one.about, **with_gain(one.scores, one.alone, seed)} for one in scored]


def scaling_score_rows(
    problems: Sequence[Problem], scored: Sequence[ActorScores]
) -> Iterator[dict[str, Any]]:
    """Yields every problem's scores, as `scores.score_rows` does, of each actor and critic."""
    greedy = {"metric": "greedy", "k": 1}
    return score_rows(problems, [({**one.about, **greedy}, one.scores) for one in scored])


def _scores(
    context: Context,
    name: str,
    actor: ModelFolder,
    critics: Mapping[str, Critic],
    problems: Sequence[Problem],
    costs: dict[str, dict[str, int]],
) -> list[ActorScores]:
    """One actor with every critic; adds what that cost to `costs`."""
    sampler = context.sampler(actor)
    starts = [Start(problem) for problem in problems]
    responses = respond(context, "respond", sampler, starts, 1, 0.0)
    costs[f"{name}: respond"] = costs_of(responses)
    columns = {}
    for number, (critic_name, critic) in enumerate(critics.items(), start=1):
        critiques = critic(context, "criticise", list(responses), 0.0)
        refinements = refine(context, "refine", sampler, list(critiques), 1, 0.0)
        costs[f"{name}: criticise, critic {number}"] = costs_of(critiques)
        costs[f"{name}: refine, critic {number}"] = costs_of(refinements)
        columns[critic_name] = table2_scores(list(refinements))
    return actor_scores(name, _parameters(actor), columns)


def _named(actors: Iterable[ModelFolder]) -> dict[str, ModelFolder]:
    """Names actors by size, the smallest first; of equal sizes also by number."""
    named: dict[str, ModelFolder] = {}
    sizes: Counter[str] = Counter()
    for actor in sorted(actors, key=_parameters):
        size = size_name(_parameters(actor))
        sizes[size] += 1
        named[f"{size} ({sizes[size]})" if sizes[size] > 1 else size] = actor
    return named


def _parameters(model: ModelFolder) -> int:
    return ModelConfig.load(model.folder).num_parameters
