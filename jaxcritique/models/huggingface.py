"""Hugging Face folders in and out: the names and layouts of every weight, in one table."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.sharding import path_of, shardings
from jaxcritique.models.tokenizer import check_tokenizer
from jaxcritique.models.transformer import Params, Structure, abstract
from jaxcritique.store import replace_folder

_SHARD_BYTES = 4 * 2**30
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_GENERATION = "generation_config.json"
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
    def named(cls, setting: str, folder: str | pathlib.Path) -> "ModelFolder":
        """`of`, for the folder that a setting names.

        Raises:
          ValueError: the folder cannot be used; setting, folder and reason are named.
        """
        try:
            return cls.of(folder)
        except (OSError, ValueError) as error:
            raise ValueError(f"`{setting}={folder}`: {error}") from None

    @classmethod
    def of(cls, folder: str | pathlib.Path) -> "ModelFolder":
        """Names a folder by the content of its configuration and weights.

        Raises:
          FileNotFoundError: it is not a model folder.
          ValueError: its architecture is not supported, its weights are not what its config says,
            or its tokenizer is damaged.
        """
        folder = pathlib.Path(folder)
        check_weights(folder)
        check_tokenizer(folder)
        sha = hashlib.sha256()
        for path in sorted(path for path in folder.iterdir() if path.suffix in _CONTENT):
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
        return cls(folder, sha.hexdigest()[:16])


def _is_matrix(path: str) -> bool:
    """Whether Hugging Face stores it as [out, in], the other way round than we do."""
    return path.rpartition(".")[2] in ("q", "k", "v", "out", "gate", "up", "down")


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


def load_pretrained(
    folder: str | pathlib.Path, mesh: Mesh | None = None, dtype: Any = np.float32
) -> tuple[ModelConfig, Structure, Params]:
    """Reads a Hugging Face folder, each tensor straight to where it is to live.

    Each host reads only what its devices hold, one tensor at a time.

    Args:
      folder: with config.json and one or more *.safetensors.
      mesh: the devices; None: the default one.
      dtype: of the parameters; None: as they are stored.

    Raises:
      FileNotFoundError: the folder, its config or its weights are missing.
      ValueError: the architecture is not supported, the mesh does not divide it, or a tensor is
        missing, left over or of another shape than the config says; it is named.
    """
    folder = pathlib.Path(folder)
    config = ModelConfig.load(folder)
    structure, shapes = abstract(config)
    weights = _Weights(folder, shapes)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    where = jax.tree.map(lambda _: one, shapes) if mesh is None else shardings(mesh, shapes)

    def load(keys: Any, leaf: jax.ShapeDtypeStruct, sharding: Sharding) -> jax.Array:
        path = path_of(keys)
        name = _NAMES[path]
        if "{i}" not in name:
            array = weights.read(name, path, leaf.shape, sharding)
            return array if dtype is None else array.astype(dtype)
        layer_sharding = sharding
        if isinstance(sharding, NamedSharding):
            layer_sharding = NamedSharding(sharding.mesh, P(*sharding.spec[1:]))
        stack: Any = None
        for i in range(leaf.shape[0]):
            layer = weights.read(name.format(i=i), path, leaf.shape[1:], layer_sharding)
            if stack is None:
                stored = layer.dtype
                stack = _zeros(leaf.shape, jnp.dtype(dtype or stored), sharding)
            if dtype is None and layer.dtype != stored:
                raise ValueError(
                    f"{folder}: {name.format(i=i)} is {layer.dtype}, that of layer 0 {stored}"
                )
            stack = _set_layer(stack, layer, i)
        return stack

    return config, structure, jax.tree_util.tree_map_with_path(load, shapes, where)


def check_weights(folder: str | pathlib.Path) -> None:
    """Checks, from the files' headers alone, that a folder has the weights its config calls for.

    Raises:
      FileNotFoundError: the config, or a file of weights, is missing.
      ValueError: the architecture is not supported, a file is damaged, or a tensor is missing, left
        over or of another shape than the config says; it is named.
    """
    _Weights(pathlib.Path(folder), abstract(ModelConfig.load(folder))[1])


class _Weights:
    """The tensors of a folder's safetensors files, read piece by piece."""

    def __init__(self, folder: pathlib.Path, shapes: Params):
        """Opens the files; see `check_weights` for what is raised."""
        self._where: dict[str, pathlib.Path] = {}
        found: dict[str, tuple[int, ...]] = {}
        for file in _weight_files(folder):
            try:
                with safe_open(str(file), framework="numpy") as handle:
                    for name in handle.keys():  # noqa: SIM118
                        self._where[name] = file
                        found[name] = tuple(handle.get_slice(name).get_shape())
            except SafetensorError as error:
                raise ValueError(f"{file}: damaged or cut off ({error}); copy it anew.") from None
        for name, path, leaf, i in _hf_tensors(shapes):
            expected = _hf_shape(path, leaf.shape[0 if i is None else 1 :])
            if name not in found:
                raise ValueError(
                    f"{folder}: there is no tensor {name!r}, which config.json calls for"
                )
            if (shape := found.pop(name)) != expected:
                raise ValueError(f"{folder}: {name} has shape {shape}, expected {expected}")
        # A tied head may be stored too; old files hold rotary tables.
        tied = set() if "head" in shapes else {_NAMES["head"]}
        left = [name for name in found if not name.endswith("rotary_emb.inv_freq")]
        if left := sorted(set(left) - tied):
            raise ValueError(f"{folder}: unexpected tensor {left[0]!r} and {len(left) - 1} more")

    def read(self, name: str, path: str, shape: tuple[int, ...], sharding: Sharding) -> jax.Array:
        """Reads a tensor, in our layout and its own dtype."""
        # Opened anew for each tensor: closing gives the mapped pages back.
        with safe_open(str(self._where[name]), framework="numpy") as handle:
            stored = handle.get_slice(name)

            def part(index: Any) -> np.ndarray:
                return _part(path, stored, shape, index)

            return jax.make_array_from_callback(shape, sharding, part)


