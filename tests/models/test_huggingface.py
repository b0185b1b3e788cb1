import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from jaxcritique.models import huggingface
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder, load_pretrained, save_pretrained
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import abstract
from jaxcritique.tasks import TINY_BASE

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAMILIES = ["llama", "qwen2", "qwen3"]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def tensors(folder) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_is_bit_for_bit_and_loads_in_transformers(
    family, tied, make_hf_model, tokenizer_folder, tmp_path
):
    model = make_hf_model(
        family, tie_word_embeddings=tied, head_dim=12, rms_norm_eps=0.5, rope_parameters=LLAMA3
    )
    model.save_pretrained(tmp_path / "theirs")
    loaded = load_pretrained(tmp_path / "theirs")
    save_pretrained(tmp_path / "ours", loaded, tokenizer_folder)

    assert_same(tensors(tmp_path / "ours"), tensors(tmp_path / "theirs"))
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", attn_implementation="eager"
    )
    assert type(again) is type(model)
    tokens = torch.arange(64)[None]
    assert torch.equal(model(tokens).logits, again(tokens).logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_read_exactly(dtype, make_hf_model, tokenizer_folder, tmp_path):
    make_hf_model("llama").to(dtype).save_pretrained(tmp_path / "theirs")
    loaded = load_pretrained(tmp_path / "theirs")
    assert loaded.embedding.dtype == np.float32

    named = {torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}[dtype]
    save_pretrained(tmp_path / "ours", loaded, tokenizer_folder, dtype=named)
    assert_same(tensors(tmp_path / "ours"), tensors(tmp_path / "theirs"))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert again.dtype == dtype


def test_shards_are_read(make_hf_model, tmp_path):
    model = make_hf_model("llama")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="10KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = load_pretrained(tmp_path / "one"), load_pretrained(tmp_path / "many")
    np.testing.assert_array_equal(one.head, many.head)
    np.testing.assert_array_equal(one.layers.down, many.layers.down)


def test_shards_are_written(make_hf_model, tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface, "_SHARD_BYTES", 10_000)
    model = make_hf_model("llama")
    model.save_pretrained(tmp_path / "theirs")
    loaded = load_pretrained(tmp_path / "theirs")
    save_pretrained(tmp_path / "ours", loaded, tokenizer_folder)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert_same(again.state_dict(), model.state_dict())


def test_export_has_the_tokenizer_and_its_ends(make_hf_model, tokenizer_folder, tmp_path):
    make_hf_model("llama").save_pretrained(tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model")
    save_pretrained(tmp_path / "ours", loaded, tokenizer_folder)
    theirs, ours = Tokenizer(tokenizer_folder), Tokenizer(tmp_path / "ours")
    messages = [{"role": "user", "content": "2 + 2?"}]
    assert ours.prompt(messages) == theirs.prompt(messages)
    assert ours.stop_ids == theirs.stop_ids
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "ours")
    assert (generation.bos_token_id, generation.eos_token_id) == (1, 2)


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int8, "I8"), (torch.uint8, "U8")]
)
def test_a_quantised_tensor_without_a_config_is_refused_in_a_line(
    dtype, name, make_hf_model, tmp_path
):
    make_hf_model("llama").save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    key = "model.layers.0.mlp.down_proj.weight"
    save_file(stored | {key: stored[key].to(dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=rf"{key} is stored as {name}; quantised weights are not"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("ends", [{"eos_token_id": 0}, {"eos_token_id": [0, 1]}, {}])
def test_an_export_stops_where_training_ends_a_reply(ends, make_hf_model, make_tokenizer, tmp_path):
    """Whatever generation_config.json named as the end: `transformers.generate` stops there."""
    folder = make_tokenizer(None)
    (folder / "generation_config.json").write_text(json.dumps({**ends, "temperature": 0.5}))
    make_hf_model("llama").save_pretrained(tmp_path / "model")
    save_pretrained(tmp_path / "ours", load_pretrained(tmp_path / "model"), folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    eos = Tokenizer(folder).hf.eos_token_id
    assert eos in model.generation_config.eos_token_id
    assert model.generation_config.temperature == 0.5
    # It would go on for ever: the end token is always the likeliest.
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size)
    torch.nn.init.zeros_(head.weight)
    head.bias.data = torch.eye(model.config.vocab_size)[eos]
    model.lm_head = head
    generated = model.generate(torch.tensor([[5, 6]]), do_sample=False, max_new_tokens=20)
    assert generated[0].tolist() == [5, 6, eos]


def test_failed_export_leaves_what_was_there(make_hf_model, tokenizer_folder, tmp_path):
    make_hf_model("llama").save_pretrained(tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model")
    before = tensors(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        save_pretrained(tmp_path / "model", loaded, tmp_path / "no tokenizer")
    assert_same(tensors(tmp_path / "model"), before)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_missing_weights(make_hf_model, tmp_path):
    make_hf_model("llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        load_pretrained(tmp_path)


def test_missing_shard_and_broken_index(make_hf_model, tmp_path):
    make_hf_model("llama").save_pretrained(tmp_path, max_shard_size="10KB")
    shard = min(tmp_path.glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard.name}: no such file, though"):
        load_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {}}')
    with pytest.raises(ValueError, match=r"index\.json: not an index of weights"):
        load_pretrained(tmp_path)


def test_a_tokenizer_that_was_cut_off_is_found_with_the_model(tmp_path):
    folder = shutil.copytree(TINY_BASE, tmp_path / "model")
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged or cut off .* copy it anew"):
        ModelFolder.of(folder)
    path.unlink()
    (folder / "tokenizer.model").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json or tokenizer\.model"):
        ModelFolder.of(folder)


def test_file_that_was_cut_off(make_hf_model, tmp_path):
    make_hf_model("llama").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged or cut off"):
        load_pretrained(tmp_path)


def remove(weights: dict[str, torch.Tensor], name: str) -> None:
    del weights[name]


def add(weights: dict[str, torch.Tensor], name: str) -> None:
    weights[name] = torch.zeros(1)


def transpose(weights: dict[str, torch.Tensor], name: str) -> None:
    weights[name] = weights[name].T.contiguous()


def cut(weights: dict[str, torch.Tensor], name: str) -> None:
    weights[name] = weights[name][:-1].clone()


@pytest.mark.parametrize(
    ("damage", "name", "message"),
    [
        (remove, "model.layers.1.mlp.up_proj.weight", "there is no tensor"),
        (remove, "lm_head.weight", "there is no tensor"),
        (add, "model.layers.2.mlp.up_proj.weight", "unexpected tensor"),
        (add, "model.layers.0.self_attn.q_proj.bias", "unexpected tensor"),
        (cut, "model.embed_tokens.weight", "has shape"),
        (transpose, "model.embed_tokens.weight", "has shape"),
        (transpose, "model.layers.0.mlp.down_proj.weight", "has shape"),
    ],
)
def test_wrong_tensor_is_named(damage, name, message, make_hf_model, tmp_path):
    make_hf_model("llama").save_pretrained(tmp_path)
    weights = tensors(tmp_path)
    damage(weights, name)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        load_pretrained(tmp_path)
    assert name in str(error.value)


def test_tied_checkpoint_may_hold_its_head_too(make_hf_model, tmp_path):
    make_hf_model("llama", tie_word_embeddings=True).save_pretrained(tmp_path)
    weights = tensors(tmp_path)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    loaded = load_pretrained(tmp_path)
    assert loaded.config.tie_embeddings
    assert not hasattr(loaded, "head")


def test_export_names_its_dtype(make_hf_model, tokenizer_folder, tmp_path):
    make_hf_model("llama").save_pretrained(tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model")
    save_pretrained(tmp_path / "ours", loaded, tokenizer_folder, dtype=np.float16)
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["dtype"] == "float16"


LOAD = """
import pathlib, sys
import jax
from jaxcritique.models.huggingface import load_pretrained
from jaxcritique.models.sharding import make_mesh

def mebibytes(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

load_pretrained(sys.argv[1], make_mesh())  # Compiles and imports what there is to.
before = mebibytes("VmRSS")
pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak so far is forgotten.
model = load_pretrained(sys.argv[2], make_mesh())
result = sum(leaf.nbytes for leaf in jax.tree.leaves(model)) / 2**20
print(mebibytes("VmHWM") - before - result)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_loading_holds_no_second_copy(dtype, devices, tokenizer_folder, tmp_path):
    """On a CPU the result lies in host memory too, so it is taken off."""
    config = ModelConfig(
        vocab_size=16_384, dim=1024, num_layers=6, num_heads=8, num_kv_heads=8, head_dim=128,
        mlp_dim=4096, max_positions=512,
    )  # fmt: skip
    small = dataclasses.replace(config, vocab_size=64)
    for name, shape in (("small", small), ("large", config)):
        model = jax.tree.map(lambda x: np.zeros(x.shape, dtype), abstract(shape))
        save_pretrained(tmp_path / name, model, tokenizer_folder)
    above = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "small"), str(tmp_path / "large")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": str(devices)},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout
    largest = config.vocab_size * config.dim * 4 / 2**20
    print(f"\nabove the result: {float(above):.0f} MiB; the largest tensor: {largest:.0f} MiB")
    assert float(above) < 2 * largest
