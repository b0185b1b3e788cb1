"""Test-time evaluation of an actor, with or without a critic (sections 4.2 and 6)."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Sequence
from statistics import fmean

from jaxcritique.analysis import page
from jaxcritique.analysis.difficulty import DifficultyConfig, rated
from jaxcritique.analysis.evaluation_report import evaluation_figures, evaluation_tables
from jaxcritique.analysis.methods import MULTIPLES, Method
from jaxcritique.config import setting
from jaxcritique.critiques.annotate import require_checker
from jaxcritique.errors import checking_input
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import Problem, Solution
from jaxcritique.roles import Context, RolesConfig, Start, costs_of, respond
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.rollout.sampler import Sampler, SamplerError
from jaxcritique.run_folder import Results, about_run, claim
from jaxcritique.tasks import TINY_BASE, TaskConfig
from jaxcritique.testtime import scores
from jaxcritique.testtime.critics import CHECKER, SELF, critic_model, critic_of, no_critic
from jaxcritique.testtime.rounds import PROTOCOLS, Chain, Critic, run_rounds
from jaxcritique.testtime.voting import equality


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RolesConfig, TaskConfig, DifficultyConfig):
    """Settings of a test-time evaluation."""

    actor: str = setting(str(TINY_BASE), "Hugging Face folder of the actor.")
    critic: str | None = setting(
        None,
        "Hugging Face folder of the critic. 'checker': the program that works out every step "
        "against the reference solution, the ceiling. 'self': there is none, the actor corrects "
        "itself. Without: the actor alone.",
    )
    k: tuple[int, ...] = setting((1, 2, 4, 8), "The K of Maj@K and Pass@K.", low=1)
    samples: int = setting(
        0,
        "Samples of each problem that are criticised and refined; more than the largest K make "
        "the estimates less noisy. 0: the largest K. With `equal_compute` the actor alone has "
        "three times the largest K at least.",
        low=0,
    )
    temperature: float = setting(
        0.7, "Of samples, and of their critiques and refinements (paper: 0.7).", low=0
    )
    protocol: tuple[str, ...] = setting(
        ("refine_all",),
        "Which answers are refined: all, those that the critic does not call correct, or those "
        "that are wrong. May be given several times; they then share their samples.",
        choices=tuple(PROTOCOLS),
        repeated=True,
    )
    scaling: tuple[str, ...] = setting(
        ("parallel",),
        "K responses with a round of critique and refinement each, or K rounds after one "
        "response. May be given both times.",
        choices=("parallel", "sequential"),
        repeated=True,
    )
    equal_compute: bool = setting(
        True,
        "Compare also with the actor alone at 2K and 3K samples and at equal tokens: half of the "
        "cost.",
    )

    def __post_init__(self) -> None:
        """Checks what no single field's bounds say."""
        super().__post_init__()
        if 0 < self.samples < max(self.k):
            raise ValueError(
                f"`k={max(self.k)}` needs as many samples of each problem, but "
                f"`samples={self.samples}` draws fewer."
            )
        if self.critic == "":
            raise ValueError("`critic=` names no critic; leave it out for the actor alone.")
        for name in ("protocol", "scaling"):
            if self.critic is None and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"`{name}` is about a critic: name one with `critic`.")

    @property
    def ks(self) -> list[int]:
        """The K in order, each once."""
        return sorted(set(self.k))


