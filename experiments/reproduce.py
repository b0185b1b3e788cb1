"""Every table, figure and claim of the paper: runs all other programs, then writes one report.

    python -m experiments.reproduce --flagfile=experiments/flagfiles/reproduce_laptop.flags \
      --run_dir=runs/laptop

`experiments/parts.py` has the parts. They run in order, --jobs at a time, each in a folder of its
seed. The same command again goes on where it was stopped: a part is done when it has come to its
results by the same command, settings and inputs, here or by hand. A part that fails is named, what
does not need it goes on, and the exit code is then 1. What the parts are run with is in their
flagfiles, in --settings.
"""

import concurrent.futures
import contextlib
import dataclasses
import datetime
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from typing import Any

import rich.console
import rich.live
import rich.markup
import rich.table
from absl import flags
from tqdm import tqdm

from experiments.program import command, hold, refusing_bad_input, run
from experiments.reproduction.evidence import Evidence
from experiments.reproduction.parts import (
    PARTS,
    Part,
    Plan,
    flag_values,
    read_flagfile,
    seconds_left,
)
from experiments.reproduction.report import WORDS, write_reproduction
from jaxcritique.models.presets import PRESETS
from jaxcritique.rollout.guard import die_with_parent
from jaxcritique.tasks import TINY_BASE
from jaxcritique.testtime.rounds import PROTOCOLS

FLAGS = flags.FLAGS
flags.DEFINE_string("run_dir", None, "Folder for all parts and the report.", required=True)
flags.DEFINE_string(
    "settings",
    "experiments/flagfiles/laptop",
    "Folder with a flagfile for each part; a part without one is left out.",
)
flags.DEFINE_string("model", str(TINY_BASE), "Hugging Face folder: the base of all players.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Each is a whole reproduction; claims use them all.")
flags.DEFINE_list("only", [], "Parts to run; empty: all. What they read must be there already.")
flags.DEFINE_enum(
    "protocol",
    "refine_flagged",
    [name for name in PROTOCOLS if name != "oracle"],
    "What 'with critic' means in claims: an answer is refined if the critic flags it, or always "
    "(the paper does not say; the report has a table of the claims by the other one).",
)
flags.DEFINE_integer(
    "jobs",
    1,
    "Parts run at a time, each on its share of the CPU's cores. A small model on a CPU has no use "
    "for more than one core; several parts on one accelerator fight for its memory.",
    lower_bound=1,
)
flags.DEFINE_bool("dry_run", False, "Print the commands; run nothing.")
flags.DEFINE_string(
    "plan_topology",
    None,
    "Hardware, as launchers.plan names it; --dry_run then says for each part that fine-tunes which "
    "command checks whether it fits.",
)

_TAIL = 15  # Lines of a failed part's log that are shown.
_LOOK_SECONDS = 0.2
_NOTE_SECONDS = 30.0  # Of its time a part that is killed loses as much.


def main(_: list[str]) -> None:
    """Runs the program."""
    with refusing_bad_input():
        plan = Plan(pathlib.Path(FLAGS.run_dir), pathlib.Path(FLAGS.settings), FLAGS.model)
        seeds, parts = _seeds(), _chosen(plan)
    if FLAGS.dry_run:
        with refusing_bad_input():
            _check_flags(plan, parts, seeds[0])
        _print_commands(plan, parts, seeds)
        return
    with refusing_bad_input():
        shares = _shares(FLAGS.jobs)
        hold(plan.run_dir)
        progress = Progress(plan, parts, seeds)
        _check_flags(plan, progress.left, seeds[0])
    results: dict[str, Any] = {}
    unreported: Exception | None = None
    with (
        rich.live.Live(get_renderable=progress.table, console=progress.console),
        contextlib.closing(progress.run(shares)) as ended,
    ):
        for _ended_seeds in ended:
            try:
                results, unreported = _report(plan, seeds), None  # Of what there is so far.
            except (OSError, ValueError) as error:  # The other seeds go on.
                unreported = error
                progress.say(f"no report: {error}")
    if unreported:
        sys.exit(f"error: no report: {unreported}")
    if not results:
        sys.exit("no part is done: no report is written")
    for claim in results["claims"]:
        print(f"{claim['id']:>3}  {WORDS[claim['holds']]:<13}  {claim['says']}")
    for name in ("results.json", "results.md", "report.html"):
        print(plan.run_dir / name)
    if progress.failed:
        sys.exit(1)


