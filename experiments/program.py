"""What every program here is made of: flags derived from configs, and errors in one line.

A program names its configs and a function of them:

    CONFIGS = SelfImproveConfig, EngineConfig, RunDir

    def main(config: SelfImproveConfig, engine: EngineConfig, run_dir: RunDir) -> None: ...

    if __name__ == "__main__":
        run(main, *CONFIGS)
"""

import dataclasses
import functools
import os
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Container, Sequence
from typing import Any

from absl import app, flags, logging

from jaxcritique.config import REQUIRED, Config, ConfigField, setting, settings_of
from jaxcritique.errors import InvalidInput, checking_input
from jaxcritique.rollout.sampler import SamplerError

_PACKAGES = pathlib.Path(__file__).resolve().parents[1]  # The folder that holds our packages.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDir(Config):
    """Where a program keeps everything it makes."""

    run_dir: pathlib.Path = setting(REQUIRED, "Folder for everything this run makes.")

    def __post_init__(self) -> None:
        """Checks that it names a local folder."""
        super().__post_init__()
        if str(self.run_dir) == ".":  # As an unset variable of a shell leaves it.
            raise ValueError("`run_dir` is empty: name a folder.")
        if ":/" in str(self.run_dir):
            raise ValueError(
                f"`run_dir={self.run_dir}`: name a folder; mount a bucket to write to one."
            )


