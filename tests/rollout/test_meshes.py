"""On eight devices the engine writes what it writes on one."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import save_pretrained
from jaxcritique.models.transformer import abstract
from jaxcritique.tasks import TINY_BASE

ROOT = pathlib.Path(__file__).resolve().parents[2]
ONE, DATA, FSDP, MIXED = "fsdp=1", "data=4,tensor=2", "", "data=2,fsdp=2,tensor=2"


CONFIG = ModelConfig(
    vocab_size=768,  # The tiny base's, for its tokenizer.
    dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=48,
    max_positions=256,
)


def run(folder: pathlib.Path, devices: int, *meshes: str) -> dict[str, dict]:
    output = folder / f"written-{devices}.json"
    program = str(ROOT / "tests" / "rollout" / "meshes.py")
    subprocess.run(
        [sys.executable, program, str(output), str(folder / "model"), *meshes],
        check=True,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
        },
        timeout=600,
    )
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, dict]:
    folder, rng = tmp_path_factory.mktemp("meshes"), np.random.default_rng(0)
    shapes = abstract(CONFIG)[1]
    params = jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), shapes)
    save_pretrained(folder / "model", CONFIG, params, TINY_BASE)
    return run(folder, 1, ONE) | run(folder, 8, DATA, FSDP, MIXED)


@pytest.mark.parametrize(
    ("mesh", "ways", "shards", "heads"), [(DATA, 4, 2, 2), (FSDP, 8, 8, 1), (MIXED, 4, 4, 2)]
)
def test_a_mesh_changes_no_text(mesh, ways, shards, heads, written):
    one, many = written[ONE], written[mesh]
    assert len(one["texts"]) == 24
    assert many["texts"] == one["texts"]
    # Every device holds its part only, of the weights as of the cache.
    (dim, mlp), (dim_shard, mlp_shard) = one["gate"], many["gate"]
    assert dim * mlp == shards * dim_shard * mlp_shard
    for (slots, kv_heads, *rest), shard in many["caches"]:
        assert slots == 8  # Six, but divisible by `ways`.
        assert shard == [slots // ways, kv_heads // heads, *rest]
