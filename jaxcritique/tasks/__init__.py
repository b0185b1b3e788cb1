"""Where problems come from: GSM8K, MATH, and the generated stories of the laptop default."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any, Literal

from jaxcritique.config import Config, setting
from jaxcritique.records import Problem, from_json
from jaxcritique.store import read_jsonl
from jaxcritique.tasks import gsm8k, hendrycks_math, word_problems
from jaxcritique.tasks.files import text_field

TASKS = ("word_problems", "gsm8k", "math")
TINY_BASE = pathlib.Path(__file__).parent / "tiny_base"  # The laptop default's model folder.
TEST_SEED = 1_000_003  # Generated test problems are the same for every seed and experiment.


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """Where problems come from."""

    task: str = setting("word_problems", "The task.", choices=TASKS)
    data_dir: str | None = setting(
        None, "Folder with the task's files (JSONL), or 'hub' to download them."
    )
    test_problems: int = setting(0, "Problems evaluated on; 0: all.", low=0)

    def load_train(self, count: int, seed: int) -> list[Problem]:
        """Returns training problems; see `load_problems`."""
        return load_problems(self.task, self.data_dir, "train", count, seed)

    def load_test(self) -> list[Problem]:
        """Returns the problems evaluated on; see `load_problems`."""
        return load_problems(self.task, self.data_dir, "test", self.test_problems, TEST_SEED)


def load_problems(
    task: str, data_dir: str | None, split: Literal["train", "test"], count: int, seed: int
) -> list[Problem]:
    """Returns `count` problems of a task (the first ones of a file, or generated from `seed`).

    Args:
      task: one of TASKS.
      data_dir: folder with `gsm8k/` and `math/`, or "hub" to download with `datasets`.
      split: of the task.
      count: how many; 0 takes all a file has.
      seed: decides the generated stories; files are read in their order.

    Raises:
      ValueError: the task is unknown, the data has fewer problems or one twice, or a row is not
        usable.
      FileNotFoundError: there is no data in `data_dir`.
    """
    if task == "word_problems":
        if not count:
            raise ValueError(f"--{split}_problems: say how many stories to generate, at least 1.")
        return word_problems.generate(split, count, seed)
    if task not in TASKS:
        raise ValueError(f"`task={task}`: there are {', '.join(TASKS)}.")
    if not data_dir:
        file = hendrycks_math.FILES[split] if task == "math" else f"{split}.jsonl"
        raise ValueError(
            f"`task={task}` needs --data_dir: a folder that holds {task}/{file}, "
            "or 'hub' to download the data with `datasets` (pip install 'jaxcritique[hub]')."
        )
    loader = gsm8k if task == "gsm8k" else hendrycks_math
    problems = loader.load(split, data_dir)
    if not problems:
        raise ValueError(
            f"`data_dir={data_dir}`: the {split} split of {task} is empty; give data with problems."
        )
    if count > len(problems):
        raise ValueError(
            f"{count} {split} problems are asked for, but {data_dir} has {len(problems)} of {task}."
        )
    wanted = problems[: count or None]
    refuse_doubles(f"`data_dir={data_dir}`: the {split} split of {task}", wanted)
    return wanted


def refuse_doubles(where: str, problems: Iterable[Problem]) -> None:
    """Raises ValueError where a problem is there twice: scores are kept by problem."""
    first: dict[str, Problem] = {}
    for problem in problems:
        if first.setdefault(problem.id, problem) is not problem:
            raise ValueError(
                f"{where}: problem {problem.id} is there twice ({problem.question[:60]!r}); leave "
                "it once."
            )


def read_any_problems(path: pathlib.Path) -> list[Problem]:
    """Reads a JSONL file of problems: GSM8K's rows, MATH's, or this project's own.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row is none of these; file and line are named.
    """
    return [problem for _, problem in read_jsonl(path, _any_problem)]


def _any_problem(row: dict[str, Any]) -> Problem:
    if "rationale" in row:
        problem = from_json(Problem, row)
        for name in ("id", "question", "answer", "rationale"):
            text_field(row, name)
        if problem.task not in TASKS:
            raise ValueError(f"its 'task' is none of {', '.join(TASKS)}")
        if problem.level is not None and type(problem.level) is not int:
            raise ValueError("its 'level' is neither a whole number nor null")
        return problem
    if "question" in row:
        return gsm8k.problem(row)
    if "problem" in row:
        return hendrycks_math.problem(row)
    raise ValueError(
        "the row is no problem: it has neither 'question' and 'answer' nor 'problem' and 'solution'"
    )
