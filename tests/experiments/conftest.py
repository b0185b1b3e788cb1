"""Programs as their users start them."""

import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def start(program_environment) -> Callable[..., subprocess.Popen[str]]:
    """Returns a function: a program, its flags, further environment -> the started program."""

    def start(program: str, *flags: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", f"experiments.{program}", *flags],
            cwd=ROOT,
            env={**program_environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def run(start) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function: the same, seconds it has at the most -> the program as it ended."""

    def run(
        program: str, *flags: str, timeout: float = 900, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        process = start(program, *flags, **environment)
        try:
            printed, errors = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, printed, errors)

    return run
