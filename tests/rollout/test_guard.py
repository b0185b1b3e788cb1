"""No process is left, however it ends."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from jaxcritique.rollout import guard

# A program with a child that leaves its group and a child of that; and one deaf to SIGTERM.
PROGRAM = """
import subprocess, sys, time, signal
if {deaf}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = "import time; time.sleep(600)  # {mark}"
child = (
    f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {{grandchild!r}}]);"
    "time.sleep(600)  # {mark}"
)
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("up", flush=True)
time.sleep({seconds})
"""
PARENT = """
import os, subprocess, sys, time
command = [sys.executable, {file!r}, str(os.getpid()), {log!r}, sys.executable, "-c", {program!r}]
guard = subprocess.Popen(command, start_new_session=True)
print(guard.pid, flush=True)
time.sleep(600)
"""


def marked(mark: str) -> list[psutil.Process]:
    return [
        p for p in psutil.process_iter(["cmdline"]) if mark in " ".join(p.info["cmdline"] or ())
    ]


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


@pytest.mark.parametrize(
    "end",
    [pytest.param("parent killed", marks=pytest.mark.slow), "guard stopped", "program ends"],
)
def test_nothing_is_left(end, tmp_path):
    mark = f"mark-{os.getpid()}-{end.replace(' ', '-')}"
    program = PROGRAM.format(
        mark=mark, seconds=3 if end == "program ends" else 600, deaf=end == "parent killed"
    )
    (log := tmp_path / "log").touch()
    code = PARENT.format(file=guard.__file__, log=str(log), program=program)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "up\n"
        wait_for(lambda: len(marked(mark)) == 5)  # Parent, guard, program, its two descendants.
        if end == "parent killed":
            parent.kill()
            parent.wait()
        elif end == "guard stopped":
            os.kill(pid, signal.SIGTERM)
        left = {parent.pid} if end != "parent killed" else set()
        # The guard itself waits there as a zombie where its parent does not ask for it.
        wait_for(lambda: {p.pid for p in marked(mark)} <= left)
        assert log.exists() == (end != "parent killed")  # A parent that lives may still read it.
    finally:
        parent.kill()
        parent.wait()
