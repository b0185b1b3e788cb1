"""Pretraining a tiny base, at the smallest sizes."""

import json
import pathlib

import pytest

from jaxcritique.models.config import ModelConfig
from jaxcritique.tasks import TINY_BASE


@pytest.fixture(scope="module")
def small(run, tmp_path_factory) -> pathlib.Path:
    """A base of another size, trained for a step."""
    run_dir = tmp_path_factory.mktemp("base")
    sizes = ("--dim=64", "--layers=1", "--steps=1", "--stop_at=1", "--rows=2", "--sequence=320")
    done = run("pretrain_tiny", f"--run_dir={run_dir}", *sizes)
    assert done.returncode == 0, done.stderr
    return run_dir / "tiny_base"


def test_the_sizes_of_a_base_are_what_was_asked_for(small):
    config = ModelConfig.load(small)
    assert (config.dim, config.num_layers, config.num_heads, config.mlp_dim) == (64, 1, 1, 192)
    record = json.loads((small / "pretraining.json").read_text())
    assert record["parameters"] == config.num_parameters
    assert (record["dim"], record["layers"]) == (64, 1)
    # The shipped base is of the sizes that are the defaults.
    shipped = ModelConfig.load(TINY_BASE)
    assert (shipped.dim, shipped.num_layers, shipped.mlp_dim) == (192, 5, 512)


@pytest.mark.parametrize(("flag", "message"), [
    ("--rows=17", "flag --rows=17: --rows must be even."),
    ("--dim=100", "flag --dim=100: --dim must be a multiple of 64"),
])  # fmt: skip
def test_bad_input_is_refused_in_a_line(flag, message, run, tmp_path):
    run_dir = tmp_path / "run"
    done = run("pretrain_tiny", f"--run_dir={run_dir}", flag)
    assert done.returncode == 1
    assert message in done.stderr
    assert not run_dir.exists()
