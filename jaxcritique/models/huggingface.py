"""Hugging Face folders in and out: the names and layouts of every weight, in one table."""

import dataclasses
import hashlib
import json
import math
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.transformer import Params, Structure, abstract
from jaxcritique.store import replace_folder

_SHARD_BYTES = 4 * 2**30
_CONTENT = (".json", ".safetensors", ".jinja", ".model", ".txt")
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "vocab.json", "merges.txt", "added_tokens.json",
)  # fmt: skip

# Our path in the parameters -> Hugging Face's name; {i} is the layer, stacked along axis 0 here.
_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "norm.scale": "model.norm.weight",
    "head": "lm_head.weight",
    "layers.attention_norm.scale": "model.layers.{i}.input_layernorm.weight",
    "layers.mlp_norm.scale": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.q": "model.layers.{i}.self_attn.q_proj.weight",
    "layers.k": "model.layers.{i}.self_attn.k_proj.weight",
    "layers.v": "model.layers.{i}.self_attn.v_proj.weight",
    "layers.out": "model.layers.{i}.self_attn.o_proj.weight",
    "layers.q_bias": "model.layers.{i}.self_attn.q_proj.bias",
    "layers.k_bias": "model.layers.{i}.self_attn.k_proj.bias",
    "layers.v_bias": "model.layers.{i}.self_attn.v_proj.bias",
    "layers.q_norm.scale": "model.layers.{i}.self_attn.q_norm.weight",
    "layers.k_norm.scale": "model.layers.{i}.self_attn.k_norm.weight",
    "layers.gate": "model.layers.{i}.mlp.gate_proj.weight",
    "layers.up": "model.layers.{i}.mlp.up_proj.weight",
    "layers.down": "model.layers.{i}.mlp.down_proj.weight",
}


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face folder and what it is known by in the stages that read it."""

    folder: pathlib.Path
    key: str

    @classmethod
    def of(cls, folder: str | pathlib.Path) -> "ModelFolder":
        """Names a folder by the content of its configuration and weights.

        Raises:
          FileNotFoundError: it is not a model folder.
          ValueError: its architecture is not supported.
        """
        folder = pathlib.Path(folder)
        ModelConfig.load(folder)
        if not any(folder.glob("*.safetensors")):
            raise FileNotFoundError(f"{folder}: no *.safetensors; other formats are not read.")
        if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
            raise FileNotFoundError(f"{folder}: no tokenizer.json or tokenizer.model.")
        sha = hashlib.sha256()
        for path in sorted(path for path in folder.iterdir() if path.suffix in _CONTENT):
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
        return cls(folder, sha.hexdigest()[:16])


def _is_matrix(path: str) -> bool:
    """Whether Hugging Face stores it as [out, in], the other way round than we do."""
    return path.rpartition(".")[2] in ("q", "k", "v", "out", "gate", "up", "down")


def _from_hf(path: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return (tensor.T if _is_matrix(path) else tensor).reshape(shape)


def _to_hf(path: str, array: np.ndarray) -> np.ndarray:
    shape = _hf_shape(path, array.shape)
    if not _is_matrix(path):
        return array.reshape(shape)
    return np.ascontiguousarray(array.reshape(shape[::-1]).T)


def _hf_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if _is_matrix(path):  # [d, n, h] -> [n h, d] for q, k, v; [n, h, d] -> [d, n h] for out.
        inputs = math.prod(shape[:2]) if path.endswith(".out") else shape[0]
        return math.prod(shape) // inputs, inputs
    return (math.prod(shape),) if path.endswith("bias") else shape


def load_pretrained(folder: str | pathlib.Path) -> tuple[ModelConfig, Structure, Params]:
    """Reads a Hugging Face folder into fp32 parameters.

    Raises:
      FileNotFoundError: the folder, its config or its weights are missing.
      ValueError: the architecture is not supported, or a tensor is missing, left over or of
        another shape than the config says; it is named.
    """
    folder = pathlib.Path(folder)
    config = ModelConfig.load(folder)
    structure, shapes = abstract(config)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder}: no *.safetensors; other weight formats are not read.")
    handles = [safe_open(str(file), framework="numpy") for file in files]
    where = {name: handle for handle in handles for name in handle.keys()}  # noqa: SIM118
    used: set[str] = set()

    def tensor(name: str, path: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in where:
            raise ValueError(f"{folder}: there is no tensor {name!r}, which config.json calls for")
        used.add(name)
        value = where[name].get_tensor(name)
        if value.shape != (expected := _hf_shape(path, shape)):
            raise ValueError(f"{folder}: {name} has shape {value.shape}, expected {expected}")
        return _from_hf(path, value.astype(np.float32), shape)

    def load(keys: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        path = ".".join(key.key for key in keys)
        name = _NAMES[path]
        if "{i}" not in name:
            return jax.device_put(tensor(name, path, leaf.shape))
        layers = (tensor(name.format(i=i), path, leaf.shape[1:]) for i in range(leaf.shape[0]))
        return jax.device_put(np.stack(list(layers)))

    params = jax.tree_util.tree_map_with_path(load, shapes)
    tied_head = {"lm_head.weight"} if config.tie_embeddings else set()
    rotary = {name for name in where if name.endswith("rotary_emb.inv_freq")}
    if left := sorted(set(where) - used - tied_head - rotary):
        raise ValueError(f"{folder}: unexpected tensor {left[0]!r} and {len(left) - 1} more")
    return config, structure, params


def save_pretrained(
    folder: str | pathlib.Path,
    config: ModelConfig,
    params: Params,
    tokenizer_folder: str | pathlib.Path,
    dtype: Any = np.float32,
) -> None:
    """Writes a folder that `transformers` and vLLM load; whole or not at all.

    Args:
      folder: where to; replaced if it exists.
      config: the model's.
      params: its parameters.
      tokenizer_folder: the Hugging Face folder whose tokenizer files go with it.
      dtype: of the stored weights.
    """
    tokenizer_folder = pathlib.Path(tokenizer_folder)
    with replace_folder(pathlib.Path(folder)) as target:
        index: dict[str, str] = {}
        shard: dict[str, np.ndarray] = {}
        sizes = 0

        def flush() -> None:
            if shard:
                name = f"model-{len(set(index.values())) + 1:05d}.safetensors"
                save_file(shard, target / name, metadata={"format": "pt"})
                index.update(dict.fromkeys(shard, name))
                shard.clear()

        for name, array in _hf_tensors(params):
            shard[name] = array.astype(dtype)
            sizes += shard[name].nbytes
            if sum(value.nbytes for value in shard.values()) >= _SHARD_BYTES:
                flush()
        flush()
        _write_json(
            target / "model.safetensors.index.json",
            {"metadata": {"total_size": sizes}, "weight_map": index},
        )
        for name in _TOKENIZER_FILES:
            if (tokenizer_folder / name).is_file():
                shutil.copy(tokenizer_folder / name, target / name)
        theirs = json.loads((tokenizer_folder / "config.json").read_text())
        ends = {key: theirs[key] for key in ("bos_token_id", "eos_token_id") if key in theirs}
        _write_json(
            target / "config.json", {**config.to_hf(), **ends, "dtype": np.dtype(dtype).name}
        )
        generation = tokenizer_folder / "generation_config.json"
        if generation.is_file():
            shutil.copy(generation, target / generation.name)
        else:
            _write_json(target / "generation_config.json", ends)


def _hf_tensors(params: Params) -> Iterator[tuple[str, np.ndarray]]:
    """Yields one tensor at a time, so that no second copy of the model is ever held."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = ".".join(key.key for key in keys)
        name = _NAMES[path]
        if "{i}" in name:
            for i in range(leaf.shape[0]):
                yield name.format(i=i), _to_hf(path, np.asarray(leaf[i]))
        else:
            yield name, _to_hf(path, np.asarray(leaf))


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
