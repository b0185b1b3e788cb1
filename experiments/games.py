"""The flags of every program that plays the game, and what they make."""

import pathlib
from collections.abc import Sequence

from absl import flags, logging

from jaxcritique.analysis.difficulty import EDGES
from jaxcritique.critiques.annotate import ArithmeticAnnotator
from jaxcritique.critiques.arithmetic import marks
from jaxcritique.critiques.build import made_refinements
from jaxcritique.grading import Grader
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.prompts.players import COSTS, Game, criticise, no_critique
from jaxcritique.prompts.templates import PROMPT_SETS
from jaxcritique.records import Critique, Problem, Refinement, Solution, digest
from jaxcritique.rollout.load import Engine
from jaxcritique.store import Dataset, Stage, Store
from jaxcritique.tasks import TASKS
from jaxcritique.testtime.rounds import Critic
from jaxcritique.training.sft import SftConfig

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # What is defined here is a flag of the program that asks for it.

# What stands for a critic's folder where there is none:
CHECKER = "checker"  # a program is the critic;
SELF = "self"  # the actor corrects itself.
TEST_SEED = 1_000_003  # The test stories are the same for every --seed and every program.


def define_flags(seed: str) -> None:
    """Defines what `game` needs, and the run folder; `seed` says what --seed decides."""
    flags.DEFINE_string("run_dir", None, "Folder for everything this run makes.", required=True)
    flags.DEFINE_integer("seed", 0, seed, lower_bound=0)
    flags.DEFINE_enum("prompts", "full", PROMPT_SETS, "Wording of the players' prompts.")
    flags.DEFINE_integer("actor_tokens", 1024, "Most tokens of a solution.", lower_bound=1)
    flags.DEFINE_integer("critic_tokens", 1536, "Most tokens of a critique.", lower_bound=1)


def define_task_flags() -> None:
    """Defines where `jaxcritique.tasks.load_problems` finds problems."""
    flags.DEFINE_enum("task", "word_problems", TASKS, "Where problems come from.")
    flags.DEFINE_string(
        "data_dir", None, "Folder with gsm8k/ and math/ (JSONL), or 'hub' to download them."
    )


def define_training_flags() -> None:
    """Defines what actors are fine-tuned on (equation 2), and how."""
    flags.DEFINE_integer("train_problems", 0, "Size of D_reason; 0: all of a file.", lower_bound=0)
    flags.DEFINE_integer("refine_examples", 8000, "Size of D_refine (paper: 8,000).", lower_bound=0)
    flags.DEFINE_float("beta", 1.0, "Weight of D_refine in equation 2.", lower_bound=0.0)
    flags.DEFINE_float(
        "learning_rate", 2e-5, "Peak; cosine to zero (paper: 2e-5, released code: 5e-6).",
        lower_bound=0.0,
    )  # fmt: skip
    flags.DEFINE_integer("epochs", 1, "Of the actor's fine-tuning.", lower_bound=1)
    flags.DEFINE_integer("rows", 32, "Packed rows in a training step.", lower_bound=1)
    flags.DEFINE_integer(
        "micro_rows", 4, "Rows worked on at a time; at least one a device.", lower_bound=1
    )
    flags.DEFINE_integer("sequence", 4096, "Tokens in a packed row.", lower_bound=16)
    flags.register_validator(
        "micro_rows",
        lambda micro_rows: FLAGS.rows % micro_rows == 0,
        message="--micro_rows must divide --rows.",
    )


def sft_config(epochs: int | None = None) -> SftConfig:
    """Returns how a player is fine-tuned, by the flags; epochs are --epochs unless given."""
    return SftConfig(
        learning_rate=FLAGS.learning_rate,
        epochs=epochs or FLAGS.epochs,
        rows=FLAGS.rows,
        sequence=FLAGS.sequence,
        micro_rows=FLAGS.micro_rows,
    )


def refine_set(problems: Sequence[Problem], annotator: ArithmeticAnnotator) -> list[Refinement]:
    """Returns D_refine, as large as the flags say, or as far as mistakes can be made."""
    found = made_refinements(problems, annotator, FLAGS.refine_examples, FLAGS.seed)
    if len(found) < FLAGS.refine_examples:
        logging.warning("D_refine has %d examples: no more mistakes could be made.", len(found))
    return found


def define_difficulty_flags(samples: int, of: str) -> None:
    """Defines how problems are rated: by default by so many samples, of the model `of`."""
    flags.DEFINE_integer(
        "difficulty_samples",
        samples,
        f"Samples of {of} a problem, used for nothing else, that tell its difficulty (paper: 100). "
        "0: the levels are those of the data.",
        lower_bound=0,
    )
    flags.DEFINE_enum(
        "difficulty",
        EDGES[0],
        EDGES,
        "Levels by fifths of 0 to 100% right samples, or with a fifth of the problems each.",
    )


