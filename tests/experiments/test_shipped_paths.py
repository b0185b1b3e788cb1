"""Flagfiles and models of our packages are found from any working directory."""

import dataclasses
import pathlib

import pytest

from experiments.program import parse, read_flagfiles, shipped
from jaxcritique.config import Config, setting
from jaxcritique.tasks import TINY_BASE

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAPTOP = "experiments/flagfiles/laptop"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths(Config):
    settings: pathlib.Path = setting(pathlib.Path(LAPTOP), "A folder.")
    model: str = setting("elsewhere/base", "A folder.")
    bases: tuple[str, ...] = setting((), "Folders.", repeated=True)
    slots: int = setting(1, "A number.")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_settings_that_name_our_files_are_found_beside_the_packages():
    base = "jaxcritique/tasks/tiny_base"
    [paths] = parse([f"--bases={base}", "--bases=jaxcritique/tasks/none", "--slots=2"], Paths)
    assert paths == Paths(
        settings=ROOT / LAPTOP, bases=(str(TINY_BASE), "jaxcritique/tasks/none"), slots=2
    )


def test_what_is_in_the_working_directory_comes_first(elsewhere):
    (elsewhere / LAPTOP).mkdir(parents=True)
    assert parse([], Paths) == [Paths(settings=pathlib.Path(LAPTOP))]
    assert shipped("tests/conftest.py") == "tests/conftest.py"  # Not a package's.


def test_a_flagfile_of_ours_is_read_with_those_that_it_names(elsewhere):
    flags = read_flagfiles([f"--flagfile={LAPTOP}/combinations.flags", "--slots=1"])
    assert flags[0] == "--prompts=compact"  # Of common.flags.
    assert flags[-1] == "--slots=1"
    own = elsewhere / "own.flags"
    own.write_text(f"--flagfile={LAPTOP}/common.flags\n--slots\n3\n")
    assert read_flagfiles(["--flagfile", str(own)])[-2:] == ["--slots", "3"]


def test_a_flagfile_that_is_nowhere_is_named():
    with pytest.raises(ValueError, match=r"experiments/flagfiles/none\.flags"):
        parse(["--flagfile=experiments/flagfiles/none.flags"], Paths)
