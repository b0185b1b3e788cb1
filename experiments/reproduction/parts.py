"""The parts of a reproduction: which program makes what, and out of which other parts.

A part's command is what a user could type. Where a flag has `{PART}` it is that part's run folder,
`{PART:MODEL}` the model that the part's results.json names so, and `{model}` the base.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from absl import flags

from experiments.reproduction.evidence import (
    CRITICS,
    CRITICS_LARGE,
    CRITIQUE,
    EVALUATE,
    FILTERS,
    IMPROVE,
    IMPROVE_SMALL,
    SCALING,
    SELF_CORRECTION,
    SELF_TALK,
    TRAINED,
    UNTRAINED,
    VANILLA,
    Run,
    read_run,
)
from jaxcritique.store import read_object, write_atomically

BASE = "{model}"
_REFERENCE = re.compile(r"\{([\w-]+)(?::([^}]+))?\}")


@dataclasses.dataclass(frozen=True)
class Part:
    """One run of one program."""

    name: str  # Also its run folder's.
    program: str  # Of `experiments`.
    shows: str
    flags: tuple[str, ...] = ()  # How it is wired; the flagfile has the last word.
    critics: tuple[tuple[str, str], ...] = ()  # evaluate_critic: what each is here, and its folder.
    settings: str = ""  # Name of its flagfile, where that is not its own.
    trains: str = ""  # The flag that names what it fine-tunes, if it does.

    @property
    def flagfile(self) -> str:
        """The name of its flagfile, within the folder of settings."""
        return f"{self.settings or self.name}.flags"

    @property
    def needs(self) -> tuple[str, ...]:
        """The parts that it reads."""
        texts = (*self.flags, *(folder for _, folder in self.critics))
        found = [name for text in texts for name, _ in _REFERENCE.findall(text)]
        return tuple(dict.fromkeys(name for name in found if "{" + name + "}" != BASE))


def _evaluation(name: str, actor: str, shows: str, critic: str = "{improve:critic}") -> Part:
    flags = (f"--actor={{improve:{actor}}}", f"--critic={critic}")
    return Part(name, "evaluate", shows, flags, settings="combinations")


def _filtered(kind: str) -> Part:
    data = f"--data={{critiques}}/critic-{kind}.jsonl"
    shows = f"a critic of data under the filter '{kind}' (claim 14)"
    flags = (f"--model={BASE}", data)
    return Part(f"critic-{kind}", "sft", shows, flags, settings="critic", trains="model")


_ACTOR = "--actor={improve:sft actor}"
_QUESTIONS = "--data={critiques}/test_problems.jsonl"

PARTS = (
    Part(
        IMPROVE,
        "self_improve",
        "the players of all parts below; Figures 6 to 8 with the larger N, Table 4",
        (f"--model={BASE}",),
        trains="model",
    ),
    Part(
        IMPROVE_SMALL,
        "self_improve",
        "Figure 6 with the smaller N, of the same players",
        (f"--model={BASE}", "--actor={improve:sft actor}", "--critic={improve:critic}"),
        trains="model",
    ),
    Part(
        EVALUATE,
        "evaluate",
        "Figures 1, 5 and 10 to 12; the first rows of Table 3",
        (_ACTOR, "--critic={improve:critic}"),
    ),
    _evaluation(VANILLA, "vanilla actor", "Table 3: vanilla self-improvement"),
    _evaluation(CRITIQUE, "critique actor", "Table 3: critique-in-the-loop"),
    _evaluation(
        SELF_CORRECTION, "self_correction actor", "Table 3: self-correction", critic="self"
    ),
    Part(
        "critiques",
        "build_critiques",
        "Table 1; the data of the three critics below",
        (_ACTOR, "--annotator={improve:critic}"),
    ),
    Part(
        CRITICS,
        "evaluate_critic",
        "Table 2",
        (_ACTOR, _QUESTIONS),
        critics=((UNTRAINED, BASE), (TRAINED, "{improve:critic}")),
    ),
    *map(_filtered, ("none", "soft", "hard")),
    Part(
        FILTERS,
        "evaluate_critic",
        "claim 14",
        (_ACTOR, _QUESTIONS),
        critics=tuple((kind, f"{{critic-{kind}}}/model") for kind in ("none", "soft", "hard")),
        settings=CRITICS,
    ),
    Part(
        "critic-large",
        "sft",
        "a larger critic, of the same data",
        (f"--model={BASE}", "--data={critiques}/critic.jsonl"),
        trains="model",
    ),
    Part(
        CRITICS_LARGE,
        "evaluate_critic",
        "Table 2, the larger critic",
        (_ACTOR, _QUESTIONS),
        critics=(("trained, larger", "{critic-large}/model"),),
    ),
    Part(
        SCALING,
        "scaling",
        "Figure 9",
        ("--critic={improve:critic}",),
        trains="actor_base",
    ),
    Part(
        SELF_TALK,
        "self_talk",
        "Table 5",
        (f"--model={BASE}", _ACTOR, "--critic={improve:critic}"),
        trains="model",
    ),
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A reproduction: where it runs and with which settings."""

    run_dir: pathlib.Path
    settings: pathlib.Path  # Folder of the parts' flagfiles.
    model: str  # The base of all players.

    @property
    def parts(self) -> list[Part]:
        """The parts that have a flagfile among the settings.

        Raises:
          ValueError: there is none, or a part lacks what it reads.
        """
        found = [part for part in PARTS if (self.settings / part.flagfile).is_file()]
        if not found:
            raise ValueError(
                f"--settings={self.settings}: no flagfile of a part; they are called "
                f"{', '.join(dict.fromkeys(part.flagfile for part in PARTS))}."
            )
        names = {part.name for part in found}
        for part in found:
            if missing := [name for name in part.needs if name not in names]:
                raise ValueError(
                    f"--settings={self.settings}: {part.name} reads {missing[0]}, "
                    f"which has no flagfile there."
                )
        return found

    def folder(self, seed: int, name: str) -> pathlib.Path:
        """A part's run folder."""
        return self.run_dir / f"seed-{seed}" / name

    def command(self, part: Part, seed: int, shown: bool = False) -> list[str]:
        """Returns a part's command, beginning with "python".

        Args:
          part: of this plan.
          seed: of the run.
          shown: for people, before the parts that it reads have run: what is not known yet stays
            as the plan has it.

        Raises:
          ValueError: a part that it reads has not come to its results, or has no such model.
        """
        resolve = self._resolver(seed, shown)
        critics = [f"--critic={folder}" for _, folder in part.critics]
        return [
            *("python", "-m", f"experiments.{part.program}"),
            *dict.fromkeys(resolve(flag) for flag in (*part.flags, *critics)),
            f"--flagfile={self.settings / part.flagfile}",
            f"--seed={seed}",
            f"--run_dir={self.folder(seed, part.name)}",
        ]

    def _resolver(self, seed: int, shown: bool) -> Callable[[str], str]:
        def value(match: re.Match[str]) -> str:
            name, model = match.groups()
            if match.group() == BASE:
                return self.model
            folder = self.folder(seed, name)
            if model is None:
                return str(folder)
            path = folder / "results.json"
            if not path.is_file():
                if shown:
                    return match.group()
                raise ValueError(f"{name} has not come to its results ({path}).")
            models = read_object(path).get("models", {})
            if model not in models:
                if shown:
                    return match.group()
                raise ValueError(f"{path} names no model {model!r}, only {', '.join(models)}.")
            # A model of the part's own is given by its path within the part's folder.
            within = folder / models[model]
            return str(within if within.is_dir() else models[model])

        return lambda text: _REFERENCE.sub(value, text)

    # ---- what has been done

    def done(self, part: Part, seed: int) -> bool:
        """Whether the part has come to its results by this very command, settings and inputs."""
        folder = self.folder(seed, part.name)
        if not (folder / "results.json").is_file():
            return False
        if not all(self.done(self.named(name), seed) for name in part.needs):
            return False
        record = self.record(part, seed)
        try:
            wanted = self.identity(part, seed)
        except ValueError:  # What it reads lacks the model that it needs.
            return False
        return _same(record, wanted) and not record.get("failed")

    def named(self, name: str) -> Part:
        """The part of this name."""
        return next(part for part in PARTS if part.name == name)

    def identity(self, part: Part, seed: int) -> dict[str, Any]:
        """What decides a part's outcome; the parts that it reads must have come to results."""
        inputs = {name: _outcome(self.folder(seed, name) / "results.json") for name in part.needs}
        settings = read_flagfile(self.settings / part.flagfile)
        return {
            "command": shlex.join(self.command(part, seed)),
            "settings": settings,
            "inputs": inputs,
        }

    def record(self, part: Part, seed: int) -> dict[str, Any]:
        """What was last noted of the part: `identity`, seconds, whether it failed or still runs."""
        path = self._record_path(part, seed)
        return read_object(path) if path.is_file() else {}

    def note(
        self,
        part: Part,
        seed: int,
        identity: Mapping[str, Any],
        seconds: float,
        failed: bool = False,
    ) -> None:
        """Notes that the part ended after so many seconds, or came so far.

        Those of earlier starts of the same command, settings and inputs are added.
        """
        before = self.record(part, seed)
        if _same(before, identity):
            seconds += before["seconds"]
        text = json.dumps({**identity, "seconds": seconds, "failed": failed}, indent=2)
        write_atomically(self._record_path(part, seed), f"{text}\n")

    def adopt(self, part: Part, seed: int) -> None:
        """Notes a part that somebody has run by its command, on many hosts or on one.

        Its flagfile is taken to be what it was then, or when we last failed to run it.
        """
        path, noted = self.folder(seed, part.name) / "results.json", self._record_path(part, seed)
        if not path.is_file():
            return
        results, record = read_object(path), self.record(part, seed)
        ran = [flag for flag in shlex.split(results.get("command", "")) if flag != "--distributed"]
        try:
            identity = self.identity(part, seed)
        except (ValueError, FileNotFoundError):  # What it reads is not there.
            return
        if record:
            since = record.get("failed") and path.stat().st_mtime > noted.stat().st_mtime
            if not (since and _same(record, identity)):
                return
        if shlex.join(ran) == identity["command"]:
            self.note(part, seed, identity, results.get("wall_seconds", 0.0))

    def log(self, part: Part, seed: int) -> pathlib.Path:
        """Where the part's output goes."""
        return self.run_dir / f"seed-{seed}" / f"{part.name}.log"

    def cost(self, part: Part, seed: int) -> dict[str, int]:
        """What a part took, by what its stages noted: tokens, training steps, failed samples."""
        folder = self.folder(seed, part.name)
        notes = [*folder.glob("stages/*/manifest.json")]
        if part.program == "sft":
            notes.append(folder / "results.json")
        found = [read_object(path) for path in notes]
        return {
            "generated_tokens": sum(note.get("generated_tokens", 0) for note in found),
            "training_steps": sum(note.get("steps", 0) for note in found),
            "failed": sum(note.get("failed", 0) for note in found),
        }

    def _record_path(self, part: Part, seed: int) -> pathlib.Path:
        return self.run_dir / f"seed-{seed}" / f"{part.name}.json"

    def run(self, part: Part, seed: int) -> Run:
        """Reads what a part that is done left; its critics are called what they are here."""
        run = read_run(self.folder(seed, part.name))
        if not part.critics:
            return run
        resolve = self._resolver(seed, shown=False)
        roles: dict[str, str] = {}
        for role, folder in part.critics:
            # Where no critique could train a critic it is the base, and plays no part but that.
            roles.setdefault(resolve(folder), role)
        scores = [
            {**row, "method": roles[row["method"]]} for row in run.scores if row["method"] in roles
        ]
        return dataclasses.replace(run, scores=scores)


