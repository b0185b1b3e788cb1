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
import numbers
import os
import pathlib
import typing
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

C = TypeVar("C", bound="Config")
REQUIRED: Any = dataclasses.MISSING


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
    known = {"help": help, "low": low, "high": high, "choices": tuple(choices)}
    return dataclasses.field(
        default=default, metadata={**known, "repeated": repeated, "infinite": infinite}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of all configs."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Adds the fields' help texts to the class's docstring, so that `help` shows them."""
        super().__init_subclass__(**options)
        helps = {
            name: f"  {name}: {field.metadata['help']}"
            for base in reversed(cls.__mro__)
            for name, field in _declared(base).items()
        }
        cls.__doc__ = "\n".join([cls.__doc__ or "", "", "Attributes:", *helps.values()])

    def __post_init__(self) -> None:
        """Checks every field's type, bounds and choices; configs with more to check override.

        Lists become tuples, and paths and texts each other, as the field's type says.

        Raises:
          ValueError: one is violated; the field is named.
        """
        for field in settings_of(type(self)):
            object.__setattr__(self, field.name, field.checked(getattr(self, field.name)))

    def part(self, cls: type[C]) -> C:
        """Returns the settings of one of the configs that this one inherits from."""
        return cls(**{field.name: getattr(self, field.name) for field in dataclasses.fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """Returns all settings as JSON values."""
        return {
            name: str(value) if hasattr(value, "__fspath__") else value
            for name, value in dataclasses.asdict(self).items()
        }


def _declared(cls: type) -> dict[str, Any]:
    """Returns the fields that a class itself declares with `setting`."""
    # Before `dataclass` has made the class, its fields are attributes.
    fields = vars(cls).get("__dataclass_fields__", vars(cls))
    return {
        name: fields[name]
        for name in vars(cls).get("__annotations__", {})
        if getattr(fields.get(name), "metadata", None)
    }


@dataclasses.dataclass(frozen=True)
class ConfigField:
    """A field of a config, with its type taken apart."""

    name: str
    type: Any  # Of one value: bool, int, float, str or pathlib.Path.
    default: Any  # `REQUIRED` where there is none.
    is_tuple: bool
    optional: bool
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    repeated: bool
    infinite: bool

    def checked(self, value: Any) -> Any:
        """Returns a value of the field, converted to its type.

        Raises:
          ValueError: it is of another type, out of bounds, or none of the choices; or it is an
            empty tuple, whose default is not.
        """
        if value is None and self.optional:
            return None
        if not self.is_tuple:
            return self._checked(value)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(f"`{self.name}={value}`: give a tuple, such as ({value!r},).")
        values = tuple(self._checked(one) for one in cast(Iterable[Any], value))
        if not values and self.default != ():
            example = "" if self.default is REQUIRED else f", as {','.join(map(str, self.default))}"
            raise ValueError(f"`{self.name}=`: give at least one{example}.")
        return values

    def _checked(self, value: Any) -> Any:
        wrong = f"`{self.name}={value}`"
        kinds, kind = _KINDS[self.type]
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.type is not bool):
            raise ValueError(f"{wrong} must be {kind}, not {type(value).__name__}.")
        value = self.type(value)
        if self.choices and value not in self.choices:
            raise ValueError(f"{wrong}: choose from {', '.join(self.choices)}.")
        if self.type not in (int, float):
            return value
        if math.isnan(value) or (math.isinf(value) and not self.infinite):
            raise ValueError(f"{wrong}: give a finite number.")
        if self.low is not None and value < self.low:
            raise ValueError(f"{wrong} must be at least {self.low:g}.")
        if self.high is not None and value > self.high:
            raise ValueError(f"{wrong} must be at most {self.high:g}.")
        return value


# What a value of each type may be given as.
_KINDS: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    str: (str | os.PathLike, "a text"),
    pathlib.Path: (str | os.PathLike, "a path"),
}


def settings_of(cls: type[Config]) -> list[ConfigField]:
    """Returns the fields of a config that `setting` made, in order."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if not field.metadata:
            continue
        known = dict(field.metadata)
        hint, arguments = hints[field.name], typing.get_args(hints[field.name])
        optional = type(None) in arguments
        if optional:
            [hint] = (argument for argument in arguments if argument is not type(None))
        is_tuple = typing.get_origin(hint) is tuple
        if is_tuple:
            hint = typing.get_args(hint)[0]
        if typing.get_origin(hint) is typing.Literal:
            known["choices"] = typing.get_args(hint)
            hint = str
        found.append(ConfigField(field.name, hint, field.default, is_tuple, optional, **known))
    return found
