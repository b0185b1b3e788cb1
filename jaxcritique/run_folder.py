"""The folder of a run: its lock, its settings, and what its results begin with."""

import dataclasses
import fcntl
import json
import os
import pathlib
import resource
import shlex
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from absl import logging

from jaxcritique.config import Config
from jaxcritique.errors import InvalidInput
from jaxcritique.store import read_object, write_atomically, write_rows

# Locks last as long as their files are open: until `release`, or the end of the process.
_HELD: dict[pathlib.Path, TextIO] = {}


def hold(run_dir: pathlib.Path, part: str = "") -> None:
    """Makes the folder, and locks it against other processes until `release`.

    The lock is the operating system's, so that none is left behind by a process that was killed.

    Args:
      run_dir: the folder.
      part: what of the folder's work is this process's, where several share it.

    Raises:
      InvalidInput: another process has it, or it is a file.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise InvalidInput(f"{run_dir} is a file; a folder is wanted.")
    run_dir.mkdir(parents=True, exist_ok=True)
    path = (run_dir / f".lock{part and '-'}{part}").resolve()
    held = _HELD.get(path)
    if held and path.exists() and os.path.samestat(path.stat(), os.fstat(held.fileno())):
        return  # Otherwise the folder was deleted, and its lock with it.
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise InvalidInput(
            f"{run_dir} is in use by {file.read() or 'another process'}. Wait until it has ended, "
            "or choose another folder."
        ) from None
    except OSError as error:  # Some network file systems have no locks.
        logging.warning(
            "%s cannot be locked (%s); let one program at a time use it", run_dir, error
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    _HELD[path] = file


def release(run_dir: pathlib.Path) -> None:
    """Unlocks what this process holds of a folder."""
    for path in [path for path in _HELD if path.parent == run_dir.resolve()]:
        _HELD.pop(path).close()


def claim(
    run_dir: pathlib.Path, experiment: str, settings: Mapping[str, Any], part: str = ""
) -> None:
    """Holds the folder (see `hold`), and marks it as this configuration's.

    Args:
      run_dir: the folder.
      experiment: the name of what runs in it.
      settings: all that decides the outcome. A key with a space describes the content of an
        input file and is shown without backticks.
      part: see `hold`.

    Raises:
      InvalidInput: another process has it, or it belongs to a run with another configuration.
    """
    hold(run_dir, part)
    path = run_dir / "settings.json"
    if path.is_file():
        theirs = read_object(path)
        if theirs.get("program", experiment) != experiment:
            raise InvalidInput(
                f"{run_dir} is the folder of another program ({theirs['program']}); choose another "
                "one."
            )
        settings = json.loads(json.dumps(settings))  # Tuples are lists there.
        # Settings are named before what is in their files.
        changed = sorted(
            (k for k in settings if theirs.get(k) != settings[k]), key=lambda k: (" " in k, k)
        )
        if changed:
            what = changed[0] if " " in changed[0] else f"`{changed[0]}`"
            raise InvalidInput(
                f"{run_dir} holds a run with another {what} "
                f"({theirs.get(changed[0])!r}, now {settings[changed[0]]!r}). "
                "Choose another folder, or delete this one."
            )
    else:
        write_atomically(path, json.dumps({"program": experiment, **settings}, indent=2) + "\n")


def command() -> str:
    """Returns the command that started this process; "" where it is not one of our programs."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is None or not main.name.startswith("experiments."):
        return ""
    return shlex.join(["python", "-m", main.name, *sys.argv[1:]])


def about_run(
    run_dir: pathlib.Path, config: Config, started: float, costs: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """Returns what `Results` begins with; warns where samples failed.

    Args:
      run_dir: of the run.
      config: all settings; one of them is `seed`.
      started: when the run began, by the monotonic clock.
      costs: `roles.COSTS` of every stage.
    """
    settings = config.to_json()
    failed = sum(cost["failed"] for cost in costs.values())
    if failed:
        logging.warning(
            "%d samples failed; they count as answers or critiques that cannot be parsed. "
            "Each stage's manifest.json, in stages/, says how many of its own.",
            failed,
        )
    return {
        "run_dir": run_dir,
        "command": command(),
        "seed": settings["seed"],
        "settings": settings,
        "wall_seconds": time.monotonic() - started,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "failed": failed,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """What an experiment found: the base of all results. The fields are the keys of results.json.

    `str` gives the tables, and where the rest is.
    """

    command: str
    seed: int
    settings: dict[str, Any]
    wall_seconds: float  # Of this start of the run.
    peak_rss_bytes: int  # Of the process.
    failed: int  # Samples that could not be had; they count as unparsable.
    run_dir: pathlib.Path  # Not in the file, which can be moved.

    @property
    def table(self) -> str:
        """The results as tables of text."""
        return ""

    @property
    def report(self) -> pathlib.Path:
        """The page about them, of experiments that make one."""
        return self.run_dir / "report.html"

    def to_json(self) -> dict[str, Any]:
        """Returns what results.json holds: all fields but `run_dir` and optional ones not set."""
        optional = {f.name for f in dataclasses.fields(self) if f.default is None}
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name != "run_dir" and not (value is None and name in optional)
        }

    def write(self, scores: Iterable[Mapping[str, Any]] = ()) -> None:
        """Writes results.json; before any page is rendered, which then cannot lose it.

        Args:
          scores: each problem's scores, for scores.jsonl; none: there is no such file.
        """
        if rows := list(scores):
            write_rows(self.run_dir / "scores.jsonl", rows)
        text = json.dumps(self.to_json(), indent=2) + "\n"
        write_atomically(self.run_dir / "results.json", text)

    def __str__(self) -> str:
        files = (self.run_dir / "results.json", self.report)
        return "\n\n".join([self.table, "\n".join(str(path) for path in files if path.is_file())])


def shown(folder: pathlib.Path, run_dir: pathlib.Path) -> str:
    """Names a folder of a run by its path within `run_dir`, another by its whole path."""
    return str(folder.relative_to(run_dir) if folder.is_relative_to(run_dir) else folder)
