"""Programs as their users start them."""

import contextlib
import dataclasses
import importlib
import io
import logging
import pathlib
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

import pytest
from absl import flags

from experiments.program import call, define_flags
from jaxcritique import run_folder

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Program:
    """A started program. Its streams go to files: a pipe that nobody reads would fill up."""

    process: subprocess.Popen[bytes]
    printed: pathlib.Path
    errors: pathlib.Path

    def wait_until(self, reached: Callable[[], object], seconds: float = 900) -> None:
        """Returns once something is reached; fails where the program ends before, or hangs."""
        end = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.errors.read_text()
            if time.monotonic() > end:
                self.process.kill()
                pytest.fail(f"not within {seconds} s: {self.errors.read_text()}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Kills it with SIGKILL, as nothing can prepare for; fails where it has already ended."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL, self.errors.read_text()


@pytest.fixture(scope="session")
def start(program_environment, tmp_path_factory) -> Callable[..., Program]:
    """Returns a function: a program, its flags, further environment -> the started program."""

    def start(program: str, *flags: str, **environment: str) -> Program:
        folder = tmp_path_factory.mktemp("streams")
        printed, errors = folder / "stdout", folder / "stderr"
        with printed.open("wb") as stdout, errors.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", f"experiments.{program}", *flags],
                cwd=ROOT,
                env={**program_environment, **environment},
                stdout=stdout,
                stderr=stderr,
            )
        return Program(process, printed, errors)

    return start


@pytest.fixture(scope="session")
def run_process(start) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function: the same, seconds it has at the most -> the program as it ended."""

    def run(
        program: str, *flags: str, timeout: float = 900, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        started = start(program, *flags, **environment)
        process = started.process
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(
            process.args, code, started.printed.read_text(), started.errors.read_text()
        )

    return run


@pytest.fixture(scope="session")
def run(run_process) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function: a program, its flags -> the program as it ended, run in this process.

    That saves the seconds a process takes to start, and shares what JAX compiled. With further
    environment it is a process of its own, as with `run_process`.
    """

    def run(
        program: str, *flags: str, timeout: float = 900, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        if environment:
            return run_process(program, *flags, timeout=timeout, **environment)
        printed, errors = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(errors),
            contextlib.chdir(ROOT),
            _logging_to(errors),
        ):
            code = _run_here(program, flags)
        return subprocess.CompletedProcess(
            [program, *flags], code, printed.getvalue(), errors.getvalue()
        )

    return run


def _run_here(program: str, arguments: Sequence[str]) -> int:
    """Runs a program in this process; returns its exit code."""
    module = importlib.import_module(f"experiments.{program}")
    values = flags.FlagValues()
    define_flags(module.CONFIGS, values)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        argv = values([f"experiments/{program}.py", *arguments])
        call(module.main, module.CONFIGS, argv, values)
    except flags.Error as error:
        print(f"FATAL Flags parsing error:\n  {error}", file=sys.stderr)
        return 1
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        run_folder._HELD.clear()  # As the end of a process does.
    return 0


@contextlib.contextmanager
def _logging_to(stream: io.StringIO) -> Iterator[None]:
    """Writes warnings and errors of all loggers to a stream, as they go to a process's stderr."""
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
