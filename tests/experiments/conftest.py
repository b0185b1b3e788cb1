"""Programs as their users start them."""

import dataclasses
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

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
def run(start) -> Callable[..., subprocess.CompletedProcess[str]]:
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
