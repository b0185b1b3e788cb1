"""Pretraining a tiny base, at the smallest sizes."""

import json
import pathlib
import re

import pytest

from experiments.pretraining.tiny_base import PretrainConfig
from experiments.program import parse
from jaxcritique.models.config import ModelConfig
from jaxcritique.prompts.templates import COMPACT, PromptSet
from jaxcritique.tasks import TINY_BASE


@pytest.fixture(scope="module")
def small(run, tmp_path_factory) -> pathlib.Path:
    """A base of another size, trained for a step."""
    run_dir = tmp_path_factory.mktemp("base")
    sizes = ("--dim=64", "--layers=1", "--steps=1", "--stop_at=1", "--rows=2", "--sequence=320")
    done = run("pretrain_tiny", f"--run_dir={run_dir}", *sizes)
    assert done.returncode == 0, done.stderr
    return run_dir / "tiny_base"


@pytest.mark.slow
def test_the_sizes_of_a_base_are_what_was_asked_for(small):
    config = ModelConfig.load(small)
    assert (config.dim, config.num_layers, config.num_heads, config.mlp_dim) == (64, 1, 1, 192)
    record = json.loads((small / "pretraining.json").read_text())
    assert record["parameters"] == config.num_parameters
    assert (record["dim"], record["layers"]) == (64, 1)
    assert PromptSet.read(small) is COMPACT
    # The shipped base is of the sizes that are the defaults.
    shipped = ModelConfig.load(TINY_BASE)
    assert (shipped.dim, shipped.num_layers, shipped.mlp_dim) == (192, 5, 512)


@pytest.mark.parametrize(("flag", "message"), [
    ("--rows=17", "--rows=17 must be even."),
    ("--dim=100", "--dim=100 must be a multiple of 64"),
    ("--stop_at=1700", "--stop_at=1700 must not be beyond --steps=1600."),
    ("--level_weights=a,b", "--level_weights=a,b: give numbers, separated by commas."),
    ("--level_weights=1,2,3", "--level_weights: give five numbers from 0"),
    ("--level_weights=0,0,0,0,0", "--level_weights: give five numbers from 0"),
    ("--level_weights=1,1,1,1,-1", "--level_weights=-1.0 must be at least 0."),
    ("--level_weights=1,1,1,1,nan", "--level_weights=nan: give a finite number."),
])  # fmt: skip
def test_bad_input_is_refused(flag, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse([flag], PretrainConfig)
