"""Where problems come from. Each task is one module of this folder; see `task`."""

import dataclasses
import importlib
import pathlib
import pkgutil
from typing import Any

from jaxcritique.config import Config, setting
from jaxcritique.records import Problem, from_json
from jaxcritique.store import read_jsonl
from jaxcritique.tasks.task import (
    TASKS,
    FileTask,
    GeneratedTask,
    Split,
    find_task,
    register,
    text_field,
)

__all__ = [
    "TASKS",
    "TEST_SEED",
    "TINY_BASE",
    "FileTask",
    "GeneratedTask",
    "Split",
    "TaskConfig",
    "find_task",
    "load_problems",
    "read_any_problems",
    "register",
]
TINY_BASE = pathlib.Path(__file__).parent / "tiny_base"  # The laptop default's model folder.
TEST_SEED = 1_000_003  # Generated test problems are the same for every seed and experiment.

for _module in pkgutil.iter_modules(__path__):  # Each registers its tasks.
    importlib.import_module(f"{__name__}.{_module.name}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """Where problems come from."""

    task: str = setting("word_problems", f"The task, such as {', '.join(sorted(TASKS))}.")
    data_dir: str | None = setting(
        None, "Folder with the task's files (JSONL), or 'hub' to download them."
    )
    test_problems: int = setting(0, "Problems evaluated on; 0: all.", low=0)

    def __post_init__(self) -> None:
        """Checks that the task is registered: at this moment, as users register their own."""
        super().__post_init__()
        find_task(self.task)

    def load_train(self, count: int, seed: int) -> list[Problem]:
        """Returns training problems; see `load_problems`."""
        return load_problems(self.task, self.data_dir, "train", count, seed)

    def load_test(self) -> list[Problem]:
        """Returns the problems evaluated on; see `load_problems`."""
        return load_problems(self.task, self.data_dir, "test", self.test_problems, TEST_SEED)

    def load_all_tests(self) -> list[Problem]:
        """Returns all test problems, also those that are not evaluated on.

        Of a generated task these are the ones evaluated on.
        """
        generated = isinstance(find_task(self.task), GeneratedTask)
        count = self.test_problems if generated else 0
        return load_problems(self.task, self.data_dir, "test", count, TEST_SEED)


def load_problems(
    task: str, data_dir: str | None, split: Split, count: int, seed: int
) -> list[Problem]:
    """Returns `count` problems of a task (the first ones of a file, or generated from `seed`).

    Args:
      task: one of `TASKS`.
      data_dir: folder with the task's files, or "hub" to download them with `datasets`; not used
        by generated tasks.
      split: of the task.
      count: how many; 0 takes all that a file has.
      seed: decides generated problems; files are read in their order.

    Raises:
      InvalidInput: the task is unknown, the data has fewer problems or one twice, or a row cannot
        be used.
      FileNotFoundError: there is no data in `data_dir`.
    """
    return find_task(task).load(split, data_dir, count, seed)


def read_any_problems(path: pathlib.Path) -> list[Problem]:
    """Reads a JSONL file of problems: rows of a published task, or this project's own records.

    Raises:
      FileNotFoundError: there is no such file.
      InvalidInput: a row is none of these, or of an unknown task; file and line are named.
    """
    problems = [problem for _, problem in read_jsonl(path, _any_problem)]
    return [problem for problem in problems if problem is not None]


def _any_problem(row: dict[str, Any]) -> Problem | None:
    if "rationale" in row:
        problem = from_json(Problem, row)
        for name in ("id", "question", "answer", "rationale"):
            text_field(row, name)
        if problem.task != "":  # A question that belongs to no task.
            find_task(text_field(row, "task"))
        if problem.level is not None and type(problem.level) is not int:
            raise ValueError("its 'level' is neither a whole number nor null")
        return problem
    published = [task for task in TASKS.values() if isinstance(task, FileTask)]
    for task in published:
        if task.column in row:
            return task.read(row)
    columns = " nor ".join(repr(task.column) for task in published)
    raise ValueError(f"the row is no problem: it has neither {columns}")
