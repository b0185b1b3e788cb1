"""Runs a program and kills all its processes once it, or the process that started it, has ended.

    python guard.py PARENT_PID LOG PROGRAM ARGUMENTS...

The guard polls the program and the parent. It must be started in a new session. Descendants of the
program that leave its process group are killed too: the guard is their subreaper, so they become
its children when their parents end. LOG, the file with the output, is removed by the parent, or by
the guard if the parent has ended. It needs only the standard library and Linux.
"""

import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_GRACE_SECONDS = 10.0  # For the program to remove shared memory and sockets.
_POLL_SECONDS = 0.1
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # Of prctl(2).


def die_with_parent() -> None:
    """Makes the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def in_own_process(function: Callable[[], T]) -> T:
    """Calls a function in a new process, which dies with this one; returns its result."""
    with concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), die_with_parent
    ) as process:
        return process.submit(function).result()


def main() -> int:
    """Runs the program; returns its exit status."""
    parent, log, command = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
    ctypes.CDLL(None).prctl(_SET_SUBREAPER, 1)
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: stopping.append(number))
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
    while program.poll() is None and not stopping and os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    program.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(_GRACE_SECONDS)
    while children := _children():
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(_POLL_SECONDS)
    if os.getppid() != parent:
        log.unlink(missing_ok=True)
    return program.returncode or 0


def _children() -> list[int]:
    """Returns the direct children; the children of one that ends become the guard's."""
    return [int(pid) for pid in pathlib.Path("/proc/thread-self/children").read_text().split()]


if __name__ == "__main__":
    sys.exit(main())
