"""A new family is added in one place: its entry and the rows of its weights."""

import json
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file, save_file

from jaxcritique.models import config as families
from jaxcritique.models import weights
from jaxcritique.models.config import Family, ModelConfig
from jaxcritique.models.huggingface import load_pretrained, save_pretrained
from jaxcritique.models.sharding import make_mesh
from jaxcritique.models.transformer import Decoder, abstract, initialize
from jaxcritique.models.weights import Weight, map_weights
from jaxcritique.tasks import TINY_BASE


@pytest.fixture
def toy(monkeypatch) -> None:
    """A family with fused q/k/v, transposed `out`, an MLP of other names and biases."""
    is_toy = lambda config: config.family == "toy"  # noqa: E731
    block = "transformer.h.{i}."
    rows = [
        Weight("layers.q", "d n h", P("fsdp", "tensor", None), block + "qkv", "(n h) d",
               when=is_toy),
        Weight("layers.k", "d k h", P("fsdp", "tensor", None), block + "qkv", "(k h) d",
               when=is_toy),
        Weight("layers.v", "d k h", P("fsdp", "tensor", None), block + "qkv", "(k h) d",
               when=is_toy),
        Weight("layers.out", "n h d", P("tensor", None, "fsdp"), block + "proj", "(n h) d",
               when=is_toy),
        Weight("layers.gate", "d m", P("fsdp", "tensor"), block + "gate", "d m", when=is_toy),
    ]  # fmt: skip
    monkeypatch.setattr(weights, "WEIGHTS", [*weights.WEIGHTS, *rows])
    monkeypatch.setitem(
        families.FAMILIES, "toy", Family("ToyForCausalLM", "toys", switches={"qkv_bias": True})
    )


@pytest.fixture
def toy_folder(toy, tmp_path):
    """A folder of that family, with the tiny base's tokenizer, and the tensors in it."""
    config = ModelConfig(
        vocab_size=768,
        dim=16,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=6,
        mlp_dim=24,
        max_positions=512,
        qkv_bias=True,
        family="toy",
    )
    folder = tmp_path / "toy"
    shutil.copytree(TINY_BASE, folder)
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    tensors = {"model.embed_tokens.weight": draw(768, 16), "lm_head.weight": draw(768, 16)}
    tensors["model.norm.weight"] = draw(16)
    for i in range(2):
        tensors |= {
            f"transformer.h.{i}.qkv": draw((4 + 2 + 2) * 6, 16),
            f"transformer.h.{i}.proj": draw(4 * 6, 16),
            f"transformer.h.{i}.gate": draw(16, 24),
            f"model.layers.{i}.mlp.up_proj.weight": draw(24, 16),
            f"model.layers.{i}.mlp.down_proj.weight": draw(16, 24),
            f"model.layers.{i}.input_layernorm.weight": draw(16),
            f"model.layers.{i}.post_attention_layernorm.weight": draw(16),
        }
        for name, heads in (("q", 4), ("k", 2), ("v", 2)):
            tensors[f"model.layers.{i}.self_attn.{name}_proj.bias"] = draw(heads * 6)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_hf()))
    return folder, tensors


def assert_same_tensors(folder, tensors) -> None:
    written = load_file(folder / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)


@pytest.mark.parametrize("kind", ["default device", "mesh"])
def test_a_family_is_its_rows_of_the_table(kind, toy_folder, tmp_path):
    folder, tensors = toy_folder
    model = load_pretrained(folder, make_mesh() if kind == "mesh" else None)
    qkv = tensors["transformer.h.1.qkv"]
    np.testing.assert_array_equal(model.layers.q[1], qkv[:24].T.reshape(16, 4, 6))
    np.testing.assert_array_equal(model.layers.k[1], qkv[24:36].T.reshape(16, 2, 6))
    np.testing.assert_array_equal(model.layers.v[1], qkv[36:].T.reshape(16, 2, 6))
    proj = tensors["transformer.h.1.proj"]
    np.testing.assert_array_equal(model.layers.out[1], proj.reshape(4, 6, 16))
    np.testing.assert_array_equal(model.layers.gate[1], tensors["transformer.h.1.gate"])
    save_pretrained(tmp_path / "again", model, folder)
    assert_same_tensors(tmp_path / "again", tensors)
    assert sum(x.size for x in jax.tree.leaves(model)) == model.config.num_parameters


def test_a_family_is_converted(toy_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # What the import below sets is undone.
    from experiments.convert import ConvertConfig, main

    folder, tensors = toy_folder
    main(ConvertConfig(input=folder, output=tmp_path / "orbax"))
    main(ConvertConfig(input=tmp_path / "orbax", output=tmp_path / "again"))
    assert_same_tensors(tmp_path / "again", tensors)


def test_a_family_is_initialised_and_decoded(toy_folder):
    folder, _ = toy_folder
    stacked = load_pretrained(folder)
    decoder, expected = load_pretrained(folder, kind=Decoder), stacked.unstacked()
    jax.tree.map(np.testing.assert_array_equal, decoder, expected)
    drawn = initialize(stacked.config, seed=0)
    assert jax.tree.structure(drawn) == jax.tree.structure(abstract(stacked.config))
    assert not np.any(drawn.layers.q_bias)


def test_a_part_that_is_missing_is_named(toy_folder):
    folder, tensors = toy_folder
    tensors["transformer.h.1.qkv"] = tensors["transformer.h.1.qkv"][:-1]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"h\.1\.qkv has shape \(47, 16\), expected \(48, 16\)"):
        load_pretrained(folder)


def test_an_array_outside_of_the_table_is_refused(tiny):
    with pytest.raises(KeyError, match="extra"):
        map_weights(lambda row, x: x, {"model": tiny, "extra": np.zeros(3)})
