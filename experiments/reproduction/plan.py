"""The plan of a reproduction: the command of each part, whether it is done, and its output."""

import dataclasses
import hashlib
import importlib
import json
import pathlib
import re
import shlex
from collections.abc import Iterable, Sequence

from experiments.program import parse, read_flagfiles
from experiments.reproduction.evidence import Evidence, PartCost, PartOutput, read_output
from experiments.reproduction.parts import BASE, PARTS, REFERENCE, Part
from jaxcritique.config import Config
from jaxcritique.models.presets import PRESETS
from jaxcritique.records import from_json, to_json
from jaxcritique.store import read_object, write_atomically


@dataclasses.dataclass(frozen=True)
class ReproductionPlan:
    """Where a reproduction runs, and with which settings."""

    run_dir: pathlib.Path
    settings: pathlib.Path  # Folder of the parts' flagfiles.
    model: str  # The base model of all parts.

    @property
    def parts(self) -> list[Part]:
        """The parts that have a flagfile among the settings.

        Raises:
          ValueError: there is none, or a part lacks what it reads.
        """
        parts = [part for part in PARTS if (self.settings / part.flagfile).is_file()]
        if not parts:
            flagfiles = ", ".join(dict.fromkeys(part.flagfile for part in PARTS))
            raise ValueError(
                f"`settings={self.settings}`: no flagfile of a part; they are called {flagfiles}."
            )
        names = {part.name for part in parts}
        for part in parts:
            if missing := [name for name in part.needs if name not in names]:
                raise ValueError(
                    f"`settings={self.settings}`: {part.name} reads {missing[0]}, "
                    f"which has no flagfile there."
                )
        return parts

    def run(self, name: str, seed: int) -> "PartRun":
        """Returns the run of a part with a seed."""
        return PartRun(self, next(part for part in PARTS if part.name == name), seed)

    def runs(self, seeds: Iterable[int], only: Sequence[str] = ()) -> list["PartRun"]:
        """Returns the runs of parts, seed by seed, each after those whose results it reads.

        Args:
          seeds: of the runs.
          only: names of the parts; empty: of all.

        Raises:
          ValueError: a part is not known or lacks its settings.
        """
        parts = self.parts
        names = [part.name for part in parts]
        if unknown := [name for name in only if name not in names]:
            raise ValueError(
                f"`only={','.join(only)}`: there is no part {unknown[0]!r} with these settings; "
                f"choose from {', '.join(names)}."
            )
        return [
            PartRun(self, part, seed)
            for seed in dict.fromkeys(seeds)
            for part in parts
            if part.name in only or not only
        ]

    def flags(self) -> dict[str, str]:
        """Returns the flags in each part's flagfile."""
        return {run.part.name: " ".join(run.settings()) for run in self.runs([0])}

    def done(self, seeds: Iterable[int]) -> tuple[Evidence, list[PartCost]]:
        """Returns the outputs and the costs of all parts that are done."""
        done = [run for run in self.runs(seeds) if run.done()]
        outputs: dict[int, dict[str, PartOutput]] = {}
        for run in done:
            outputs.setdefault(run.seed, {})[run.part.name] = run.output()
        return Evidence(outputs), [run.cost() for run in done]


@dataclasses.dataclass(frozen=True)
class PartRecord:
    """The record of a part's run: what decides its outcome, and how long it took."""

    command: str
    settings: list[str]  # The flags in its flagfile.
    inputs: dict[str, str]  # Part to the hash of its results.
    seconds: float = 0.0  # Of all starts.
    failed: bool = False  # Also while it runs, so that a killed run counts as failed.

    def same_run(self, other: "PartRecord") -> bool:
        """Whether another record has the same command, settings and inputs."""
        return dataclasses.replace(other, seconds=self.seconds, failed=self.failed) == self