def _seeds() -> list[int]:
    try:
        seeds = list(dict.fromkeys(int(seed) for seed in FLAGS.seeds))
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        raise ValueError(f"--seeds={','.join(FLAGS.seeds)}: give whole numbers from 0, as 0,1,2.")
    return seeds


def _chosen(plan: Plan) -> list[Part]:
    parts = plan.parts
    names = [part.name for part in parts]
    if unknown := [name for name in FLAGS.only if name not in names]:
        raise ValueError(
            f"--only={','.join(FLAGS.only)}: there is no part {unknown[0]!r} with these settings; "
            f"choose from {', '.join(names)}."
        )
    chosen = [part for part in parts if part.name in FLAGS.only or not FLAGS.only]
    for part in chosen:
        given = read_flagfile(plan.settings / part.flagfile)  # And those it names: all there?
        if part.trains and FLAGS.plan_topology and not flag_values(given, "sequence"):
            raise ValueError(
                f"{plan.settings / part.flagfile}: --plan_topology needs --sequence there."
            )
    return chosen


def _check_flags(plan: Plan, parts: list[Part], seed: int) -> None:
    """Has the programs read the flags of parts, which else the last would do hours later.

    Raises:
      ValueError: one does not take its flags; it says why.
    """
    commands = {
        (part.program, plan.settings / part.flagfile): plan.command(part, seed, shown=True)
        for part in parts
    }

    def refusal(argv: list[str]) -> str:
        checking = [sys.executable, *argv[1:], "--only_check_args"]
        done = subprocess.run(checking, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return (done.stderr or f"exit code {done.returncode}") if done.returncode else ""

    bar = tqdm(total=len(commands), desc="reading the parts' flags", unit="flagfile", leave=False)
    pool = concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    with bar, contextlib.ExitStack() as ending:
        ending.callback(pool.shutdown, cancel_futures=True)  # The first refusal is enough.
        refusals = pool.map(refusal, commands.values())
        for (program, flagfile), refused in zip(commands, refusals, strict=True):
            bar.update()
            if refused:
                why, _, _ = refused.partition("\nPass --help")
                why = why.removeprefix("FATAL Flags parsing error:").strip()
                raise ValueError(f"{flagfile}: {program} does not take its flags: {why}")


def _shares(jobs: int) -> list[set[int]]:
    """Divides the cores that this process may use.

    Raises:
      ValueError: there are fewer cores than jobs.
    """
    cores = sorted(os.sched_getaffinity(0))
    if jobs > len(cores):
        raise ValueError(f"--jobs={jobs}: cores this process may use: {len(cores)}; give no more.")
    return [set(cores[job::jobs]) for job in range(jobs)]


# ---- running


@dataclasses.dataclass
class _Job:
    """A part that is running."""

    process: subprocess.Popen[bytes]
    identity: dict[str, Any]
    began: float  # By the monotonic clock.
    cores: set[int]
    noted: float = 0.0  # How many of its seconds have been noted.

    @property
    def seconds(self) -> float:
        """For how long it has been running."""
        return time.monotonic() - self.began


class Progress:
    """Runs parts and shows what is done, running and left.

    Those that somebody ran by hand are done. The table is drawn by a thread of its own: what it
    looks up is there before the state says so.
    """

    def __init__(self, plan: Plan, parts: list[Part], seeds: list[int]):
        """Looks up which parts are done.

        Raises:
          ValueError: a file that says so is damaged.
        """
        self.plan, self.parts, self.seeds = plan, parts, seeds
        self.console = rich.console.Console()
        self.failed: set[tuple[str, int]] = set()
        for seed in seeds:
            for part in plan.parts:  # In order: what a part reads comes before it.
                plan.adopt(part, seed)
        self._state = {
            (part.name, seed): "done" if plan.done(part, seed) else "left"
            for part in parts
            for seed in seeds
        }
        self._took = {
            key: self._noted_seconds(*key) for key, state in self._state.items() if state == "done"
        }
        self._jobs: dict[tuple[str, int], _Job] = {}

    @property
    def left(self) -> list[Part]:
        """The parts that are not done for every seed."""
        names = {name for (name, _), state in self._state.items() if state == "left"}
        return [part for part in self.parts if part.name in names]

    def run(self, shares: Sequence[set[int]]) -> Generator[list[int]]:
        """Runs what is left, as many parts at a time as there are shares of cores.

        Yields:
          Seeds as nothing of them is left or running.
        """
        free, going_on = list(shares), list(self.seeds)
        try:
            while going_on:
                for key, job in list(self._jobs.items()):
                    if job.process.poll() is not None:
                        self._end(*key, job)
                        del self._jobs[key]  # Only now: the table shows what is running meanwhile.
                        free.append(job.cores)
                    elif job.seconds > job.noted + _NOTE_SECONDS:
                        self._note(*key, job, failed=True)
                while free and (can_begin := self._next()):
                    if self._start(*can_begin, free[-1]):
                        free.pop()
                ended = [seed for seed in going_on if not self._unfinished(seed)]
                going_on = [seed for seed in going_on if seed not in ended]
                if ended:
                    yield ended
                if going_on:
                    time.sleep(_LOOK_SECONDS)
        finally:  # Where we end early, so do the parts.
            for job in self._jobs.values():
                job.process.terminate()
            for key, job in self._jobs.items():
                job.process.wait()
                self._note(*key, job, failed=True)

    def _unfinished(self, seed: int) -> bool:
        return any(
            state in ("left", "running") for (_, s), state in self._state.items() if s == seed
        )

    def _next(self) -> tuple[Part, int] | None:
        """The first part that can begin; what cannot run for want of what it reads is left out."""
        for seed in self.seeds:
            for part in self.parts:
                key = (part.name, seed)
                if self._state[key] != "left":
                    continue
                if any(self._state.get((n, seed)) in ("left", "running") for n in part.needs):
                    continue
                missing = [n for n in part.needs if not self.plan.done(self.plan.named(n), seed)]
                if not missing:
                    return part, seed
                self._fail(key, f"needs {missing[0]}")
                self.say(f"{part.name}, seed {seed}: left out, since {missing[0]} is not done")
        return None

    def _start(self, part: Part, seed: int, cores: set[int]) -> bool:
        """Starts a part unless it is done, or what it reads lacks something.

        Returns:
          Whether it is running.
        """
        key = (part.name, seed)
        if self.plan.done(part, seed):
            self._done(*key)
            return False
        try:
            argv = self.plan.command(part, seed)
            identity = self.plan.identity(part, seed)
        except ValueError as error:
            self._fail(key, "failed")
            self.say(f"{part.name}, seed {seed}: {error}")
            return False
        self.say(f"{part.name}, seed {seed}: {identity['command']}")
        log = self.plan.log(part, seed)
        log.parent.mkdir(parents=True, exist_ok=True)

        def prepare() -> None:
            die_with_parent()
            os.sched_setaffinity(0, cores)

        with log.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, *argv[1:]],
                stdin=subprocess.DEVNULL,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=prepare,
            )
        self._jobs[key] = _Job(process, identity, time.monotonic(), cores)
        self._state[key] = "running"
        return True

    @property
    def _environment(self) -> dict[str, str]:
        """That of parts: what one compiles is there for the next, unless it is kept elsewhere."""
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str((self.plan.run_dir / "compiled").absolute()),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        return {**cache, **os.environ}

    def _end(self, name: str, seed: int, job: _Job) -> None:
        code = job.process.returncode
        done = code == 0 and (self.plan.folder(seed, name) / "results.json").is_file()
        self._note(name, seed, job, failed=not done)
        if done:
            self._done(name, seed)
            self.say(f"{name}, seed {seed}: done in {_clock(job.seconds)}")
            return
        self._fail((name, seed), "failed")
        log = self.plan.log(self.plan.named(name), seed)
        self.say(f"{name}, seed {seed}: failed with exit code {code}. The end of {log}:")
        for line in log.read_text(errors="replace").splitlines()[-_TAIL:]:
            self.say(f"    {line}")

    def _note(self, name: str, seed: int, job: _Job, failed: bool) -> None:
        seconds = job.seconds
        self.plan.note(self.plan.named(name), seed, job.identity, seconds - job.noted, failed)
        job.noted = seconds

    def _done(self, name: str, seed: int) -> None:
        self._took[name, seed] = self._noted_seconds(name, seed)
        self._state[name, seed] = "done"

    def _fail(self, key: tuple[str, int], why: str) -> None:
        self.failed.add(key)
        self._state[key] = why

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        self.console.print(rich.markup.escape(text), highlight=False, soft_wrap=True)

    def table(self) -> rich.console.Group:
        """What is done, running and left, and for how long yet."""
        table = rich.table.Table()
        table.add_column("part")
        for seed in self.seeds:
            table.add_column(f"seed {seed}")
        for part in self.parts:
            table.add_row(part.name, *(self._cell(part, seed) for seed in self.seeds))
        return rich.console.Group(table, self._summary(), "")

    def _cell(self, part: Part, seed: int) -> str:
        state = self._state[part.name, seed]
        if state == "done":
            return f"[green]done {_clock(self._took[part.name, seed])}"
        if state == "running":
            return f"[bold]running {_clock(self._jobs[part.name, seed].seconds)}"
        return state if state == "left" else f"[red]{rich.markup.escape(state)}"

    def _summary(self) -> str:
        done = [key for key, state in self._state.items() if state == "done"]
        text = f"{len(done)} of {len(self._state)} parts done"
        if self.failed:
            text += f", {len(self.failed)} failed or left out"
        left = self._seconds_left()
        if left:
            text += f"; about {_clock(left)} left, by how long the parts done took"
        return text

    def _seconds_left(self) -> float | None:
        took: dict[str, list[float]] = {}
        for (name, _), seconds in list(self._took.items()):
            took.setdefault(name, []).append(seconds)
        left = [name for (name, _), state in self._state.items() if state == "left"]
        running = [(name, job.seconds) for (name, _), job in list(self._jobs.items())]
        return seconds_left(took, left, running, FLAGS.jobs)

    def _noted_seconds(self, name: str, seed: int) -> float:
        return self.plan.record(self.plan.named(name), seed)["seconds"]


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