def _weight_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files `transformers` would read: one, or those that an index names."""
    index = folder / _INDEX
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if not index.is_file():
        raise FileNotFoundError(
            f"{folder}: neither {_SINGLE} nor {_INDEX}; other weight formats are not read."
        )
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError):
        raise ValueError(f"{index}: not an index of weights; copy it anew.") from None
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file, though {_INDEX} names it.")
    return [folder / name for name in names]


def _part(path: str, stored: Any, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
    """Reads the part of a stored tensor that our `index` asks for, in our layout."""
    spans = [slice(*span.indices(size)[:2]) for span, size in zip(index, shape, strict=True)]
    ours = tuple(span.stop - span.start for span in spans)

    def merged(heads: slice, width: slice) -> slice:  # (n, h) as theirs: one axis of n x h.
        return slice(heads.start * width.stop, heads.stop * width.stop)

    match path.rpartition(".")[2]:
        case "q" | "k" | "v":
            value = stored[merged(spans[1], spans[2]), spans[0]].T
        case "out":
            value = stored[spans[2], merged(spans[0], spans[1])].T
        case "gate" | "up" | "down":
            value = stored[spans[1], spans[0]].T
        case "q_bias" | "k_bias" | "v_bias":
            value = stored[merged(*spans)]
        case _:
            value = stored[tuple(spans)]
    return np.ascontiguousarray(value).reshape(ours)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(shape: tuple[int, ...], dtype: Any, sharding: Sharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(jnp.zeros(shape, dtype), sharding)


@functools.partial(jax.jit, donate_argnums=0)
def _set_layer(stack: jax.Array, layer: jax.Array, i: int) -> jax.Array:
    """Puts a layer in its place, in the memory the stack already has."""
    return jax.lax.dynamic_update_index_in_dim(stack, layer.astype(stack.dtype), i, 0)


def stored_dtype(folder: pathlib.Path) -> np.dtype:
    """Returns the dtype of the weights of a Hugging Face folder (of the embedding's)."""
    name = _NAMES["embedding"]
    for file in _weight_files(folder):
        with safe_open(str(file), framework="numpy") as handle:
            if name in handle.keys():  # noqa: SIM118
                return handle.get_slice(name)[:1].dtype
    raise ValueError(f"{folder}: there is no tensor {name!r}, which config.json calls for")


def save_pretrained(
    folder: str | pathlib.Path,
    config: ModelConfig,
    params: Params,
    tokenizer_folder: str | pathlib.Path,
    dtype: Any = None,
) -> None:
    """Writes a folder that `transformers` and vLLM load; whole or not at all.

    With several processes all must call it; the first one writes.

    Args:
      folder: where to; replaced if it exists.
      config: the model's.
      params: its parameters, wherever they live; one tensor at a time is brought to the host.
      tokenizer_folder: the Hugging Face folder whose tokenizer and generation config go with it.
      dtype: of the stored weights; None: that of the parameters.
    """
    tokenizer_folder = pathlib.Path(tokenizer_folder)
    first = jax.process_index() == 0
    with replace_folder(pathlib.Path(folder)) if first else contextlib.nullcontext() as target:
        dtypes = write_weights(target, params, dtype)
        if target is not None:
            copy_tokenizer(tokenizer_folder, target)
            theirs = json.loads((tokenizer_folder / "config.json").read_text())
            ends = {key: theirs[key] for key in ("bos_token_id", "eos_token_id") if key in theirs}
            _write_json(target / "config.json", {**config.to_hf(), **ends, "dtype": dtypes})
            if not (target / _GENERATION).is_file():
                _write_json(target / _GENERATION, ends)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(str(folder))


def copy_tokenizer(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a folder's tokenizer and generation config, as far as it has them."""
    for name in (*_TOKENIZER_FILES, _GENERATION):
        if (source / name).is_file():
            shutil.copy(source / name, target / name)


def write_weights(target: pathlib.Path | None, params: Params, dtype: Any = None) -> str:
    """Writes parameters as safetensors, with an index where one file is not enough.

    Args:
      target: an existing folder; None: only take part in bringing the arrays together.
      params: to write.
      dtype: to write them in; None: their own.

    Returns:
      The name of the embedding's dtype as written.
    """
    tensors = list(_hf_tensors(params))
    sizes = [
        math.prod(leaf.shape[0 if i is None else 1 :]) * np.dtype(dtype or leaf.dtype).itemsize
        for _, _, leaf, i in tensors
    ]
    numbers = _fill_files(sizes, _SHARD_BYTES)
    count = numbers[-1]
    index: dict[str, str] = {}
    shard: dict[str, np.ndarray] = {}
    for (name, path, leaf, i), number, after in zip(
        tensors, numbers, [*numbers[1:], None], strict=True
    ):
        # One tensor at a time, so that no second copy of the model is ever held.
        array = _on_host(leaf if i is None else leaf[i])
        if target is None:
            continue
        shard[name] = _to_hf(path, array).astype(dtype or array.dtype, copy=False)
        index[name] = f"model-{number:05d}-of-{count:05d}.safetensors" if count > 1 else _SINGLE
        if number != after:  # The last of its file.
            save_file(shard, target / index[name], metadata={"format": "pt"})
            shard.clear()
    if target is not None and count > 1:
        _write_json(
            target / _INDEX,
            {"metadata": {"total_size": sum(sizes)}, "weight_map": index},
        )
    return np.dtype(dtype or params["embedding"].dtype).name


def _hf_tensors(params: Params) -> Iterator[tuple[str, str, Any, int | None]]:
    """Yields each tensor's Hugging Face name, its path, its leaf and which layer of that it is."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = path_of(keys)
        name = _NAMES[path]
        if "{i}" in name:
            yield from ((name.format(i=i), path, leaf, i) for i in range(leaf.shape[0]))
        else:
            yield name, path, leaf, None


def _fill_files(sizes: list[int], most: int) -> list[int]:
    """Returns the file each tensor goes to, from 1; a file holds `most` bytes or one tensor."""
    numbers, filled = [1], 0
    for size in sizes:
        full = filled and filled + size > most
        numbers.append(numbers[-1] + bool(full))
        filled = size if full else filled + size
    return numbers[1:]


def _on_host(array: Any) -> np.ndarray:
    """Brings an array to the host, with several processes to each."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