@dataclasses.dataclass(frozen=True)
class PartRun:
    """A part of a reproduction with one seed."""

    plan: ReproductionPlan
    part: Part
    seed: int

    def __str__(self) -> str:
        return f"{self.part.name}, seed {self.seed}"

    @property
    def folder(self) -> pathlib.Path:
        """Its run folder."""
        return self.plan.run_dir / f"seed-{self.seed}" / self.part.name

    @property
    def log(self) -> pathlib.Path:
        """Where its output goes."""
        return self.folder.with_name(f"{self.part.name}.log")

    @property
    def flagfile(self) -> pathlib.Path:
        """Its settings."""
        return self.plan.settings / self.part.flagfile

    def settings(self) -> list[str]:
        """Returns the flags in its flagfile, and in those that it names."""
        return read_flagfiles([f"--flagfile={self.flagfile}"])

    @property
    def needs(self) -> list["PartRun"]:
        """The runs whose results it reads."""
        return [self.plan.run(name, self.seed) for name in self.part.needs]

    # ---- its command

    def command(self, shown: bool = False) -> list[str]:
        """Returns its command, beginning with "python".

        Args:
          shown: whether it is only shown or checked: references to models that do not exist yet
            then stay as they are.

        Raises:
          ValueError: a part that it needs has no results, or no such model.
        """
        return [
            *("python", "-m", f"experiments.{self.part.program}"),
            *dict.fromkeys(self._resolve(flag, shown) for flag in self.part.all_flags),
            f"--flagfile={self.flagfile}",
            f"--seed={self.seed}",
            f"--run_dir={self.folder}",
        ]

    def _resolve(self, text: str, shown: bool = False) -> str:
        """Replaces `{model}`, `{PART}` and `{PART:MODEL}` (see parts.py)."""

        def value(match: re.Match[str]) -> str:
            name, model = match.groups()
            if match.group() == BASE:
                return self.plan.model
            folder = self.plan.run(name, self.seed).folder
            if model is None:
                return str(folder)
            path = folder / "results.json"
            models = read_object(path).get("models", {}) if path.is_file() else {}
            if model in models:
                # A model that the part made is named by its path in the part's folder.
                within = folder / models[model]
                return str(within if within.is_dir() else models[model])
            if shown:
                return match.group()
            if not path.is_file():
                raise ValueError(f"{name} has no results yet ({path}).")
            raise ValueError(f"{path} names no model {model!r}, only {', '.join(models)}.")

        return REFERENCE.sub(value, text)

    def configs(self) -> list[Config]:
        """Returns the configs that its program parses from its flags.

        Raises:
          ValueError: the program does not take them.
        """
        program = importlib.import_module(f"experiments.{self.part.program}")
        _, _, _, *flags = self.command(shown=True)
        try:
            return parse(flags, *program.CONFIGS)
        except ValueError as error:
            raise ValueError(
                f"{self.flagfile}: {self.part.program} does not take its flags: {error}"
            ) from error

    def fit_command(self, topology: str) -> str | None:
        """Returns the command that checks whether what it fine-tunes fits some hardware, if any.

        Args:
          topology: hardware, as `launchers.plan` names it.
        """
        values = {name: value for c in self.configs() for name, value in vars(c).items()}
        given = values[self.part.trains]
        models = given if isinstance(given, tuple) else (given,)
        if not models:
            return None
        # A folder that is called as a preset need not be here yet.
        names = [name if (name := pathlib.Path(m).name) in PRESETS else str(m) for m in models]
        return shlex.join(
            [
                *("python", "-m", "launchers.plan", f"--model={','.join(names)}"),
                f"--topology={topology}",
                f"--sequence={values['sequence']}",
            ]
        )

    # ---- what has been done

    def done(self) -> bool:
        """Whether it has results of the same command, settings and inputs."""
        if not (self.folder / "results.json").is_file():
            return False
        if not all(run.done() for run in self.needs):
            return False
        record = self.record()
        try:
            return record is not None and record.same_run(self.wanted()) and not record.failed
        except ValueError:  # A part that it needs has no such model.
            return False

    def wanted(self) -> PartRecord:
        """Returns its record as of now, without times; the parts that it needs must have results.

        Raises:
          ValueError: they lack a model, or its flagfile cannot be read.
        """
        inputs = {run.part.name: _hash(run.folder / "results.json") for run in self.needs}
        return PartRecord(shlex.join(self.command()), self.settings(), inputs)

    @property
    def _record_path(self) -> pathlib.Path:
        return self.folder.with_name(f"{self.part.name}.json")

    def record(self) -> PartRecord | None:
        """Returns its record, if there is one."""
        path = self._record_path
        return from_json(PartRecord, read_object(path)) if path.is_file() else None

    def note(self, wanted: PartRecord, seconds: float, failed: bool = False) -> None:
        """Writes its record, adding the seconds of earlier starts with the same settings.

        Args:
          wanted: what it ran with.
          seconds: since the last note.
          failed: whether it failed, or is still running.
        """
        before = self.record()
        if before and wanted.same_run(before):
            seconds += before.seconds
        noted = dataclasses.replace(wanted, seconds=seconds, failed=failed)
        write_atomically(self._record_path, json.dumps(to_json(noted), indent=2) + "\n")

    def adopt(self) -> None:
        """Records it as done if the user has run its command by hand, on one host or several.

        Its flagfile is assumed not to have changed since, or since it last failed here.
        """
        path = self.folder / "results.json"
        if not path.is_file():
            return
        results, noted = read_object(path), self.record()
        try:
            wanted = self.wanted()
        except (ValueError, FileNotFoundError):  # A part that it needs has no results.
            return
        if noted:
            since = noted.failed and path.stat().st_mtime > self._record_path.stat().st_mtime
            if not (since and wanted.same_run(noted)):
                return
        ran = [flag for flag in shlex.split(results.get("command", "")) if flag != "--distributed"]
        if shlex.join(ran) == wanted.command:
            self.note(wanted, results.get("wall_seconds", 0.0))

    # ---- its output

    def output(self) -> PartOutput:
        """Returns its output; critics have the names that the part gives them."""
        output = read_output(self.folder)
        if not self.part.critics:
            return output
        names: dict[str, str] = {}
        for name, folder in self.part.critics:
            # Without critiques to train on, the trained critic is the base, which comes first.
            names.setdefault(self._resolve(folder), name)
        scores = [
            {**row, "method": names[row["method"]]}
            for row in output.scores
            if row["method"] in names
        ]
        return dataclasses.replace(output, scores=scores)

    def cost(self) -> PartCost:
        """Returns its cost, from the manifests of its stages."""
        paths = [*self.folder.glob("stages/*/manifest.json")]
        if self.part.program == "sft":
            paths.append(self.folder / "results.json")
        notes = [read_object(path) for path in paths]
        record = self.record()
        assert record is not None
        return PartCost(
            part=self.part.name,
            seed=self.seed,
            seconds=record.seconds,
            generated_tokens=sum(note.get("generated_tokens", 0) for note in notes),
            training_steps=sum(note.get("steps", 0) for note in notes),
            failed=sum(note.get("failed", 0) for note in notes),
            command=record.command,
        )