# ---- what is printed and written


def _print_commands(plan: Plan, parts: list[Part], seeds: list[int]) -> None:
    with_settings = {part.name for part in plan.parts}
    for part in PARTS:
        if part.name not in with_settings:
            print(f"# left out: {part.name} (no {plan.settings / part.flagfile})")
    print("# {PART:MODEL}: the folder that the part's results.json names so under models")
    for seed in seeds:
        for part in parts:
            print(f"\n# {part.name}, seed {seed}: {part.shows}")
            print(shlex.join(plan.command(part, seed, shown=True)))
            if part.trains and FLAGS.plan_topology:
                print(f"# does it fit? {_plan_command(plan, part, seed)}")


def _plan_command(plan: Plan, part: Part, seed: int) -> str:
    """The command that says whether what a part fine-tunes fits --plan_topology."""
    command = plan.command(part, seed, shown=True)
    given = [*command, *read_flagfile(plan.settings / part.flagfile)]
    models = flag_values(given, part.trains)
    if part.trains == "model":  # Of which the last one given counts.
        models = models[-1:]
    # A folder called as a preset need not be here yet.
    names = [name if (name := pathlib.Path(model).name) in PRESETS else model for model in models]
    sequence = flag_values(given, "sequence")[-1]
    return shlex.join(
        [
            *("python", "-m", "launchers.plan", f"--model={','.join(names)}"),
            f"--topology={FLAGS.plan_topology}",
            f"--sequence={sequence}",
        ]
    )


def _report(plan: Plan, seeds: list[int]) -> dict[str, Any]:
    """Writes the report of all parts that are done, those of other calls too; of none, nothing."""
    runs, costs = {}, []
    for seed in seeds:
        done = [part for part in plan.parts if plan.done(part, seed)]
        runs[seed] = {part.name: plan.run(part, seed) for part in done}
        costs += [
            {
                "part": part.name,
                "seed": seed,
                **{key: plan.record(part, seed)[key] for key in ("seconds", "command")},
                **plan.cost(part, seed),
            }
            for part in done
        ]
    if not any(runs.values()):
        return {}
    settings = {
        part.name: " ".join(read_flagfile(plan.settings / part.flagfile)) for part in plan.parts
    }
    measured = {seed: parts for seed, parts in runs.items() if parts}
    return write_reproduction(
        Evidence(measured), FLAGS.protocol, command(), settings, costs, plan.run_dir
    )


if __name__ == "__main__":
    run(main)