# Settings that may change in a run folder; stages that depend on them hash them.
_FREE = {
    "k", "samples", "protocol", "scaling", "equal_compute", "difficulty_samples", "difficulty",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(Results):
    """Results of a test-time evaluation."""

    task: str
    actor: str
    critic: str | None
    problems: int
    points: list[scores.PointRow]
    differences: list[scores.DifferenceRow]
    levels_by: str  # What tells a problem's difficulty.
    by_level: list[scores.LevelRow]
    costs: dict[str, dict[str, int]]  # `roles.COSTS` of each stage.

    @property
    def table(self) -> str:
        """Accuracy, Maj@K, Pass@K, differences, difficulty and costs."""
        return page.as_text(evaluation_tables(self.to_json()))

    def write_report(self) -> None:
        """Writes the page, and the numbers of its figures to figures/NAME.csv."""
        results = self.to_json()
        tables, drawn = evaluation_tables(results), evaluation_figures(results)
        page.write_report("evaluation.html.jinja", results, self.run_dir, tables, drawn)


def evaluate(
    config: EvaluateConfig,
    run_dir: str | os.PathLike[str],
    engine: EngineConfig = EngineConfig(),
) -> Evaluation:
    """Evaluates an actor, with or without a critic, as test-time compute grows.

    Greedy accuracy, Maj@K and Pass@K (section 4.2.2); rounds of critique and refinement in parallel
    or in sequence (section 6.3), compared with the actor alone at K, 2K and 3K samples and at equal
    tokens; all by difficulty. Samples are kept in the run folder: the same call again resumes, and
    another `protocol` or `scaling` draws only the stages that it changes.

    Args:
      config: what is evaluated, and how.
      run_dir: folder for stages, results.json, scores.jsonl, report.html and figures/*.csv.
      engine: what samples.

    Raises:
      InvalidInput: a setting, file or folder cannot be used.
      SamplerError: no sample could be drawn.
    """
    started, run_dir = time.monotonic(), pathlib.Path(run_dir)
    with checking_input():
        actor = ModelFolder.named("actor", config.actor)
        critic_folder = None
        if config.critic not in (None, SELF):
            critic_folder = critic_model("critic", config.critic)
        problems = config.load_test()
        if config.critic == CHECKER:
            require_checker(f"critic={CHECKER}", problems)
        settings = {k: v for k, v in config.to_json().items() if k not in _FREE}
        settings["actor model"] = actor.key
        settings["critic model"] = critic_folder.key if critic_folder else None
        claim(run_dir, "evaluate", settings)
        models = engine.start()
    with Context.open(config, actor, run_dir, models) as context:
        critic = no_critic if config.critic == SELF else None
        if config.critic not in (None, SELF):
            critic = critic_of(context, critic_folder)
        study = _Study(config, context, context.sampler(actor), critic)
        problems, points, before_after = study.run(problems)
    results = Evaluation(
        **about_run(run_dir, config, started, study.costs),
        task=config.task,
        actor=config.actor,
        critic=config.critic,
        problems=len(problems),
        points=scores.rows_of(points, config.seed),
        differences=scores.differences(points, config.seed),
        levels_by=config.levels_by,
        by_level=scores.by_level(problems, points, config.seed),
        costs=study.costs,
    )
    results.write(scores.point_scores(problems, [*points, *before_after]))
    results.write_report()
    return results


@dataclasses.dataclass
class _Study:
    """The stages of an evaluation, and what they cost."""

    config: EvaluateConfig
    context: Context
    actor: Sampler
    critic: Critic | None
    costs: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def run(
        self, problems: Sequence[Problem]
    ) -> tuple[list[Problem], list[scores.Point], list[scores.Point]]:
        """Samples and scores.

        Returns:
          The problems with their levels, the points, and those of all samples before and after a
          round.
        """
        config, ks = self.config, self.config.ks
        same = equality(self.context.grader)
        protocols = {name: PROTOCOLS[name] for name in config.protocol} if self.critic else {}

        # ---- the actor alone
        greedy = self._respond("greedy", 0, problems, 1, 0.0)
        samples = config.samples or ks[-1]
        compared = self.critic is not None and config.equal_compute
        drawn = max(samples, MULTIPLES[-1] * ks[-1]) if compared else samples
        pool = self._respond("respond", 0, problems, drawn, config.temperature)
        if wanted := config.difficulty_samples:
            # Other samples than those that are scored, by which chance alone would make a problem
            # hard and its answer wrong.
            rating = self._respond("difficulty", 1, problems, wanted, config.temperature)
            problems = rated(problems, rating, wanted, config.difficulty)

        # ---- with the critic
        points = scores.greedy_points(self._rounds("greedy", greedy, 1, 0.0), protocols)
        of_each = [pool[first : first + drawn] for first in range(0, len(pool), drawn)]
        with_critic: list[scores.Point] = []
        before_after: list[scores.Point] = []
        if self.critic and "parallel" in config.scaling:
            first = [response for responses in of_each for response in responses[:samples]]
            chains = self._rounds("parallel", first, 1, config.temperature)
            methods = {Method("parallel", name): protocol for name, protocol in protocols.items()}
            for method, protocol in methods.items():
                with_critic += scores.parallel_points(problems, method, protocol, chains, ks, same)
            before_after = scores.before_and_after(problems, methods, chains, same)
        if self.critic and "sequential" in config.scaling:
            first = [responses[0] for responses in of_each]
            chains = self._rounds("sequential", first, ks[-1], config.temperature)
            for name, protocol in protocols.items():
                way = Method("sequential", name)
                with_critic += scores.sequential_points(problems, way, protocol, chains, ks, same)

        # ---- the actor alone with the same compute
        price = fmean(response.tokens for response in pool)
        if not price:
            raise SamplerError("No sample could be drawn; see the messages above.")
        baselines_of = with_critic if compared else []
        if baselines_of and (more := scores.samples_needed(baselines_of, price) - drawn) > 0:
            pool += self._respond("respond-more", 2, problems, more, config.temperature)
        alone = scores.alone_points(problems, pool, ks, baselines_of, price, same)
        return list(problems), [*points, *alone, *with_critic], before_after

    def _respond(
        self, name: str, reseed: int, problems: Sequence[Problem], n: int, temperature: float
    ) -> list[Solution]:
        starts = [Start(problem) for problem in problems]
        context = self.context.reseeded(reseed)
        solutions = respond(context, name, self.actor, starts, n, temperature)
        self.costs[name] = costs_of(solutions)
        return list(solutions)

    def _rounds(
        self, name: str, responses: Sequence[Solution], most: int, temperature: float
    ) -> list[Chain]:
        if self.critic is None:
            return [Chain(response) for response in responses]
        protocols = [PROTOCOLS[protocol] for protocol in dict.fromkeys(self.config.protocol)]
        chains, costs = run_rounds(
            self.context, name, self.actor, self.critic, responses, protocols, most, temperature
        )
        self.costs.update(costs)
        return chains
