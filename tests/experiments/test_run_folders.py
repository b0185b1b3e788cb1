"""Whose a run folder is: one configuration's, and one program's at a time."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from experiments.program import claim, hold
from jaxcritique.store import DamagedFile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOLDER = """
import pathlib, sys, time
from experiments.program import hold

hold(pathlib.Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def start_holder():
    """Returns a function: folder, part -> a process that holds them until it is killed."""
    started = []

    def start(folder: pathlib.Path, part: str = "") -> subprocess.Popen[str]:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), part],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        return holder

    yield start
    for holder in started:
        holder.kill()
        holder.communicate()


def test_a_folder_is_one_programs_until_that_is_killed(start_holder, tmp_path):
    holder = start_holder(tmp_path / "run")
    with pytest.raises(ValueError, match=rf"run is in use by process {holder.pid} on "):
        hold(tmp_path / "run")
    hold(tmp_path / "other")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    hold(tmp_path / "run")


def test_parts_of_a_folder_do_not_lock_each_other_out(start_holder, tmp_path):
    start_holder(tmp_path, "0-of-2")
    hold(tmp_path, "1-of-2")
    with pytest.raises(ValueError, match="in use"):
        hold(tmp_path, "0-of-2")


def test_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; a folder is wanted"):
        hold(tmp_path / "file")


def test_the_folder_of_another_program_is_said_to_be_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["experiments/sft.py"])
    claim(tmp_path, {"seed": 1})
    claim(tmp_path, {"seed": 1})
    monkeypatch.setattr(sys, "argv", ["experiments/evaluate.py"])
    with pytest.raises(ValueError, match=r"is the folder of another program \(sft\)"):
        claim(tmp_path, {"seed": 1})


def test_what_differs_is_named_as_flag_or_as_what_is_in_its_file(tmp_path):
    claim(tmp_path, {"samples": 1, "actor model": "k1"})
    with pytest.raises(ValueError, match=r"another actor model \('k1', now 'k2'\)"):
        claim(tmp_path, {"samples": 1, "actor model": "k2"})
    with pytest.raises(ValueError, match=r"another --samples \(1, now 2\)"):
        claim(tmp_path, {"samples": 2, "actor model": "k2"})


def test_damaged_settings_are_named(tmp_path):
    claim(tmp_path, {"seed": 1})
    claim(tmp_path, {"seed": 1})
    with pytest.raises(ValueError, match=r"another --seed \(1, now 2\)"):
        claim(tmp_path, {"seed": 2})
    (tmp_path / "settings.json").write_text('{"seed"')
    with pytest.raises(DamagedFile, match=r"settings\.json is not a JSON object"):
        claim(tmp_path, {"seed": 1})


@pytest.mark.parametrize("weights", ["a,b", "1,2,3", "0,0,0,0,0", "1,1,1,1,-1", "1,1,1,1,nan"])
def test_level_weights_are_five_numbers(weights, run, tmp_path):
    done = run("pretrain_tiny", f"--run_dir={tmp_path}", f"--level_weights={weights}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --level_weights={weights}: give five numbers from 0")
    assert not list(tmp_path.iterdir())


PROGRAM = """
from absl import flags
from experiments.program import run

flags.DEFINE_string("run_dir", "run", "Folder.")


def main(_):
    {does}


run(main)
"""


@pytest.mark.parametrize(
    ("does", "code", "last", "trace"),
    [
        ("raise KeyboardInterrupt", 130, "stopped; the same command goes on from here", False),
        ("open('/', 'w')", 1, "error: [Errno 21] Is a directory: '/'", False),
        (
            "from jaxcritique.training import CannotTrain; raise CannotTrain('--rows=9 ...')",
            1,
            "error: --rows=9 ...",
            False,
        ),
        ("raise OSError('of no file')", 1, "OSError: of no file", True),
        (
            "open('/nowhere')",
            1,
            "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere'",
            True,
        ),
    ],
)
def test_only_the_programs_own_faults_leave_a_trace(does, code, last, trace):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(does=does)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert ended.returncode == code
    assert ended.stderr.splitlines()[-1] == last
    assert ("Traceback" in ended.stderr) == trace


@pytest.mark.parametrize("value", ["", "gs://bucket/run"])
def test_a_run_folder_is_a_folder(value):
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(does="pass"), f"--run_dir={value}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: --run_dir={value}")
    assert "name a folder" in ended.stderr
