"""Whose a run folder is: one configuration's, and one process's at a time."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from jaxcritique import run_folder
from jaxcritique.config import Config, setting
from jaxcritique.errors import InvalidInput
from jaxcritique.run_folder import Results, about_run, claim, command, hold, release, shown
from jaxcritique.store import DamagedFile

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOLDER = """
import pathlib, sys, time
from jaxcritique.run_folder import hold

hold(pathlib.Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def released():
    yield
    run_folder._HELD.clear()


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


def test_a_folder_is_locked_until_its_process_is_killed(start_holder, tmp_path):
    holder = start_holder(tmp_path / "run")
    with pytest.raises(InvalidInput, match=rf"run is in use by process {holder.pid} on "):
        hold(tmp_path / "run")
    hold(tmp_path / "other")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    hold(tmp_path / "run")


def test_a_released_folder_is_free_for_others(start_holder, tmp_path):
    hold(tmp_path)
    hold(tmp_path, "part")
    release(tmp_path)
    start_holder(tmp_path)
    start_holder(tmp_path, "part")


def test_a_folder_that_was_deleted_is_locked_anew(start_holder, tmp_path):
    hold(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    start_holder(tmp_path / "run")
    with pytest.raises(InvalidInput, match="in use"):
        hold(tmp_path / "run")


def test_parts_of_a_folder_do_not_lock_each_other_out(start_holder, tmp_path):
    start_holder(tmp_path, "0-of-2")
    hold(tmp_path, "1-of-2")
    with pytest.raises(InvalidInput, match="in use"):
        hold(tmp_path, "0-of-2")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="file is a file; a folder is wanted"):
        hold(tmp_path / "file")


def test_the_folder_of_another_experiment_is_refused(tmp_path):
    claim(tmp_path, "sft", {"seed": 1})
    claim(tmp_path, "sft", {"seed": 1})
    with pytest.raises(InvalidInput, match=r"is the folder of another program \(sft\)"):
        claim(tmp_path, "evaluate", {"seed": 1})


def test_what_differs_is_named(tmp_path):
    claim(tmp_path, "sft", {"samples": 1, "stop": ("a",), "actor model": "k1"})
    claim(tmp_path, "sft", {"samples": 1, "stop": ("a",), "actor model": "k1"})
    with pytest.raises(InvalidInput, match=r"another actor model \('k1', now 'k2'\)"):
        claim(tmp_path, "sft", {"samples": 1, "stop": ("a",), "actor model": "k2"})
    with pytest.raises(InvalidInput, match=r"another `samples` \(1, now 2\)"):
        claim(tmp_path, "sft", {"samples": 2, "actor model": "k2"})


def test_damaged_settings_are_named(tmp_path):
    claim(tmp_path, "sft", {"seed": 1})
    (tmp_path / "settings.json").write_text('{"seed"')
    with pytest.raises(DamagedFile, match=r"settings\.json is not a JSON object"):
        claim(tmp_path, "sft", {"seed": 1})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Config):
    seed: int = setting(3, "Seed.")
    data: pathlib.Path = setting(pathlib.Path("d"), "Data.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy(Results):
    accuracy: float
    compared: float | None = None


def test_results_are_written_without_what_is_missing(tmp_path):
    about = about_run(
        tmp_path, Settings(), time.monotonic() - 2, {"a": {"failed": 1}, "b": {"failed": 2}}
    )
    Accuracy(**about, accuracy=0.5).write()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results.keys() == {
        "command", "seed", "settings", "wall_seconds", "peak_rss_bytes", "failed", "accuracy",
    }  # fmt: skip
    assert (results["seed"], results["settings"]) == (3, {"seed": 3, "data": "d"})
    assert results["failed"] == 3
    assert 2 <= results["wall_seconds"] < 100
    assert results["peak_rss_bytes"] > 2**20
    assert results["command"] == command() == ""  # pytest is not one of our programs.


def test_folders_within_a_run_are_shown_by_their_path_in_it(tmp_path):
    assert shown(tmp_path / "stages" / "a", tmp_path) == "stages/a"
    assert shown(tmp_path / "model", tmp_path / "run") == str(tmp_path / "model")