def define_tau() -> None:
    """Defines the soft filter's threshold."""
    flags.DEFINE_float(
        "tau",
        0.3,
        "Soft filter: a critique is kept if more than this share of refinements after it are right "
        "(paper: 0.3).",
    )


def tau() -> float:
    """Reads --tau.

    Raises:
      ValueError: nothing could pass.
    """
    if not 0 <= FLAGS.tau < 1:
        raise ValueError(
            f"--tau={FLAGS.tau}: more than that share must be right; give 0 to less than 1."
        )
    return FLAGS.tau


def levels_by() -> str:
    """Says in words what tells a problem's difficulty, by the flags."""
    if not FLAGS.difficulty_samples:
        return "the data"
    return f"{FLAGS.difficulty_samples} samples, {FLAGS.difficulty}"


def ks() -> list[int]:
    """Reads --k, in order.

    Raises:
      ValueError: it is no list of positive numbers.
    """
    try:
        found = sorted({int(k) for k in FLAGS.k})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise ValueError(f"--k={','.join(FLAGS.k)}: give whole numbers from 1, such as 1,2,4,8.")
    return found


def shown(folder: pathlib.Path) -> str:
    """Names a folder of this run by its path within it, another by its whole path."""
    run_dir = pathlib.Path(FLAGS.run_dir)
    return str(folder.relative_to(run_dir) if folder.is_relative_to(run_dir) else folder)


def game(grader: Grader) -> Game:
    """Returns the game of the run folder, by the flags."""
    return Game(
        store=Store(pathlib.Path(FLAGS.run_dir)),
        grader=grader,
        prompts=PROMPT_SETS[FLAGS.prompts],
        seed=FLAGS.seed,
        actor_tokens=FLAGS.actor_tokens,
        critic_tokens=FLAGS.critic_tokens,
    )


def checker(problems: Sequence[Problem]) -> ArithmeticAnnotator | None:
    """Returns the program that checks calculations, for problems most of which have them."""
    with_marks = sum(bool(marks(problem.rationale)) for problem in problems)
    if 2 * with_marks < len(problems):
        return None
    return ArithmeticAnnotator(one_plan=problems[0].task == "word_problems")


def refuse_without_calculations(problems: Sequence[Problem]) -> None:
    """Raises ValueError where the checker cannot be the critic."""
    if checker(problems) is None:
        raise ValueError(
            f"--critic={CHECKER} works out calculations (<<1+2=3>>), which most of these problems' "
            "solutions do not have. Name a model's folder."
        )


def annotator(problems: Sequence[Problem]) -> ArithmeticAnnotator:
    """Returns the checker, where the program cannot do without.

    Raises:
      ValueError: most of the problems' annotated solutions have no calculations to check.
    """
    found = checker(problems)
    if found is None:
        raise ValueError(
            f"--task={FLAGS.task}: the annotator checks calculations (<<1+2=3>>), which most of "
            "these annotated solutions do not have. Use word_problems or gsm8k."
        )
    return found


def model(flag: str, folder: str) -> ModelFolder:
    """Returns the model in the folder that a flag names.

    Raises:
      ValueError: there is none that can be used.
    """
    try:
        return ModelFolder.of(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"--{flag}={folder}: {error}") from None


def critic(model: ModelFolder | None, engine: Engine) -> Critic:
    """Returns a critic: a model, or (None) the program that checks calculations."""
    if model is None:
        return _check
    sampler = engine.sampler(model)

    def criticise_once(
        game: Game,
        name: str,
        solutions: Sequence[Solution],
        temperature: float,
        prefixes: Sequence[str] = (),
    ) -> Dataset[Critique]:
        return criticise(game, name, sampler, solutions, 1, temperature, prefixes)

    return criticise_once


def no_critic(
    game: Game,
    name: str,
    solutions: Sequence[Solution],
    temperature: float,
    prefixes: Sequence[str] = (),
) -> Dataset[Critique]:
    """The critic of an actor who corrects itself: says nothing, and costs nothing."""

    def make(stage: Stage) -> tuple[list[Critique], dict[str, int]]:
        return [no_critique(solution) for solution in solutions], dict.fromkeys(COSTS, 0)

    return game.store.dataset(name, Critique, SELF, digest(*solutions), make=make)


def _check(
    game: Game,
    name: str,
    solutions: Sequence[Solution],
    temperature: float,
    prefixes: Sequence[str] = (),
) -> Dataset[Critique]:
    """The program's critiques; what it cannot vouch for gets none, and has no verdict.

    It works out every step again, whatever it said of the first ones.
    """
    one_plan = bool(solutions) and solutions[0].problem.task == "word_problems"
    annotator = ArithmeticAnnotator(one_plan)

    def make(stage: Stage) -> tuple[list[Critique], dict[str, int]]:
        found = [annotator.annotate(s) or no_critique(s) for s in solutions]
        return found, dict.fromkeys(COSTS, 0)

    return game.store.dataset(name, Critique, annotator.key, digest(*solutions), make=make)
