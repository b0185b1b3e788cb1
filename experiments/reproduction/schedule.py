"""Runs the parts of a reproduction, several at a time, and shows their progress."""

import dataclasses
import datetime
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from statistics import fmean

import rich.console
import rich.markup
import rich.table

from experiments.reproduction.plan import PartRecord, PartRun
from jaxcritique.rollout.guard import die_with_parent

_LOG_LINES = 15  # Shown of the log of a failed part.
_POLL_SECONDS = 0.2
_NOTE_SECONDS = 30.0  # Between updates of the records of running parts.
_LEFT = "left"


@dataclasses.dataclass
class _Job:
    """A part that is running."""

    process: subprocess.Popen[bytes]
    wanted: PartRecord
    cores: set[int]
    began: float  # By the monotonic clock.
    noted: float = 0.0  # Seconds that are in its record.

    @property
    def seconds(self) -> float:
        """For how long it has been running."""
        return time.monotonic() - self.began


class Schedule:
    """Runs parts in order, and knows the state of each."""

    def __init__(self, runs: Sequence[PartRun], jobs: int):
        """Finds out what is done already.

        Args:
          runs: of parts, each after those that it needs.
          jobs: how many run at a time, each on its share of the cores.

        Raises:
          ValueError: there are fewer cores than jobs, or the record of a run is damaged.
        """
        cores = sorted(os.sched_getaffinity(0))
        if jobs > len(cores):
            raise ValueError(
                f"`jobs={jobs}`: cores this process may use: {len(cores)}; give no more."
            )
        self._jobs = jobs
        self._free = [set(cores[job::jobs]) for job in range(jobs)]
        self.console = rich.console.Console()
        # Of each run: its job while it runs, its seconds when it is done, _LEFT, or why it has no
        # results. A single value, since another thread draws the table.
        self._states: dict[PartRun, _Job | float | str] = {
            run: _seconds(run) if run.done() else _LEFT for run in runs
        }

    @property
    def left(self) -> list[PartRun]:
        """The runs that are not done."""
        return [run for run, state in self._states.items() if state == _LEFT]

    @property
    def failed(self) -> list[PartRun]:
        """The runs that failed, or need one that did."""
        states = self._states.items()
        return [run for run, state in states if isinstance(state, str) and state != _LEFT]

    def run(self) -> Generator[None]:
        """Runs what is left.

        Yields:
          Each time all runs of a seed have ended.
        """
        seeds = {run.seed for run in self._states}
        try:
            while seeds:
                for run, job in self._running().items():
                    if job.process.poll() is not None:
                        self._end(run, job)
                    elif job.seconds > job.noted + _NOTE_SECONDS:
                        _note(run, job, failed=True)
                while self._free and (run := self._next()):
                    self._start(run)
                before, seeds = seeds, {run.seed for run in (*self.left, *self._running())}
                if seeds != before:
                    yield
                if seeds:
                    time.sleep(_POLL_SECONDS)
        finally:  # The parts end with this process.
            running = self._running()
            for job in running.values():
                job.process.terminate()
            for run, job in running.items():
                job.process.wait()
                _note(run, job, failed=True)

    def _running(self) -> dict[PartRun, _Job]:
        return {run: state for run, state in self._states.items() if isinstance(state, _Job)}

    def _next(self) -> PartRun | None:
        """Returns the first run that can start; those whose needs failed are left out."""
        unfinished = {*self.left, *self._running()}
        for run in self.left:
            if unfinished.isdisjoint(run.needs):
                missing = [need.part.name for need in run.needs if not need.done()]
                if not missing:
                    return run
                self._states[run] = f"needs {missing[0]}"
                unfinished.remove(run)
                self.say(f"{run}: left out, since {missing[0]} is not done")
        return None

    def _start(self, run: PartRun) -> None:
        """Starts a run, unless it is done or a part that it needs has no such model."""
        if run.done():  # Its inputs came out as before.
            self._states[run] = _seconds(run)
            return
        try:
            wanted, argv = run.wanted(), run.command()
        except ValueError as error:
            self._states[run] = "failed"
            self.say(f"{run}: {error}")
            return
        self.say(f"{run}: {wanted.command}")
        cores = self._free.pop()

        def prepare() -> None:
            die_with_parent()
            os.sched_setaffinity(0, cores)

        # Parts share what they compile; a cache that the user has set takes precedence.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str((run.plan.run_dir / "compiled").absolute()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        run.log.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with run.log.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, *argv[1:]],
                stdin=subprocess.DEVNULL,
                env={**cache, **os.environ},
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=prepare,
            )
        self._states[run] = _Job(process, wanted, cores, began)

    def _end(self, run: PartRun, job: _Job) -> None:
        code = job.process.returncode
        done = code == 0 and (run.folder / "results.json").is_file()
        _note(run, job, failed=not done)
        self._free.append(job.cores)
        if done:
            self._states[run] = _seconds(run)
            self.say(f"{run}: done in {_clock(job.seconds)}")
            return
        self._states[run] = "failed"
        self.say(f"{run}: failed with exit code {code}. The end of {run.log}:")
        for line in run.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]:
            self.say(f"    {line}")

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        self.console.print(rich.markup.escape(text), highlight=False, soft_wrap=True)

    def table(self) -> rich.console.Group:
        """Returns a table of what is done, running and left, and the time that is left."""
        states = dict(self._states)
        seeds = dict.fromkeys(run.seed for run in states)
        rows: dict[str, dict[int, str]] = {}
        for run, state in states.items():
            rows.setdefault(run.part.name, {})[run.seed] = _cell(state)
        table = rich.table.Table("part", *(f"seed {seed}" for seed in seeds))
        for name, cells in rows.items():
            table.add_row(name, *cells.values())
        took: dict[str, list[float]] = {}
        for run, state in states.items():
            if isinstance(state, float):
                took.setdefault(run.part.name, []).append(state)
        text = f"{sum(map(len, took.values()))} of {len(states)} parts done"
        if self.failed:
            text += f", {len(self.failed)} failed or left out"
        left = [run.part.name for run, state in states.items() if state == _LEFT]
        running = [(r.part.name, s.seconds) for r, s in states.items() if isinstance(s, _Job)]
        if seconds := seconds_left(took, left, running, self._jobs):
            text += f"; about {_clock(seconds)} left, judging by the parts that are done"
        return rich.console.Group(table, text, "")