def run(main: Callable[..., None], *configs: type[Config]) -> None:
    """Runs `main` as an absl program, with an instance of each config, made from the flags.

    Errors that the user can mend end the program in one line. Libraries' INFO messages show only
    with --verbosity=0.
    """
    define_flags(configs, flags.FLAGS)
    logging.set_verbosity(logging.WARNING)  # Before flags are parsed: --verbosity overrides it.
    try:
        arguments = read_flagfiles(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    app.run(functools.partial(call, main, configs, values=flags.FLAGS), [sys.argv[0], *arguments])


def call(
    main: Callable[..., None],
    configs: Sequence[type[Config]],
    argv: Sequence[str],
    values: flags.FlagValues,
) -> None:
    """Calls `main` with the configs that parsed flags make.

    Args:
      main: of a program.
      configs: what it takes.
      argv: the program's name, and what was left of its arguments once flags were parsed.
      values: the parsed flags.

    Raises:
      SystemExit: an error that the user can mend, as the line to print; or an exit code.
    """
    try:
        if argv[1:]:
            raise InvalidInput(f"{argv[1]!r} is no flag: they are written --name=value.")
        with checking_input():
            made = read_configs(configs, values)
        main(*made)
        sys.stdout.flush()
    except (InvalidInput, SamplerError, FloatingPointError) as error:
        sys.exit(f"error: {in_flags(str(error), values)}")
    except BrokenPipeError:  # Whoever reads what is printed, as `head` does, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def parse(argv: Sequence[str], *configs: type[Config]) -> list[Config]:
    """Returns the configs that a program makes of its arguments, flagfiles included.

    Raises:
      ValueError: the arguments are refused, as the program would refuse them.
    """
    values = flags.FlagValues()
    define_flags(configs, values)
    try:
        rest = values(["program", *read_flagfiles(argv)])
        if rest[1:]:
            raise ValueError(f"{rest[1]!r} is no flag: they are written --name=value.")
        return read_configs(configs, values)
    except (flags.Error, ValueError) as error:
        raise ValueError(in_flags(str(error), values)) from error


def shipped(path: str) -> str:
    """Finds a file of our packages, as experiments/flagfiles/quickstart.flags, from any folder.

    Args:
      path: of a file or folder.

    Returns:
      Where it is beside the packages, if its first folder is one of them and it is not in the
      working directory; otherwise `path` as it is.
    """
    beside = _PACKAGES / path
    ours = path.startswith(("experiments/", "jaxcritique/"))
    return str(beside) if ours and beside.exists() and not os.path.exists(path) else path


class _Flagfiles(flags.FlagValues):
    """Reads flagfiles as absl does, and also those that are `shipped`."""

    def _get_flag_file_lines(
        self, filename: str, parsed_file_stack: list[str] | None = None
    ) -> list[str]:
        return super()._get_flag_file_lines(shipped(filename), parsed_file_stack)


def read_flagfiles(argv: Sequence[str]) -> list[str]:
    """Returns arguments with the lines of each flagfile in the place of its --flagfile.

    Raises:
      ValueError: a flagfile cannot be read.
    """
    try:
        return _Flagfiles().read_flags_from_files(argv)
    except flags.Error as error:
        raise ValueError(str(error)) from None


def define_flags(configs: Sequence[type[Config]], values: flags.FlagValues) -> None:
    """Defines a flag for each setting of the configs."""
    fields = [field for config in configs for field in settings_of(config)]
    names = {field.name for field in fields}
    for field in fields:
        _define(field, in_flags(field.help, names), values)


def read_configs(configs: Sequence[type[Config]], values: flags.FlagValues) -> list[Config]:
    """Makes the configs from the flags.

    Raises:
      ValueError: a value is refused; the setting is named.
    """
    return [
        config(**{field.name: _read(field, values) for field in settings_of(config)})
        for config in configs
    ]


def in_flags(message: str, names: Container[str]) -> str:
    """Writes the settings of these names that a message has, as `rows` or `rows=3`, as flags."""

    def flag(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        return f"--{name}{value or ''}" if name in names else match[0]

    return re.sub(r"`(\w+)(=[^`]*)?`", flag, message)


def _define(field: ConfigField, help: str, values: flags.FlagValues) -> None:
    name = field.name
    default: Any = None if field.default is REQUIRED else field.default
    if isinstance(default, pathlib.Path):
        default = str(default)
    more: dict[str, Any] = {
        "flag_values": values,
        "required": field.default is REQUIRED,
        "module_name": sys.argv[0],  # Those are the flags that --help shows.
    }
    bounds = {"lower_bound": field.low, "upper_bound": field.high}
    if field.is_tuple:
        default = None if default is None else list(map(str, default))
        if field.repeated and field.choices:
            flags.DEFINE_multi_enum(name, default, field.choices, help, **more)
        elif field.repeated:
            flags.DEFINE_multi_string(name, default, help, **more)
        else:
            flags.DEFINE_list(name, default, help, **more)
    elif field.choices:
        flags.DEFINE_enum(name, default, field.choices, help, **more)
    elif field.type is bool:
        flags.DEFINE_bool(name, default, help, **more)
    elif field.type is int:
        flags.DEFINE_integer(name, default, help, **bounds, **more)
    elif field.type is float:
        flags.DEFINE_float(name, default, help, **bounds, **more)
    else:
        flags.DEFINE_string(name, default, help, **more)


def _read(field: ConfigField, values: flags.FlagValues) -> Any:
    def typed(one: Any) -> Any:
        return field.type(shipped(one) if isinstance(one, str) else one)

    value: Any = values[field.name].value
    if not field.is_tuple:
        return None if value is None else typed(value)
    try:
        return tuple(map(typed, value or ()))
    except ValueError:
        kind = "whole numbers" if field.type is int else "numbers"
        raise ValueError(
            f"`{field.name}={','.join(value)}`: give {kind}, separated by commas."
        ) from None


def join_processes(pod: bool = False) -> None:
    """Joins the other processes of this run, before JAX is used for anything else.

    Args:
      pod: whether to find them as JAX does on a TPU pod or under Slurm. Otherwise they are those
        that `launchers.local` started, if it did.
    """
    import jax  # Not every program needs it.

    if "JAX_NUM_PROCESSES" in os.environ:
        jax.distributed.initialize(
            os.environ["JAX_COORDINATOR_ADDRESS"],
            int(os.environ["JAX_NUM_PROCESSES"]),
            int(os.environ["JAX_PROCESS_ID"]),
        )
    elif pod:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            sys.exit(
                f"error: --distributed: {error} This is for TPU pods, Slurm and the like; several "
                "processes on one machine are started by launchers.local."
            )
