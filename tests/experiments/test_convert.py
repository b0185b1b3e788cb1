"""Hugging Face -> Orbax -> Hugging Face, bit for bit."""

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxcritique.models.huggingface import load_pretrained, save_pretrained
from jaxcritique.tasks import TINY_BASE


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_round_trip(dtype, run, tmp_path):
    save_pretrained(tmp_path / "hf", load_pretrained(TINY_BASE), TINY_BASE, dtype)
    for source, target in (("hf", "orbax"), ("orbax", "again")):
        result = run("convert", f"--input={tmp_path / source}", f"--output={tmp_path / target}")
        assert result.returncode == 0, result.stderr
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "again"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype == dtype
        assert after[name].tobytes() == tensor.tobytes()
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names
    for name in names - {"model.safetensors"}:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes()


def test_refusals(run, tmp_path):
    (tmp_path / "empty").mkdir()
    for source, target, message in (
        (tmp_path / "none", tmp_path / "out", "no such folder"),
        (tmp_path / "empty", tmp_path / "out", "config.json: no such file"),
        (TINY_BASE, tmp_path, "is not empty"),
    ):
        result = run("convert", f"--input={source}", f"--output={target}")
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith("error: ")
        assert message in result.stderr