def _seconds(run: PartRun) -> float:
    record = run.record()
    assert record is not None
    return float(record.seconds)


def _note(run: PartRun, job: _Job, failed: bool) -> None:
    seconds = job.seconds
    run.note(job.wanted, seconds - job.noted, failed)
    job.noted = seconds


def _cell(state: _Job | float | str) -> str:
    if isinstance(state, _Job):
        return f"[bold]running {_clock(state.seconds)}"
    if not isinstance(state, str):
        return f"[green]done {_clock(state)}"
    return state if state == _LEFT else f"[red]{rich.markup.escape(state)}"


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def seconds_left(
    took: Mapping[str, Sequence[float]],
    left: Sequence[str],
    running: Sequence[tuple[str, float]],
    jobs: int,
) -> float | None:
    """Estimates how long the rest takes.

    Args:
      took: seconds of each run that is done, by part.
      left: the part of each run that has not started.
      running: the part of each run that has, and its seconds so far.
      jobs: parts that run at a time.

    Returns:
      Seconds; None if nothing is done yet and something is left.
    """
    if not took:
        return None if left or running else 0.0
    # A part without a finished run is taken to last as long as the average part.
    usual = fmean(map(fmean, took.values()))
    whole = {name: fmean(seconds) for name, seconds in took.items()}
    rest = [max(whole.get(name, usual) - seconds, 0.0) for name, seconds in running]
    return max((sum(whole.get(name, usual) for name in left) + sum(rest)) / jobs, *rest, 0.0)
