"""Self-talk via critique (section 7, Table 5): one actor that checks itself step by step.

Builds self-talk data out of an actor's solutions, a critic's feedback on each step and the actor's
corrections; fine-tunes an actor on it; compares it with an actor that corrects its whole solution
and with an actor that has a critic.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Mapping, Sequence

from jaxcritique.analysis import page
from jaxcritique.analysis.methods import ALONE, Method
from jaxcritique.config import REQUIRED, setting
from jaxcritique.critiques.annotate import require_checker
from jaxcritique.critiques.supervision import (
    ActorConfig,
    actor_examples,
    refine_set,
    self_correction_data,
)
from jaxcritique.errors import InvalidInput, checking_input
from jaxcritique.improvement import self_talk_report as table5
from jaxcritique.improvement.self_talk_data import (
    SelfTalk,
    SelfTalkDataConfig,
    build_self_talk,
    self_talk_examples,
)
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.templates import PromptSet
from jaxcritique.records import Problem, Solution
from jaxcritique.roles import Context, RolesConfig, Start, costs_of, respond
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.rollout.sampler import Sampler
from jaxcritique.run_folder import Results, about_run, claim, shown
from jaxcritique.store import write_rows
from jaxcritique.tasks import TINY_BASE, TaskConfig
from jaxcritique.testtime.critics import critic_model, critic_of, no_critic
from jaxcritique.testtime.rounds import PROTOCOLS, Chain, Critic, RefineProtocol, run_rounds
from jaxcritique.testtime.scores import DifferenceRow, Point, PointRow, point_scores, rows_of
from jaxcritique.testtime.voting import equality


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTalkConfig(TaskConfig, RolesConfig, ActorConfig, SelfTalkDataConfig):
    """Settings of `self_talk`."""

    model: str = setting(str(TINY_BASE), "Hugging Face folder: the base of all actors.")
    actor: str | None = setting(
        None,
        "Hugging Face folder of an actor fine-tuned on D_reason and D_refine. Without: one is "
        "fine-tuned from `model`.",
    )
    critic: str = setting(
        REQUIRED,
        "Hugging Face folder of the critic. 'checker': the program that works out every step "
        "against the reference solution.",
    )
    data_critic: str | None = setting(
        None, "Who gives the feedback in the self-talk data, likewise. Without: the critic."
    )
    smoother: str | None = setting(
        None,
        "Hugging Face folder of a model that smooths the self-talk texts, as in the paper. "
        "Without: a program joins them with phrases.",
    )
    self_talk_tokens: int = setting(2048, "Most tokens of a self-talk answer.", low=1)
    k: tuple[int, ...] = setting((5,), "The K of Maj@K and Pass@K.", low=1)
    protocol: tuple[str, ...] = setting(
        ("refine_all",),
        "Which answers the actor with a critic refines; see `EvaluateConfig`.",
        choices=tuple(PROTOCOLS),
        repeated=True,
    )


@dataclasses.dataclass(frozen=True)
class SelfTalkTranscript:
    """An example that the self-talk actor learnt, or one of its answers."""

    of: str
    question: str
    answer: str
    text: str
    verdict: str

    @classmethod
    def showing(cls, of: str, talk: Solution) -> "SelfTalkTranscript":
        """Returns the transcript of a graded text; `of` says what it is."""
        problem = talk.problem
        return cls(of, problem.question, problem.answer, talk.text, talk.verdict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTalkResults(Results):
    """The results of `self_talk`."""

    task: str
    critic: str
    data_critic: str
    problems: int
    points: list[PointRow]
    differences: list[DifferenceRow]
    counts: dict[str, int]  # Of the self-talk data, by step of its construction.
    costs: dict[str, dict[str, int]]  # `roles.COSTS` of each stage.
    models: dict[str, str]  # Folders by role; relative to `run_dir`.
    transcripts: list[SelfTalkTranscript]

    @property
    def table(self) -> str:
        """Table 5, its differences, and what was sampled."""
        return page.as_text(table5.self_talk_tables(self.to_json()))

    def write_report(self) -> None:
        """Writes the page."""
        tables = table5.self_talk_tables(self.to_json())
        page.write_page("self_talk.html.jinja", self, self.report, tables=tables, figures=[])


def self_talk(
    config: SelfTalkConfig,
    run_dir: str | os.PathLike[str],
    engine: EngineConfig = EngineConfig(),
) -> SelfTalkResults:
    """Trains an actor on self-talk and compares it with the alternatives of Table 5.

    The same call again goes on where a killed one stopped. `run_dir` gets results.json,
    report.html, scores.jsonl, and self_talk.jsonl with the examples as `fine_tune` reads them.

    Args:
      config: settings.
      run_dir: folder for everything this run makes.
      engine: what samples, and on which devices.

    Raises:
      InvalidInput: settings, files or the folder cannot be used (known within seconds), or no
        self-talk example is left to learn from.
    """
    started, run_dir = time.monotonic(), pathlib.Path(run_dir)
    with checking_input():
        # A critic that is None is the checker.
        base = ModelFolder.named("model", config.model)
        given_actor = _model("actor", config.actor)
        critic_folder = critic_model("critic", config.critic)
        data_setting = "critic" if config.data_critic is None else "data_critic"
        data_critic_name = getattr(config, data_setting)
        data_critic_folder = critic_model(data_setting, data_critic_name)
        smoother = _model("smoother", config.smoother)
        train = config.load_train(config.train_problems, config.seed)
        test = config.load_test()
        annotator = require_checker(f"task={config.task}", train)
        engine.check_training(base, config)
        sampling = engine.start()
        folders = {
            "base": base,
            "actor": given_actor,
            "critic": critic_folder,
            "data_critic": data_critic_folder,
            "smoother": smoother,
        }
        keys = {f"{name} model": model.key if model else None for name, model in folders.items()}
        claim(run_dir, "self_talk", config.to_json() | keys)

    with Context.open(config, base, run_dir, sampling) as context:
        # ---- the baselines' actors: D_reason, and D_refine with its critiques or without
        reasoning = [(problem, problem.rationale) for problem in train]
        refinements = refine_set(train, annotator, config, config.seed)
        examples = actor_examples(context.prompts, reasoning, refinements, config.beta)
        actor = given_actor or context.fine_tune("actor-sft", base, examples, config)
        alone = self_correction_data(refinements)
        examples = actor_examples(context.prompts, reasoning, alone, config.beta)
        corrector = context.fine_tune("actor-self-correction", base, examples, config)

        # ---- self-talk: the data, then an actor of D_reason and it
        data = build_self_talk(
            context,
            context.sampler(actor),
            critic_of(context, data_critic_folder),
            context.sampler(smoother) if smoother else None,
            train,
            config.part(SelfTalkDataConfig),
        )
        if not data.examples:
            lost = ", ".join(f"{name} {count}" for name, count in data.counts.items() if count)
            raise InvalidInput(
                f"No self-talk example is left to learn from. Paths were lost to: {lost}. Use more "
                "`samples` or `rounds`, or a better critic (`data_critic=checker`)."
            )
        learnt = self_talk_examples(context.prompts, data.examples)
        rows = ({"messages": e.messages, "target": e.reply} for e in learnt)
        write_rows(run_dir / "self_talk.jsonl", rows)
        examples = actor_examples(context.prompts, reasoning, [], config.beta) + learnt
        talker = context.fine_tune("actor-self-talk", base, examples, config)

        # ---- every method on the test problems
        evaluation = _Evaluation(config, context, test)
        protocols = {Method("one round", name): PROTOCOLS[name] for name in config.protocol}
        critic = critic_of(context, critic_folder)
        points = evaluation.run("sft", actor, {ALONE: table5.UNTOUCHED, **protocols}, critic)
        corrections = {table5.SELF_CORRECTION: PROTOCOLS["refine_all"]}
        points += evaluation.run("self-correction", corrector, corrections, no_critic)
        aloud = {table5.SELF_TALK: table5.UNTOUCHED}
        points += evaluation.run("self-talk", talker, aloud, None, aloud=True)
    points.sort(key=lambda point: table5.METHODS.index(point.method))
    costs = data.costs | evaluation.costs
    models = {
        "sft actor": actor,
        "self_correction actor": corrector,
        "self-talk actor": talker,
    }
    results = SelfTalkResults(
        **about_run(run_dir, config, started, costs),
        task=config.task,
        critic=config.critic,
        data_critic=data_critic_name,
        problems=len(test),
        points=rows_of(points, config.seed),
        differences=table5.comparisons(points, config.seed),
        counts=data.counts,
        costs=costs,
        models={name: shown(model.folder, run_dir) for name, model in models.items()},
        transcripts=_transcripts(data.examples, evaluation.greedy["self-talk"]),
    )
    results.write(point_scores(test, points))
    results.write_report()
    return results


def _model(setting: str, folder: str | None) -> ModelFolder | None:
    return None if folder is None else ModelFolder.named(setting, folder)


@dataclasses.dataclass
class _Evaluation:
    """Greedy answers and samples of actors to the test problems, scored."""

    config: SelfTalkConfig
    context: Context
    problems: Sequence[Problem]
    costs: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    greedy: dict[str, list[Solution]] = dataclasses.field(default_factory=dict)

    def run(
        self,
        name: str,
        model: ModelFolder,
        methods: Mapping[Method, RefineProtocol],
        critic: Critic | None,
        aloud: bool = False,
    ) -> list[Point]:
        """Returns the points of an actor's methods, which share its samples.

        Args:
          name: of the actor, in stages.
          model: the actor.
          methods: which answers are refined, by method.
          critic: whose critiques the actor refines after; None: answers are final.
          aloud: whether the actor is prompted for self-talk.
        """
        actor, ks = self.context.sampler(model), sorted(set(self.config.k))
        sampled = {
            "greedy": (self._respond(f"{name}-greedy", actor, 1, 0.0, aloud), 0.0),
            "samples": (
                self._respond(f"{name}-samples", actor, ks[-1], self.config.temperature, aloud),
                self.config.temperature,
            ),
        }
        self.greedy[name] = sampled["greedy"][0]
        chains = {}
        for kind, (responses, temperature) in sampled.items():
            chains[kind] = [Chain(response) for response in responses]
            if critic is not None:
                stage, protocols = f"{name}-{kind}", list(methods.values())
                chains[kind], costs = run_rounds(
                    self.context, stage, actor, critic, responses, protocols, 1, temperature
                )
                self.costs |= costs
        same = equality(self.context.grader)
        return [
            point
            for method, protocol in methods.items()
            for point in table5.method_points(
                self.problems, method, protocol, chains["greedy"], chains["samples"], ks, same
            )
        ]

    def _respond(
        self, stage: str, actor: Sampler, n: int, temperature: float, aloud: bool
    ) -> list[Solution]:
        context, ask = self.context, PromptSet.to_solve
        if aloud:
            tokens = self.config.self_talk_tokens
            context, ask = dataclasses.replace(context, actor_tokens=tokens), PromptSet.to_self_talk
        starts = [Start(problem) for problem in self.problems]
        responses = respond(context, stage, actor, starts, n, temperature, ask)
        self.costs[stage] = costs_of(responses)
        return list(responses)


def _transcripts(
    learnt: Sequence[SelfTalk], answers: Sequence[Solution]
) -> list[SelfTalkTranscript]:
    """Picks training examples, preferably with corrections, and test answers, right and wrong."""
    examples = sorted(learnt, key=lambda talk: not talk.corrections)[:3]
    right, wrong = ([a for a in answers if a.correct is verdict] for verdict in (True, False))
    return [
        *(SelfTalkTranscript.showing("Training example", talk) for talk in examples),
        *(
            SelfTalkTranscript.showing("Answer to a test problem", answer)
            for answer in (*right[:2], *wrong[:2])
        ),
    ]
