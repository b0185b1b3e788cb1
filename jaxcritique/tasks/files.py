"""Reading rows of data, with errors that name file and line."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jaxcritique.records import Problem

T = TypeVar("T")


def read_problems(
    path: pathlib.Path, convert: Callable[[dict[str, Any]], Problem]
) -> list[Problem]:
    """Reads a JSONL file of problems, of a task's folder.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row is not JSON or `convert` refuses it; file and line are named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --data_dir must name the folder above it.")
    return read_as(path, convert)


def read_as(path: pathlib.Path, convert: Callable[[dict[str, Any]], T]) -> list[T]:
    """Reads a JSONL file, each row through `convert`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row is not JSON or `convert` refuses it; file and line are named.
    """
    return [_convert(f"{path}:{line}", row, convert) for line, row in read_rows(path)]


def first_row(path: pathlib.Path) -> dict[str, Any]:
    """Returns the first row of a JSONL file, by which its kind is known.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is empty, or its first row is not a JSON object.
    """
    for _, row in read_rows(path):
        return row
    raise ValueError(f"{path}: the file has no rows.")


def hub_problems(
    name: str, config: str | None, split: str, convert: Callable[[dict[str, Any]], Problem]
) -> list[Problem]:
    """Downloads a dataset from the Hugging Face hub and converts its rows.

    Raises:
      ImportError: `datasets` is not installed; the message says how.
      ValueError: a row is not usable; it is named by its number.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{error}: --data_dir=hub needs pip install -e '.[hub]'.") from error

    rows = datasets.load_dataset(name, config, split=split)
    return [_convert(f"{name}[{i}]", dict(row), convert) for i, row in enumerate(rows)]


def read_rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields line number and row of a JSONL file of objects; blank lines are passed over.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is not JSON or no object; file and line are named.
    """
    if not path.is_file():
        what = "a folder; name a file of rows" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}.")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: not JSON (column {error.colno}: {error.msg}); mend or "
                    "remove this row."
                ) from None
            except ValueError as error:  # Not UTF-8, or a number of thousands of digits.
                raise ValueError(f"{path}:{number}: not JSON ({error}).") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: not a JSON object.")
            yield number, row


def text_field(row: dict[str, Any], name: str) -> str:
    """Returns a field that must be text and not blank, or raises ValueError."""
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its {name!r} is not text")
    if not value or not value.strip():
        raise ValueError(f"the row has no {name!r}")
    return value.strip()


def _convert(where: str, row: dict[str, Any], convert: Callable[[dict[str, Any]], T]) -> T:
    try:
        return convert(row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; mend or remove this row.") from None
