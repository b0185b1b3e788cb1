"""What a task is, and the registry of all tasks.

A task is one file: a module of this folder, or of a user's own, that ends with
`register(GeneratedTask(...))` or `register(FileTask(...))`.
"""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from absl import logging

from jaxcritique.errors import InvalidInput
from jaxcritique.records import Problem
from jaxcritique.store import read_jsonl

Split = Literal["train", "test"]
MAX_UNREAD = 0.01  # Of a file's rows: with more it is taken for the wrong file, and refused.
TASKS: dict[str, "Task"] = {}  # By name.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A source of problems, with all that the rest of the code knows of them.

    Attributes:
      name: as `task` of a config and of every problem names it.
      answer_form: the last line of a solution, as prompts show it; "N" stands for the answer.
      licence: of the problems, by its identifier on the Hugging Face hub; for dataset cards.
      checkable: whether the reference solutions mark their calculations (<<1+2=3>>), so that a
        program can check solutions and insert mistakes.
      one_plan: whether the reference's calculations are the only right ones, so that a program may
        call every other calculation wrong.
    """

    name: str
    answer_form: str = "The answer is N."
    licence: str
    checkable: bool = False
    one_plan: bool = False

    @abc.abstractmethod
    def load(self, split: Split, data_dir: str | None, count: int, seed: int) -> list[Problem]:
        """Returns problems; see `load_problems`."""

    def check(self, problem: Problem) -> Problem:
        """Returns a problem of this task.

        Raises:
          ValueError: it is none: a field is not text or blank, or names another task.
        """
        fields = vars(problem)
        for name in ("id", "question", "answer"):
            text_field(fields, name)
        if problem.task != self.name or not isinstance(problem.rationale, str):
            name = "rationale" if problem.task == self.name else "task"
            raise ValueError(f"its {name!r} is {fields[name]!r}")
        return problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratedTask(Task):
    """A task whose problems a program generates.

    Attributes:
      generate: given split, count and seed, returns `count` different problems; those of "test"
        must not occur in "train", whatever the seeds.
    """

    generate: Callable[[Split, int, int], list[Problem]]

    def load(self, split: Split, data_dir: str | None, count: int, seed: int) -> list[Problem]:
        """Generates problems; `data_dir` is not used."""
        if not count:
            raise InvalidInput(
                f"`{split}_problems=0`: {self.name} is generated; say how many, at least 1."
            )
        where = f"`task={self.name}`, {split} problems"
        problems = self.generate(split, count, seed)
        if len(problems) != count:
            raise InvalidInput(f"{where}: {len(problems)} were generated where {count} are wanted.")
        for number, problem in enumerate(problems):
            try:
                self.check(problem)
            except ValueError as error:
                raise InvalidInput(f"{where}: number {number}, {problem.id!r}: {error}.") from None
        refuse_doubles(where, problems)
        return problems


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileTask(Task):
    """A task that was published as rows.

    Attributes:
      files: of each split, its JSONL file within `data_dir`.
      hub: of each split, the dataset's name, configuration and split on the Hugging Face hub.
      column: of a row, holds the question; rows with it are taken for this task's where a file
        does not say.
      convert: makes a problem of a row; None leaves the row out. A KeyError or ValueError that it
        raises is reported with file and line.
    """

    files: Mapping[Split, str]
    hub: Mapping[Split, tuple[str, str | None, str]] = dataclasses.field(default_factory=dict)
    column: str
    convert: Callable[[dict[str, Any]], Problem | None]

    def load(self, split: Split, data_dir: str | None, count: int, seed: int) -> list[Problem]:
        """Reads the first `count` problems of a split; `seed` is not used."""
        if not data_dir:
            raise InvalidInput(
                f"`task={self.name}` needs `data_dir`: a folder that holds {self.files[split]}, or "
                "'hub' to download the data with `datasets` (pip install 'jaxcritique[hub]')."
            )
        unread: list[str] = []
        rows = list(self._rows(split, data_dir, unread))
        problems = [problem for problem in rows if problem is not None]
        where = f"`data_dir={data_dir}`: the {split} split of {self.name}"
        if len(unread) > MAX_UNREAD * len(rows):
            others = f" ({len(unread)} rows cannot be read)" if len(unread) > 1 else ""
            raise InvalidInput(unread[0] + others)
        for message in unread[:3]:
            logging.warning("%s", message)
        if unread:
            logging.warning("%s: %d rows cannot be read and are left out", where, len(unread))
        if len(problems) < len(rows):
            left_out = len(rows) - len(problems)
            logging.warning("%s: %d rows without an answer are left out", where, left_out)
        if not problems:
            raise InvalidInput(f"{where} is empty; give data with problems.")
        if count > len(problems):
            raise InvalidInput(f"{where} has {len(problems)} problems; {count} were asked for.")
        problems = problems[: count or None]
        refuse_doubles(where, problems)
        return problems

    def _rows(self, split: Split, data_dir: str, unread: list[str]) -> Iterator[Problem | None]:
        if data_dir == "hub":
            yield from self._download(split, unread)
            return
        path = pathlib.Path(data_dir) / self.files[split]
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; `data_dir` must name the folder above {self.files[split]}."
            )
        yield from (problem for _, problem in read_jsonl(path, self.read, unread=unread))

    def read(self, row: dict[str, Any]) -> Problem | None:
        """Returns the checked problem of a row; None leaves it out.

        Raises:
          ValueError: the row cannot be used.
        """
        try:
            problem = self.convert(row)
        except KeyError as error:
            raise ValueError(f"the row has no {error}") from error
        return None if problem is None else self.check(problem)

    def _download(self, split: Split, unread: list[str]) -> Iterator[Problem | None]:
        if split not in self.hub:
            raise InvalidInput(
                f"`data_dir=hub`: {self.name} is not there; name the folder above "
                f"{self.files[split]}."
            )
        try:
            import datasets
        except ImportError as error:
            raise ImportError(
                f"{error}: `data_dir=hub` needs pip install 'jaxcritique[hub]'."
            ) from error
        name, config, hub_split = self.hub[split]
        for number, row in enumerate(datasets.load_dataset(name, config, split=hub_split)):
            try:
                yield self.read(dict(row))
            except ValueError as error:
                unread.append(f"{name}[{number}]: {error}.")


def register(task: Task) -> Task:
    """Makes a task known by its name; registering it again, as a reload does, replaces it."""
    TASKS[task.name] = task
    return task


def find_task(name: str) -> Task:
    """Returns the task of a name.

    Raises:
      InvalidInput: there is none.
    """
    if name not in TASKS:
        raise InvalidInput(f"`task={name}`: there are {', '.join(sorted(TASKS))}.")
    return TASKS[name]


def refuse_doubles(where: str, problems: Iterable[Problem]) -> None:
    """Raises InvalidInput where a problem occurs twice: scores are kept by problem."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InvalidInput(
                f"{where}: problem {problem.id} is there twice ({problem.question[:60]!r}); leave "
                "it once."
            )
        seen.add(problem.id)


def text_field(row: dict[str, Any], name: str) -> str:
    """Returns a field of a row, stripped.

    Raises:
      ValueError: it is not text, or blank.
    """
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its {name!r} is not text")
    if not value or not value.strip():
        raise ValueError(f"the row has no {name!r}")
    return value.strip()
