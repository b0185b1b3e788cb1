"""Worker processes that can be killed: each comparison has a deadline of its own.

A worker is a new interpreter that communicates over pipes, not a fork: it shares no memory, locks
or environment with the caller, and never imports the caller's main program. So a pool works in
threads, in scripts without a main guard, and in forked children (which start their own workers).
"""

import json
import math
import os
import queue
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from jaxcritique.grading.compare import Decision

MEMORY_LIMIT = 1 << 30  # Bytes of address space.
START_SECONDS = 120.0  # For importing sympy on a loaded machine, before any comparison.
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


class _Worker:
    """One process. Not thread-safe."""

    def __init__(self, timeout: float):
        command = [
            sys.executable,
            "-m",
            "jaxcritique.grading.worker",
            str(MEMORY_LIMIT),
            str(timeout),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            # The import path and nothing else: no keys, no tokens, no proxies.
            env={"PYTHONPATH": os.pathsep.join([_PACKAGE_ROOT, *filter(None, sys.path)])},
            start_new_session=True,
        )
        try:
            if self._read_line(START_SECONDS) != b"ready\n":
                raise RuntimeError("a grading worker did not start; is sympy installed?")
        except BaseException:
            self.kill()
            raise

    def compare(self, request: bytes, timeout: float) -> bytes | None:
        """Returns the worker's reply. If it missed the deadline or died, kills it; returns None."""
        assert self._process.stdin is not None
        line = b""
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            line = self._read_line(timeout)
        except BrokenPipeError:
            pass  # The worker died.
        finally:
            # Also if a signal handler interrupted: a late reply must not be read as the next one.
            if not line.endswith(b"\n"):
                self.kill()
        return line if line.endswith(b"\n") else None

    def _read_line(self, timeout: float) -> bytes:
        """Reads a line; returns what has arrived at the deadline or the end of the file."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + timeout
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                break
            chunk = os.read(descriptor, 4096)
            if not chunk:
                break
            line += chunk
        return line

    def kill(self) -> None:
        """Ends the process at once and waits for it."""
        self._process.kill()
        self._process.communicate()


class Pool:
    """Up to `workers` processes, started when first needed.

    Attributes:
      started: how many processes were started so far, replacements included.
    """

    def __init__(self, workers: int, timeout: float):
        if workers < 1 or not 0 < timeout < math.inf:
            raise ValueError(f"workers={workers} and timeout={timeout} must be positive and finite")
        self._workers = workers
        self._timeout = timeout
        self._reset()

    def _reset(self) -> None:
        self._owner = os.getpid()
        self._closing = threading.Lock()
        self.started = 0
        # Each slot holds an idle worker, or None where one is yet to be started.
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self._workers):
            self._slots.put(None)

    def compare(self, gold: str, answer: str, strict: bool) -> Decision:
        """Compares two answers in a worker; waits for a free one first, without a deadline.

        Raises:
          RuntimeError: no worker can be started.
        """
        if self._owner != os.getpid():
            self._reset()  # A forked child must not use its parent's pipes.
        request = json.dumps({"gold": gold, "answer": answer, "strict": strict}) + "\n"
        worker, line = self._slots.get(), None
        try:
            if worker is None:
                worker = _Worker(self._timeout)
                self.started += 1
            line = worker.compare(request.encode(), self._timeout)
        finally:
            self._slots.put(None if line is None else worker)
        return Decision("timeout", "killed") if line is None else Decision(*json.loads(line))

    def close(self) -> None:
        """Ends every idle worker; a later comparison starts new ones."""
        if self._owner != os.getpid():
            return
        with self._closing:  # Else two threads could wait for each other's workers.
            workers: list[_Worker | None] = []
            try:
                while len(workers) < self._workers:
                    workers.append(self._slots.get())
            finally:  # However it ends, no slot is lost.
                for worker in workers:
                    if worker is not None:
                        worker.kill()
                    self._slots.put(None)