def check_flags(runs: Iterable[PartRun]) -> None:
    """Checks the flags of all runs now, since the last would fail only after hours.

    Raises:
      ValueError: a program does not take its flags; the message says why.
    """
    for run in {(run.part.program, run.flagfile): run for run in runs}.values():
        run.configs()


def print_commands(runs: Sequence[PartRun], topology: str | None) -> None:
    """Prints the commands of runs.

    Args:
      runs: of one plan.
      topology: hardware, as `launchers.plan` names it; with it, also the commands that check
        whether what they fine-tune fits it.
    """
    plan = runs[0].plan
    for part in PARTS:
        if part not in plan.parts:
            print(f"# left out: {part.name} (no {plan.settings / part.flagfile})")
    print("# {PART:MODEL}: the folder that the part's results.json names so under models")
    for run in runs:
        print(f"\n# {run}: {run.part.shows}")
        print(shlex.join(run.command(shown=True)))
        if run.part.trains and topology and (fits := run.fit_command(topology)):
            print(f"# does it fit? {fits}")


def _hash(path: pathlib.Path) -> str:
    """Hashes a results.json without its times and memory."""
    clocks = ("wall_seconds", "peak_rss_bytes", "seconds")
    results = {key: value for key, value in read_object(path).items() if key not in clocks}
    return hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()
