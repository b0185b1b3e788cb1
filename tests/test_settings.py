import dataclasses
import json
import math
import pathlib
from typing import Literal

import numpy as np
import pytest

from jaxcritique.config import REQUIRED, Config, setting, settings_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Config):
    rows: int = setting(32, "Rows.", low=1, high=64)
    rate: float = setting(0.1, "Rate.", low=0)
    clip: float = setting(1.0, "Largest norm; inf: any.", infinite=True)
    schedule: str = setting("cosine", "Schedule.", choices=["cosine", "constant"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop(Config):
    folder: pathlib.Path = setting(REQUIRED, "Folder.")
    names: tuple[str, ...] = setting(("n",), "Names.")
    kind: Literal["a", "b"] | None = setting(None, "Kind.")
    sizes: tuple[int, ...] = setting((1, 2), "Sizes.", low=1)
    step: int | None = setting(None, "Step.", low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(Loop, Training):
    rows: int = setting(8, "Rows, fewer than elsewhere.", low=1, high=64)
    data: dict = dataclasses.field(default_factory=dict)  # Not a setting.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": 0}, "`rows=0` must be at least 1."),
        ({"rows": 65}, "`rows=65` must be at most 64."),
        ({"rate": -0.5}, "`rate=-0.5` must be at least 0."),
        ({"rate": math.nan}, "`rate=nan`: give a finite number."),
        ({"rate": math.inf}, "`rate=inf`: give a finite number."),
        ({"clip": math.nan}, "`clip=nan`: give a finite number."),
        ({"schedule": "linear"}, "`schedule=linear`: choose from cosine, constant."),
        ({"kind": "c"}, "`kind=c`: choose from a, b."),
        ({"sizes": (1, 0)}, "`sizes=0` must be at least 1."),
        ({"step": -1}, "`step=-1` must be at least 0."),
        ({"sizes": ()}, "`sizes=`: give at least one, as 1,2."),
        ({"names": ()}, "`names=`: give at least one, as n."),
        ({"rows": 8.5}, "`rows=8.5` must be a whole number, not float."),
        ({"rows": "8"}, "`rows=8` must be a whole number, not str."),
        ({"rows": True}, "`rows=True` must be a whole number, not bool."),
        ({"rows": None}, "`rows=None` must be a whole number, not NoneType."),
        ({"rate": "1e-5"}, "`rate=1e-5` must be a number, not str."),
        ({"schedule": 3}, "`schedule=3` must be a text, not int."),
        ({"sizes": "12"}, "`sizes=12`: give a tuple, such as ('12',)."),
        ({"sizes": 12}, "`sizes=12`: give a tuple, such as (12,)."),
        ({"sizes": ("12",)}, "`sizes=12` must be a whole number, not str."),
        ({"folder": 3}, "`folder=3` must be a path, not int."),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(values, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        Experiment(**{"folder": pathlib.Path("f"), **values})
    assert str(refused.value) == message


def test_bounds_are_allowed_and_so_is_none_where_it_is_the_default():
    config = Experiment(
        folder=pathlib.Path("f"), rows=64, rate=0, clip=math.inf, kind="a", sizes=(5,), step=None
    )
    assert (config.rows, config.clip, config.sizes) == (64, math.inf, (5,))


def test_values_are_converted_to_the_types_of_their_fields():
    config = Experiment(folder="f", rows=np.int64(8), rate=1, sizes=[3, np.int32(4)])
    assert config == Experiment(folder=pathlib.Path("f"), rows=8, rate=1.0, sizes=(3, 4))
    assert json.dumps(config.to_json()) == json.dumps(
        Experiment(folder=pathlib.Path("f"), rows=8, rate=1.0, sizes=(3, 4)).to_json()
    )


def test_a_required_setting_has_no_default():
    with pytest.raises(TypeError, match="folder"):
        Experiment()


def test_a_part_has_the_values_of_the_whole():
    experiment = Experiment(folder=pathlib.Path("f"), rate=0.2)
    assert experiment.part(Training) == Training(rows=8, rate=0.2)
    assert experiment.part(Loop) == Loop(folder=pathlib.Path("f"))


def test_a_part_checks_itself():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wide(Training):
        rows: int = setting(8, "Without bounds.")

    with pytest.raises(ValueError, match="`rows=99` must be at most 64"):
        Wide(rows=99).part(Training)


def test_settings_are_known_with_their_types():
    fields = {field.name: field for field in settings_of(Experiment)}
    assert "data" not in fields
    assert fields["folder"].type is pathlib.Path
    assert fields["folder"].default is REQUIRED
    assert (fields["sizes"].type, fields["sizes"].is_tuple) == (int, True)
    assert (fields["step"].type, fields["step"].optional) == (int, True)
    assert (fields["kind"].type, fields["kind"].choices) == (str, ("a", "b"))
    assert (fields["rows"].default, fields["rows"].help) == (
        8,
        "Rows, fewer than elsewhere.",
    )


def test_settings_as_json():
    written = json.loads(json.dumps(Experiment(folder=pathlib.Path("f/g")).to_json()))
    assert written["folder"] == "f/g"
    assert (written["sizes"], written["kind"], written["rows"]) == ([1, 2], None, 8)
