"""Reading a task's rows, from files or the Hugging Face hub."""

import pathlib
from collections.abc import Callable
from typing import Any

from jaxcritique.errors import InvalidInput
from jaxcritique.records import Problem
from jaxcritique.store import read_jsonl


def read_problems(
    path: pathlib.Path, convert: Callable[[dict[str, Any]], Problem]
) -> list[Problem]:
    """Reads a JSONL file of problems, of a task's folder.

    Raises:
      FileNotFoundError: there is no such file.
      InvalidInput: a line is not a JSON object, or `convert` refuses it; file and line are named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `data_dir` must name the folder above it.")
    return [problem for _, problem in read_jsonl(path, convert)]


def first_row(path: pathlib.Path) -> dict[str, Any]:
    """Returns the first row of a JSONL file, by which its kind is known.

    Raises:
      FileNotFoundError: there is no such file.
      InvalidInput: it is empty, or its first row is not a JSON object.
    """
    for _, row in read_jsonl(path, dict):
        return row
    raise InvalidInput(f"{path}: the file has no rows.")


def hub_problems(
    name: str, config: str | None, split: str, convert: Callable[[dict[str, Any]], Problem]
) -> list[Problem]:
    """Downloads a dataset from the Hugging Face hub and converts its rows.

    Raises:
      ImportError: `datasets` is not installed; the message says how to install it.
      InvalidInput: `convert` refuses a row; it is named by its number.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{error}: `data_dir=hub` needs pip install 'jaxcritique[hub]'."
        ) from error

    problems = []
    for number, row in enumerate(datasets.load_dataset(name, config, split=split)):
        try:
            problems.append(convert(dict(row)))
        except ValueError as error:
            raise InvalidInput(f"{name}[{number}]: {error}.") from None
    return problems


def text_field(row: dict[str, Any], name: str) -> str:
    """Returns a field that must be text and not blank, or raises ValueError."""
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its {name!r} is not text")
    if not value or not value.strip():
        raise ValueError(f"the row has no {name!r}")
    return value.strip()
