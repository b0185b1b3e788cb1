"""Settings as frozen dataclasses: each field has one default, a help text, and bounds.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class LoopConfig(Config):
        samples: int = setting(10, "N, responses to a problem.", low=1)

A config is checked when it is made. `experiments.program` derives flags of the same names from it.
An experiment's config inherits from those of the parts that it is made of; `part` takes one of them
out again.
"""

import dataclasses
import math
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

C = TypeVar("C", bound="Config")
REQUIRED: Any = dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a field beside its type and default."""

    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    repeated: bool = False
    infinite: bool = False


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    repeated: bool = False,
    infinite: bool = False,
) -> Any:
    """Returns a dataclass field.

    Args:
      default: its value; `REQUIRED` where there is none.
      help: what it is, for people; with its unit, and the paper's value where the paper gives one.
      low: the least number allowed.
      high: the greatest number allowed.
      choices: the texts allowed; empty where any is (or the field's type is a `Literal`).
      repeated: of a tuple: its flag is given once for each entry, not once with commas.
      infinite: whether a float may be infinite.
    """
    known = Setting(help, low, high, tuple(choices), repeated, infinite)
    return dataclasses.field(default=default, metadata={"setting": known})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs."""

    def __post_init__(self) -> None:
        """Checks every field against its bounds and choices; configs with more to check override.

        Raises:
          ValueError: one is violated; the field is named.
        """
        for field in settings_of(type(self)):
            value = getattr(self, field.name)
            for one in value if isinstance(value, tuple) else (value,):
                field.check(one)

    def part(self, cls: type[C]) -> C:
        """Returns the settings of one of the configs that this one inherits from."""
        return cls(**{field.name: getattr(self, field.name) for field in dataclasses.fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """Returns all settings as JSON values."""
        return {
            name: str(value) if hasattr(value, "__fspath__") else value
            for name, value in dataclasses.asdict(self).items()
        }


@dataclasses.dataclass(frozen=True)
class ConfigField:
    """A field of a config, with its type taken apart."""

    name: str
    type: Any  # Of one value: bool, int, float, str or pathlib.Path.
    default: Any  # `REQUIRED` where there is none.
    is_tuple: bool
    optional: bool
    setting: Setting

    def check(self, value: Any) -> None:
        """Checks one value.

        Raises:
          ValueError: it is out of bounds, or none of the choices.
        """
        known, wrong = self.setting, f"`{self.name}={value}`"
        if value is None and self.optional:
            return
        if known.choices and value not in known.choices:
            raise ValueError(f"{wrong}: choose from {', '.join(known.choices)}.")
        if not isinstance(value, int | float) or isinstance(value, bool):
            return
        if math.isnan(value) or (math.isinf(value) and not known.infinite):
            raise ValueError(f"{wrong}: give a finite number.")
        if known.low is not None and value < known.low:
            raise ValueError(f"{wrong} must be at least {known.low:g}.")
        if known.high is not None and value > known.high:
            raise ValueError(f"{wrong} must be at most {known.high:g}.")


def settings_of(cls: type[Config]) -> list[ConfigField]:
    """Returns the fields of a config that `setting` made, in order."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if "setting" not in field.metadata:
            continue
        known: Setting = field.metadata["setting"]
        hint, arguments = hints[field.name], typing.get_args(hints[field.name])
        optional = type(None) in arguments
        if optional:
            [hint] = (argument for argument in arguments if argument is not type(None))
        is_tuple = typing.get_origin(hint) is tuple
        if is_tuple:
            hint = typing.get_args(hint)[0]
        if typing.get_origin(hint) is typing.Literal:
            known = dataclasses.replace(known, choices=typing.get_args(hint))
            hint = str
        found.append(ConfigField(field.name, hint, field.default, is_tuple, optional, known))
    return found
