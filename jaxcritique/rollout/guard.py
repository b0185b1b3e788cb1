"""Runs a program so that nothing of it is left once it, or whoever started it, has ended.

    python guard.py PARENT_PID LOG PROGRAM ARGUMENTS...

The guard watches the program and the parent, and ends with either. It has a process group and a
session of its own with the program's processes in it; descendants that leave the group become the
guard's children when their parents end (it is their subreaper), and are ended with the rest. LOG,
the file that the output goes to, is the parent's to remove; where the parent has ended, the guard
does. The standard library only: it starts in no time, with any interpreter. Linux.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time

_GRACE_SECONDS = 10.0  # For the program to remove its shared memory and sockets.
_LOOK_SECONDS = 0.1
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # Of prctl(2).


def die_with_parent() -> None:
    """Has the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def main() -> int:
    """Runs the program; returns its exit status."""
    parent, log, command = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
    ctypes.CDLL(None).prctl(_SET_SUBREAPER, 1)
    stopping = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: stopping.append(number))
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
    while program.poll() is None and not stopping and os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
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
        time.sleep(_LOOK_SECONDS)
    if os.getppid() != parent:
        log.unlink(missing_ok=True)
    return program.returncode or 0


def _children() -> list[int]:
    """Direct children; as each ends, its own children take its place."""
    return [int(pid) for pid in pathlib.Path("/proc/thread-self/children").read_text().split()]


if __name__ == "__main__":
    sys.exit(main())
