"""What all programs share: flags of configs, and which errors end them in a line."""

import dataclasses
import os
import pathlib
import subprocess
import sys
from typing import Literal

import pytest
from absl import flags

from experiments.program import RunDir, call, define_flags, in_flags, parse
from jaxcritique.config import REQUIRED, Config, setting
from jaxcritique.errors import InvalidInput
from jaxcritique.rollout.sampler import SamplerError

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Everything(Config):
    model: str = setting(REQUIRED, "A folder; see `rows`, but not `n`.")
    rows: int = setting(8, "Rows.", low=1, high=64)
    rate: float = setting(0.1, "A rate.", low=0)
    clip: float = setting(1.0, "A norm.", infinite=True)
    task: str = setting("gsm8k", "A task.", choices=["gsm8k", "math"])
    dtype: Literal["float32", "bfloat16"] | None = setting(None, "A type.")
    step: int | None = setting(None, "A step.", low=0)
    folder: pathlib.Path | None = setting(None, "A folder.")
    seeds: tuple[int, ...] = setting((0, 1), "Seeds.", low=0)
    shares: tuple[float, ...] = setting((), "Shares.")
    stop: tuple[str, ...] = setting((), "Stop strings.", repeated=True)
    arms: tuple[Literal["a", "b"], ...] = setting(("a",), "Arms.", repeated=True)
    send_seed: bool = setting(True, "Send it.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rows % 2:
            raise ValueError(f"`rows={self.rows}` must be even; `n` is no setting.")


def everything(*arguments: str) -> Everything:
    [config] = parse(["--model=m", *arguments], Everything)
    assert isinstance(config, Everything)
    return config


def test_without_flags_the_defaults_hold():
    assert everything() == Everything(model="m")


def test_every_kind_of_flag():
    assert everything(
        "--rows=4", "--rate=0.5", "--clip=inf", "--task=math", "--dtype=bfloat16", "--step=3",
        "--folder=a/b", "--seeds=3,4", "--shares=0.5,1", "--stop=a,b", "--stop=c", "--arms=b",
        "--arms=a", "--nosend_seed",
    ) == Everything(
        model="m", rows=4, rate=0.5, clip=float("inf"), task="math", dtype="bfloat16", step=3,
        folder=pathlib.Path("a/b"), seeds=(3, 4), shares=(0.5, 1.0), stop=("a,b", "c"),
        arms=("b", "a"), send_seed=False,
    )  # fmt: skip


def test_an_empty_list():
    assert everything("--shares=").shares == ()
    with pytest.raises(ValueError, match="--seeds=: give at least one, as 0,1"):
        everything("--seeds=")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--rows=0", r"--rows=0"),
        ("--rows=65", r"--rows=65"),
        ("--rows=many", r"--rows=many"),
        ("--rows=3", r"^--rows=3 must be even; `n` is no setting\.$"),
        ("--rate=nan", r"--rate=nan"),
        ("--rate=inf", r"^--rate=inf: give a finite number\.$"),
        ("--clip=nan", r"^--clip=nan: give a finite number\.$"),
        ("--task=sums", r"--task=sums: value should be one of <gsm8k\|math>"),
        ("--dtype=int8", r"--dtype=int8"),
        ("--seeds=1,b", r"^--seeds=1,b: give whole numbers, separated by commas\.$"),
        ("--seeds=-1", r"^--seeds=-1 must be at least 0\.$"),
        ("--shares=a", r"^--shares=a: give numbers, separated by commas\.$"),
        ("--arms=c", r"--arms=c"),
        ("--unknown=1", r"Unknown command line flag 'unknown'"),
        ("rows=4", r"^'rows=4' is no flag: they are written --name=value\.$"),
    ],
)
def test_a_wrong_flag_is_named(flag, message):
    with pytest.raises(ValueError, match=message):
        everything(flag)


def test_a_required_flag_is_asked_for():
    with pytest.raises(ValueError, match="--model"):
        parse([], Everything)


def test_several_configs_each_get_theirs():
    config, run_dir = parse(["--model=m", "--run_dir=r", "--rows=2"], Everything, RunDir)
    assert config == Everything(model="m", rows=2)
    assert run_dir == RunDir(run_dir=pathlib.Path("r"))


@pytest.mark.parametrize("value", ["", "gs://bucket/run"])
def test_a_run_folder_is_a_local_folder(value):
    with pytest.raises(ValueError, match=rf"--run_dir{'=' * bool(value)}.*name a folder"):
        parse([f"--run_dir={value}"], RunDir)


def test_help_has_flags_where_the_setting_s_help_names_settings():
    values = flags.FlagValues()
    define_flags([Everything], values)
    assert values["model"].help == "A folder; see --rows, but not `n`."
    text = values.get_help()
    assert "--rows: Rows." in text
    assert "(default: '8')" in text
    assert "--task: <gsm8k|math>: A task." in text


def test_messages_name_flags():
    names = {"rows", "seed"}
    message = "`rows=3` cannot be divided; see `seed` and `mesh=data=2`, not `a b`."
    expected = "--rows=3 cannot be divided; see --seed and `mesh=data=2`, not `a b`."
    assert in_flags(message, names) == expected


def ended(error: BaseException, *configs: type[Config]) -> str | int | None:
    """Returns what a program exits with whose main raises an error."""

    def main(*_: Config) -> None:
        raise error

    values = flags.FlagValues()
    define_flags([Everything, *configs], values)
    argv = values(["program", "--model=m", "--rows=4", *["--run_dir=r"] * len(configs)])
    with pytest.raises(SystemExit) as end:
        call(main, [Everything, *configs], argv, values)
    return end.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("`rows=9` ..."), "error: --rows=9 ..."),
        (SamplerError("no answer"), "error: no answer"),
        (FloatingPointError("the loss is nan"), "error: the loss is nan"),
        (IsADirectoryError(21, "Is a directory", "/"), "error: [Errno 21] Is a directory: '/'"),
    ],
)
def test_what_the_user_can_mend_ends_in_a_line(error, code):
    assert ended(error) == code


@pytest.mark.parametrize("error", [OSError("of no file"), FileNotFoundError("f"), ValueError("v")])
def test_faults_of_our_own_keep_their_trace(error):
    with pytest.raises(type(error)):
        ended(error)


def test_an_interrupt_is_no_fault(capsys):
    assert ended(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on\n"


PROGRAM = """
import dataclasses
from experiments.program import run
from jaxcritique.config import Config, setting

@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows(Config):
    rows: int = setting(8, "Rows of a step.", low=1)

def main(config):
    if config.rows == 1:
        raise KeyboardInterrupt
    if config.rows == 2:
        raise ValueError("ours")
    print(config.rows)

run(main, Rows)
"""


@pytest.mark.parametrize(
    ("argument", "code", "printed", "last"),
    [
        ("--rows=3", 0, "3\n", None),
        ("--rows=1", 130, "", "stopped"),
        ("--rows=2", 1, "", "ValueError: ours"),
        ("rows", 1, "", "error: 'rows' is no flag: they are written --name=value."),
        ("--flagfile=none.flags", 1, "", "none.flags"),
    ],
)
def test_a_started_program(argument, code, printed, last):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, printed), done.stderr
    if last is None:
        assert done.stderr == ""
    else:
        assert last in done.stderr.splitlines()[-1]
    assert ("Traceback" in done.stderr) == (argument == "--rows=2")
