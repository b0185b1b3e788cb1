"""The stage store: finished datasets, named by what they were made from.

A stage's folder is `stages/NAME-HASH`, the hash being of its configuration and of the stages it
reads. Its manifest is written last, after the data, so a folder without one was never finished.
Running a program again therefore redoes only what is missing, and where a number came from can be
read off the folder.
"""

import contextlib
import dataclasses
import glob
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TextIO, TypeVar

from jaxcritique.errors import InvalidInput
from jaxcritique.records import digest, from_json, to_json

T = TypeVar("T")
_MANIFEST = "manifest.json"
_REDO = "Delete the file, and the same command makes anew what it held."


class DamagedFile(InvalidInput):
    """A file of a run folder is not what was written there; it is named, and what to do."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A named step of an experiment, identified by all inputs that decide its outcome."""

    path: pathlib.Path | None  # Its folder; None: a stage in memory.
    key: str  # The hash of its inputs; stages that read this one hash it.

    @property
    def folder(self) -> pathlib.Path:
        """The stage's folder.

        Raises:
          ValueError: the stage is in memory.
        """
        if self.path is None:
            raise ValueError("a stage in memory has no folder; give the store a run folder.")
        return self.path

    @property
    def finished(self) -> bool:
        """Whether the stage's manifest, written last, is there."""
        return self.path is not None and (self.path / _MANIFEST).is_file()

    @property
    def manifest(self) -> dict[str, Any]:
        """What `finish` wrote.

        Raises:
          DamagedFile: it is no JSON object.
        """
        return read_object(self.folder / _MANIFEST)

    def finish(self, **facts: Any) -> None:
        """Marks the stage finished; `facts` (row counts, hashes, times) go into its manifest."""
        write_atomically(self.folder / _MANIFEST, json.dumps(facts, indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class Dataset(Generic[T]):
    """A finished stage's records, and what its manifest says beside them (token counts, ...)."""

    key: str
    records: Sequence[T]
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[T]:
        return iter(self.records)


class Store:
    """The stages of one run folder, or of none: then nothing is kept."""

    def __init__(self, run_dir: str | os.PathLike[str] | None):
        """Writes stages to `run_dir/stages`, which is made when first needed; None: to nowhere."""
        self.run_dir = None if run_dir is None else pathlib.Path(run_dir)

    def stage(self, name: str, *inputs: Any) -> Stage:
        """Names the stage that `inputs` (configuration, keys of other stages) define."""
        key = digest(name, *inputs)
        if self.run_dir is None:
            return Stage(None, key)
        folder = self.run_dir / "stages" / f"{name.replace('/', '-')}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        return Stage(folder, key)

    def dataset(
        self,
        name: str,
        cls: type[T],
        *inputs: Any,
        make: Callable[[Stage], tuple[Iterable[T], dict[str, Any]]],
    ) -> Dataset[T]:
        """Returns the records of a stage, calling `make` only if it was never finished.

        A finished stage whose records were deleted is made anew.

        Args:
          name: of the stage.
          cls: the class of its records.
          *inputs: all that decides the outcome.
          make: given the stage, returns its records and facts worth keeping beside them.

        Raises:
          DamagedFile: what is stored is not what was written.
        """
        stage = self.stage(name, *inputs)
        if stage.path is None:
            made, facts = make(stage)
            records = list(made)
            return Dataset(stage.key, records, {"rows": len(records), **facts})
        path = stage.path / "records.jsonl"
        if stage.finished and path.is_file():
            manifest = stage.manifest
            rows = read_rows(path, manifest.get("sha256"))
            return Dataset(stage.key, [from_json(cls, row) for row in rows], manifest)
        made, facts = make(stage)
        records = list(made)
        sha256 = write_rows(path, map(to_json, records))
        stage.finish(rows=len(records), sha256=sha256, **facts)
        return Dataset(stage.key, records, stage.manifest)


def write_rows(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Writes JSON lines, whole or not at all; returns their sha256, for a manifest."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_jsonl(
    path: pathlib.Path,
    convert: Callable[[dict[str, Any]], T],
    remedy: str = "Mend or remove this line.",
    unread: list[str] | None = None,
) -> Iterator[tuple[int, T]]:
    """Reads a JSONL file of objects, line by line; blank lines are skipped.

    Args:
      path: the file, in UTF-8.
      convert: makes a record of an object; `dict` leaves it as it is. A ValueError that it raises
        is reported with file and line.
      remedy: what to do about a line that cannot be used; it ends the message.
      unread: if given, such lines are left out, and their messages appended to it.

    Yields:
      The line's number, counted from 1, and the record.

    Raises:
      FileNotFoundError: there is no such file.
      InvalidInput: a line is not a JSON object, or `convert` refuses it.
    """
    if not path.is_file():
        what = "a folder; name a file of rows" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}.")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.rstrip().decode("utf-8-sig"))
                if not isinstance(row, dict):
                    raise ValueError("not a JSON object")
                record = convert(row)
            except (ValueError, RecursionError) as error:
                why = str(error)
                if isinstance(error, json.JSONDecodeError):
                    why = f"not JSON (column {error.colno}: {error.msg})"
                elif isinstance(error, UnicodeDecodeError):
                    why = f"not JSON (column {error.start + 1}: not UTF-8)"
                elif isinstance(error, RecursionError):
                    why = "not JSON (nested too deeply)"
                message = f"{path}:{number}: {why.rstrip('.')}. {remedy}"
                if unread is None:
                    raise InvalidInput(message) from error
                unread.append(message)
                continue
            yield number, record


def read_rows(path: pathlib.Path, sha256: str | None) -> list[dict[str, Any]]:
    """Reads what `write_rows` wrote.

    Args:
      path: of the file.
      sha256: as its manifest has it; None where that has none.

    Raises:
      DamagedFile: the file is not the one that the manifest describes; its first line that is not
        JSON is named, where there is one.
    """
    with path.open("rb") as file:
        intact = hashlib.file_digest(file, "sha256").hexdigest() == sha256
    try:
        rows = [row for _, row in read_jsonl(path, dict, _REDO)]
    except InvalidInput as error:
        raise DamagedFile(str(error)) from None
    if not intact:
        raise DamagedFile(f"{path} is not what its manifest says. {_REDO}")
    return rows


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object that stands alone in a file, such as a manifest.

    Raises:
      DamagedFile: it is none.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DamagedFile(f"{path} is not a JSON object. {_REDO}")
    return found


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file so that a kill at any moment leaves the old one or the new one."""
    with replace_file(path) as file:
        file.write(text)


@contextlib.contextmanager
def replace_file(path: pathlib.Path) -> Iterator[TextIO]:
    """Yields a stream whose text takes the place of the file `path` once the block ends well.

    A missing folder is made, a link is followed, and what is no file (a device, a pipe) is written
    to as it is.

    Raises:
      OSError: `path` is a folder, or nothing can be written there.
    """
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Drawn, since hosts that share the folder may have processes of the same number.
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}-{path.name}")
    try:
        file = temporary.open("w", encoding="utf-8", newline="")
    except OSError as error:  # Named by the file that was asked for.
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that takes the place of `folder` once the block ends well.

    One writer at a time: what an earlier one left behind, being killed, is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".tmp-{folder.name}-"
    for left in folder.parent.glob(f"{glob.escape(prefix)}*"):
        shutil.rmtree(left, ignore_errors=True)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=prefix))
    aside = temporary.with_name(f"{temporary.name}-old")
    try:
        yield temporary
        temporary.chmod(0o755)
        if folder.exists():  # It goes whole: a kill must not leave half of it.
            os.replace(folder, aside)
        os.replace(temporary, folder)
    finally:
        if aside.exists() and not folder.exists():
            os.replace(aside, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
