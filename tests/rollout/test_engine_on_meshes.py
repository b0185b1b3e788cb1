"""On eight devices the engine writes what it writes on one."""

import json
import pathlib
import subprocess
import sys

import jax
import mesh_texts
import numpy as np
import pytest

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder, save_pretrained
from jaxcritique.models.transformer import abstract
from jaxcritique.tasks import TINY_BASE

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The mesh, and the parts in which slots, a weight and the heads of the cache lie on it.
MESHES = [
    ("", 8, 8, 1),  # All fsdp.
    ("data=4,tensor=2", 4, 2, 2),
    ("data=2,fsdp=2,tensor=2", 4, 4, 2),
]
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


@pytest.fixture(scope="module")
def written(program_environment, tmp_path_factory) -> dict[str, dict]:
    folder, rng = tmp_path_factory.mktemp("meshes"), np.random.default_rng(0)
    draw = lambda x: 0.3 * rng.standard_normal(x.shape, np.float32)  # noqa: E731
    save_pretrained(folder / "model", jax.tree.map(draw, abstract(CONFIG)), TINY_BASE)
    program, output = ROOT / "tests" / "rollout" / "mesh_texts.py", folder / "written.json"
    subprocess.run(
        [sys.executable, program, output, folder / "model", *(mesh for mesh, *_ in MESHES)],
        check=True,
        env={**program_environment, "JAX_NUM_CPU_DEVICES": "8"},
        timeout=600,
    )
    one = mesh_texts.written(ModelFolder.of(folder / "model"), "")
    return {"one device": json.loads(json.dumps(one)), **json.loads(output.read_text())}


@pytest.mark.slow
@pytest.mark.parametrize(("mesh", "ways", "shards", "heads"), MESHES)
def test_a_mesh_changes_no_text(mesh, ways, shards, heads, written):
    one, many = written["one device"], written[mesh]
    assert len(one["texts"]) == 24
    assert many["texts"] == one["texts"]
    # Every device holds its part only, of the weights as of the cache.
    (dim, mlp), (dim_shard, mlp_shard) = one["gate"], many["gate"]
    assert dim * mlp == shards * dim_shard * mlp_shard
    for (slots, kv_heads, *rest), shard in many["caches"]:
        assert slots == 8  # Six, but divisible by `ways`.
        assert shard == [slots // ways, kv_heads // heads, *rest]
