"""What every program here starts with: quiet logs, and wrong input refused in one line."""

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import app, flags, logging

from jaxcritique.rollout.sampler import SamplerError
from jaxcritique.store import DamagedFile, read_object, write_atomically


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main` as an absl program; libraries' INFO lines show only with --verbosity=0.

    What says itself what is wrong and what to do ends the program in one line.
    """

    def quietly(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            main(argv)
        except (SamplerError, DamagedFile, FloatingPointError) as error:  # Or training diverged.
            sys.exit(f"error: {error}")

    app.run(quietly)


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


def claim(run_dir: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Marks the folder as this configuration's.

    Raises:
      ValueError: the folder belongs to a run with another configuration, or is none.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"{run_dir} is a file; a folder is wanted.")
    path = run_dir / "settings.json"
    if path.is_file():
        theirs = read_object(path)
        settings = json.loads(json.dumps(settings))  # Tuples are lists there.
        changed = sorted(k for k in settings if theirs.get(k) != settings[k])
        if changed:
            raise ValueError(
                f"{run_dir} holds a run with another --{changed[0]} "
                f"({theirs.get(changed[0])!r}, now {settings[changed[0]]!r}). "
                "Choose another folder, or delete this one."
            )
    else:
        write_atomically(path, json.dumps(settings, indent=2) + "\n")


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
        jax.distributed.initialize()
