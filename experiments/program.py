"""What every program here starts with: quiet logs, and wrong input refused in one line."""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import resource
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from absl import app, flags, logging

from jaxcritique.rollout.sampler import SamplerError
from jaxcritique.store import DamagedFile, read_object, write_atomically
from jaxcritique.training import CannotTrain


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main` as an absl program; libraries' INFO lines show only with --verbosity=0.

    What says itself what is wrong and what to do ends the program in one line.
    """

    def quietly(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        if argv[1:]:
            sys.exit(f"error: {argv[1]!r} is no flag: they are written --name=value.")
        for name in flags.FLAGS:
            value = flags.FLAGS[name].value
            if isinstance(value, float) and not _is_number(name, value):
                sys.exit(f"error: --{name}={value}: give a finite number.")
            if name == "run_dir" and value == "":  # As an unset variable of a shell leaves it.
                sys.exit("error: --run_dir= is empty: name a folder.")
            if name == "run_dir" and "://" in str(value):
                sys.exit(
                    f"error: --run_dir={value}: name a folder; mount a bucket to write to one."
                )
        try:
            main(argv)
            sys.stdout.flush()
        except (
            SamplerError,
            CannotTrain,
            DamagedFile,
            FloatingPointError,
        ) as error:  # It diverged.
            sys.exit(f"error: {error}")
        except BrokenPipeError:  # Whoever reads what is printed, as `head` does, has enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            sys.exit(f"error: {error}")  # A file or folder is not what its name promises.
        except KeyboardInterrupt:
            goes_on = "run_dir" in flags.FLAGS
            print(f"stopped{'; the same command goes on from here' * goes_on}", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    app.run(quietly)


def _is_number(name: str, value: float) -> bool:
    """Whether it is a number that the flag can have: bounds let nan pass, and most of them inf."""
    return math.isfinite(value) or (value == math.inf and name == "clip_norm")


@contextlib.contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Within the block, what is wrong with flags and files ends the program, without a trace.

    For reading input only, so that a fault of the program itself keeps its traceback.
    """
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {error}")


def settings_but(free: Sequence[str]) -> dict[str, Any]:
    """Returns the flags of the running program, but those that do not decide its outcome."""
    own = flags.FLAGS.flags_by_module_dict()[sys.argv[0]]
    return {flag.name: flag.value for flag in own if flag.name not in free}


def command() -> str:
    """Returns the command that this program was started by, as a user types it."""
    return shlex.join(["python", "-m", f"experiments.{_program()}", *sys.argv[1:]])


def about_this_run(started: float) -> dict[str, Any]:
    """Returns what every results.json begins with.

    Args:
      started: when the program began, by the monotonic clock.
    """
    return {
        "command": command(),
        "seed": flags.FLAGS["seed"].value,
        "settings": settings_but(["run_dir"]),
        "wall_seconds": time.monotonic() - started,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def failed_samples(costs: Iterable[Mapping[str, int]]) -> int:
    """Adds up the samples that could not be had, and warns where there are any.

    Args:
      costs: `players.COSTS` of every stage.
    """
    failed = sum(cost["failed"] for cost in costs)
    if failed:
        logging.warning(
            "%d samples could not be had; they count as answers or critiques that cannot be read. "
            "Each stage's manifest.json, in stages/, says how many of its own.",
            failed,
        )
    return failed


def _program() -> str:
    return pathlib.Path(sys.argv[0]).stem


# Locks last as long as their files are open: until the process ends.
_HELD: dict[pathlib.Path, TextIO] = {}


def hold(run_dir: pathlib.Path, part: str = "") -> None:
    """Keeps other programs out of the folder, which is made, for as long as this process lives.

    The lock is the operating system's, so that none is left behind by a process that was killed.

    Args:
      run_dir: the folder.
      part: what of the folder's work is this process's, where several share it.

    Raises:
      ValueError: another process has it, or it is no folder.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"{run_dir} is a file; a folder is wanted.")
    run_dir.mkdir(parents=True, exist_ok=True)
    path = (run_dir / f".lock{part and '-'}{part}").resolve()
    if path in _HELD:
        return
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise ValueError(
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


def claim(run_dir: pathlib.Path, settings: Mapping[str, Any], part: str = "") -> None:
    """Holds the folder (see there), and marks it as this configuration's.

    Raises:
      ValueError: another process has it, or it belongs to a run with another configuration.
    """
    hold(run_dir, part)
    path = run_dir / "settings.json"
    program = _program()
    if path.is_file():
        theirs = read_object(path)
        if theirs.get("program", program) != program:
            raise ValueError(
                f"{run_dir} is the folder of another program ({theirs['program']}); choose another "
                "one."
            )
        settings = json.loads(json.dumps(settings))  # Tuples are lists there.
        # What is no flag has spaces: of a flag's file, what is in it. Flags are named first.
        changed = sorted(
            (k for k in settings if theirs.get(k) != settings[k]), key=lambda k: (" " in k, k)
        )
        if changed:
            what = changed[0] if " " in changed[0] else f"--{changed[0]}"
            raise ValueError(
                f"{run_dir} holds a run with another {what} "
                f"({theirs.get(changed[0])!r}, now {settings[changed[0]]!r}). "
                "Choose another folder, or delete this one."
            )
    else:
        write_atomically(path, json.dumps({"program": program, **settings}, indent=2) + "\n")


def join_processes(pod: bool = False) -> None:
    """Joins the other processes of this run, before JAX is used for anything else.

    Args:
      pod: whether to find them as JAX does on a TPU pod or under Slurm. Otherwise they are those
        that `launchers.local` started, if it did.
    """
    import jax  # Not every program needs it.

    if "JAX_NUM_PROCESSES" in os.environ:
        jax.distributed.initialize(
            os.environ["JAX_COORDINATOR_ADDRESS"],
            int(os.environ["JAX_NUM_PROCESSES"]),
            int(os.environ["JAX_PROCESS_ID"]),
        )
    elif pod:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            sys.exit(
                f"error: --distributed: {error} This is for TPU pods, Slurm and the like; several "
                "processes on one machine are started by launchers.local."
            )