def _outcome(path: pathlib.Path) -> str:
    """Hashes what a results.json says, but for how long it took and in how much memory."""
    clocks = ("wall_seconds", "peak_rss_bytes", "seconds")
    found = {key: value for key, value in read_object(path).items() if key not in clocks}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _same(record: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Whether what was noted is of a part with this identity."""
    return all(record.get(key) == value for key, value in identity.items())


def seconds_left(
    took: Mapping[str, Sequence[float]],
    left: Sequence[str],
    running: Sequence[tuple[str, float]],
    jobs: int,
) -> float | None:
    """Estimates how long the rest takes from what is done.

    Args:
      took: by part, the seconds of each seed in which it is done.
      left: parts that have not begun, once for each seed.
      running: parts that have, and for how many seconds.
      jobs: parts that run at a time.

    Returns:
      Seconds; None where nothing is done yet and something is left.
    """
    if not took:
        return None if left or running else 0.0
    # A part that is done in no seed takes as long as those that are, on average.
    usual = fmean(fmean(seconds) for seconds in took.values())

    def whole(name: str) -> float:
        return fmean(took[name]) if name in took else usual

    rest = [max(whole(name) - seconds, 0.0) for name, seconds in running]
    return max((sum(map(whole, left)) + sum(rest)) / jobs, *rest, 0.0)


def read_flagfile(path: pathlib.Path) -> list[str]:
    """Returns the flags of a flagfile, those of the flagfiles that it names in their places.

    They are read as absl reads them: one that names itself, for instance, is left out there.

    Raises:
      ValueError: one of them cannot be read.
    """
    try:
        return flags.FlagValues().read_flags_from_files([f"--flagfile={path}"])
    except (flags.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None


def flag_values(given: Sequence[str], name: str) -> list[str]:
    """Returns all values that a flag is given, in order; of most flags the last one counts.

    Args:
      given: flags, in any of absl's forms: --name=value, -name=value, or the value as the next one.
      name: of a flag that is not boolean.
    """
    values = []
    rest = iter(given)
    for flag in rest:
        found, equals, value = flag.removeprefix("-").removeprefix("-").partition("=")
        if flag.startswith("-") and found == name:
            values.append(value if equals else next(rest, ""))
    return values
