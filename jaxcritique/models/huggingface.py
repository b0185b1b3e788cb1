"""Hugging Face folders in and out; `weights` has the names and layouts."""

# JAX's and its libraries' types are unknown in part.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, Sharding, SingleDeviceSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.sharding import sharding_of, shardings
from jaxcritique.models.tokenizer import Tokenizer, check_tokenizer
from jaxcritique.models.transformer import LanguageModel, Transformer, abstract, weight_shape
from jaxcritique.models.weights import WEIGHTS, Weight, named_weights, weights
from jaxcritique.store import replace_folder

M = TypeVar("M", bound=LanguageModel)
_SHARD_BYTES = 4 * 2**30
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_GENERATION = "generation_config.json"
_STORED = ("F64", "F32", "F16", "BF16")  # safetensors' names of the dtypes that are read.
_CONTENT = (".json", ".safetensors", ".jinja", ".model", ".txt")
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "vocab.json", "merges.txt", "added_tokens.json", "jaxcritique.json",
)  # fmt: skip


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
    def of(cls, folder: str | os.PathLike[str]) -> "ModelFolder":
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


def load_pretrained(
    folder: str | os.PathLike[str],
    mesh: Mesh | None = None,
    dtype: DTypeLike | None = np.float32,
    kind: type[M] = Transformer,
) -> M:
    """Reads a Hugging Face folder, each tensor straight to where it is sharded to.

    Each host reads only what its devices hold, one tensor at a time.

    Args:
      folder: with config.json and one or more *.safetensors.
      mesh: the devices; None: the default one.
      dtype: of the parameters; None: as they are stored.
      kind: `Transformer` to train, `Decoder` to sample.

    Raises:
      FileNotFoundError: the folder, its config or its weights are missing.
      ValueError: the architecture is not supported, the mesh does not divide it, or a tensor is
        missing, left over or of another shape than the config says; it is named.
    """
    folder = pathlib.Path(folder)
    config = ModelConfig.load(folder)
    stored = _StoredWeights(folder, config)
    if mesh is not None:
        shardings(mesh, abstract(config, kind))  # Refuses a mesh before anything is read.

    def sharding(row: Weight, shape: tuple[int, ...]) -> Sharding:
        if mesh is None:
            return SingleDeviceSharding(jax.devices()[0])
        return sharding_of(mesh, row, shape)

    def make(row: Weight, layer: int | None) -> Array:
        if layer is not None or not row.in_layers:
            array = stored.read(row, layer, sharding(row, row.shape(config)))
            return array if dtype is None else array.astype(dtype)
        stack: Array | None = None
        first: Any = None
        for i in range(config.num_layers):
            array = stored.read(row, i, sharding(row, row.shape(config)))
            if stack is None:
                first, shape = array.dtype, weight_shape(config, row, None)
                stack = _zeros(shape, jnp.dtype(dtype or first), sharding(row, shape))
            if dtype is None and array.dtype != first:
                name = row.hf_name.format(i=i)
                raise ValueError(f"{folder}: {name} is {array.dtype}, that of layer 0 {first}")
            stack = _set_layer(stack, array, i)
        assert stack is not None
        return stack

    return kind(config, make)


def check_weights(folder: str | pathlib.Path) -> tuple[ModelConfig, np.dtype]:
    """Checks, from the files' headers alone, that a folder has the weights its config calls for.

    Returns:
      The config, and the dtype of the weights (of the embedding's).

    Raises:
      FileNotFoundError: the config, or a file of weights, is missing.
      ValueError: the architecture is not supported, a file is damaged, or a tensor is missing, left
        over or of another shape than the config says; it is named.
    """
    config = ModelConfig.load(folder)
    return config, _StoredWeights(pathlib.Path(folder), config).dtype


class _StoredWeights:
    """The tensors of a folder's safetensors files, read piece by piece."""

    def __init__(self, folder: pathlib.Path, config: ModelConfig):
        """Opens the files; see `check_weights` for what is raised."""
        self._config = config
        self._file: dict[str, pathlib.Path] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: dict[str, str] = {}
        for file in _weight_files(folder):
            try:
                with safe_open(str(file), framework="numpy") as handle:
                    for name in handle.keys():  # noqa: SIM118
                        self._file[name] = file
                        tensor = handle.get_slice(name)
                        shapes[name] = tuple(tensor.get_shape())
                        dtypes[name] = tensor.get_dtype()
            except SafetensorError as error:
                raise ValueError(f"{file}: damaged or cut off ({error}); copy it anew.") from None
        for name, rows, _ in _tensors(config):
            expected = _stored_shape(rows, config)
            if name not in shapes:
                raise ValueError(
                    f"{folder}: there is no tensor {name!r}, which config.json calls for"
                )
            if (shape := shapes.pop(name)) != expected:
                raise ValueError(f"{folder}: {name} has shape {shape}, expected {expected}")
            if dtypes[name] not in _STORED:
                raise ValueError(
                    f"{folder}: {name} is stored as {dtypes[name]}; quantised weights are not "
                    "supported, use the model's weights in bfloat16 or float32."
                )
        # A tied head may be stored too; old files hold rotary tables.
        heads = {row.hf_name for row in WEIGHTS if row.path == "head"}
        left = [name for name in shapes if not name.endswith("rotary_emb.inv_freq")]
        if left := sorted(set(left) - heads):
            raise ValueError(f"{folder}: unexpected tensor {left[0]!r} and {len(left) - 1} more")

    @property
    def dtype(self) -> np.dtype:
        """The embedding's."""
        name = weights(self._config)["embedding"].hf_name
        with safe_open(str(self._file[name]), framework="numpy") as handle:
            return handle.get_slice(name)[:1].dtype

    def read(self, row: Weight, layer: int | None, sharding: Sharding) -> Array:
        """Reads a weight, in our layout and its stored dtype."""
        name, offset = row.hf_name.format(i=layer), 0
        for other in weights(self._config).values():  # Parts of the same tensor come before it.
            if other.path == row.path:
                break
            offset += other.hf_shape(self._config)[0] * (other.hf_name == row.hf_name)
        # Opened anew for each tensor: closing gives the mapped pages back.
        with safe_open(str(self._file[name]), framework="numpy") as handle:
            stored = handle.get_slice(name)

            def part(index: Any) -> np.ndarray:
                return row.read(stored, self._config, index, offset)

            return jax.make_array_from_callback(row.shape(self._config), sharding, part)


def _tensors(config: ModelConfig) -> Iterator[tuple[str, list[Weight], int | None]]:
    """Yields each stored tensor: its name, the rows of the table that are in it, and its layer."""
    tensors: dict[str, list[Weight]] = {}
    for row in weights(config).values():
        tensors.setdefault(row.hf_name, []).append(row)
    for name, rows in tensors.items():
        for i in range(config.num_layers) if rows[0].in_layers else [None]:
            yield name.format(i=i), rows, i


def _stored_shape(rows: Sequence[Weight], config: ModelConfig) -> tuple[int, ...]:
    shapes = [row.hf_shape(config) for row in rows]
    return sum(shape[0] for shape in shapes), *shapes[0][1:]


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


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(shape: tuple[int, ...], dtype: Any, sharding: Sharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(jnp.zeros(shape, dtype), sharding)


@functools.partial(jax.jit, donate_argnums=0)
def _set_layer(stack: jax.Array, layer: jax.Array, i: Int[Array, ""] | int) -> jax.Array:
    """Puts a layer in its place, in the memory the stack already has."""
    return jax.lax.dynamic_update_index_in_dim(stack, layer.astype(stack.dtype), i, 0)


def save_pretrained(
    folder: str | os.PathLike[str],
    model: Transformer,
    tokenizer_folder: str | os.PathLike[str],
    dtype: DTypeLike | None = None,
) -> None:
    """Writes a folder that `transformers` and vLLM load; whole or not at all.

    With several processes all must call it; the first one writes.

    Args:
      folder: where to; replaced if it exists.
      model: to write, wherever its arrays are; one tensor at a time is brought to the host.
      tokenizer_folder: the Hugging Face folder whose tokenizer and generation config go with it.
      dtype: of the stored weights; None: that of the parameters.
    """
    tokenizer_folder = pathlib.Path(tokenizer_folder)
    first = jax.process_index() == 0
    with replace_folder(pathlib.Path(folder)) if first else contextlib.nullcontext() as target:
        dtypes = write_weights(target, model, dtype)
        if target is not None:
            copy_tokenizer(tokenizer_folder, target)
            theirs = json.loads((tokenizer_folder / "config.json").read_text())
            ends = {key: theirs[key] for key in ("bos_token_id", "eos_token_id") if key in theirs}
            _write_json(target / "config.json", {**model.config.to_hf(), **ends, "dtype": dtypes})
            _write_generation_config(target, ends)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(str(folder))


def _write_generation_config(folder: pathlib.Path, ends: dict[str, Any]) -> None:
    """Makes sure that generation stops at the token that training ends replies with."""
    path = folder / _GENERATION
    generation = json.loads(path.read_text()) if path.is_file() else ends
    known = generation.get("eos_token_id")
    known = known if isinstance(known, list) else [known]
    stops = Tokenizer(folder).stop_ids
    if not stops <= set(known):
        generation = {**generation, "eos_token_id": sorted(stops)}
    if not path.is_file() or not stops <= set(known):
        _write_json(path, generation)


def copy_tokenizer(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a folder's tokenizer and generation config, as far as it has them."""
    for name in (*_TOKENIZER_FILES, _GENERATION):
        if (source / name).is_file():
            shutil.copy(source / name, target / name)


def write_weights(
    target: pathlib.Path | None, model: Transformer, dtype: DTypeLike | None = None
) -> str:
    """Writes parameters as safetensors, with an index where one file is not enough.

    Args:
      target: an existing folder; None: only take part in bringing the arrays together.
      model: to write.
      dtype: to write them in; None: their own.

    Returns:
      The name of the embedding's dtype as written.
    """
    arrays = {row.path: x for row, x in named_weights(model)}
    tensors = list(_tensors(model.config))
    sizes = [
        math.prod(_stored_shape(rows, model.config))
        * np.dtype(dtype or arrays[rows[0].path].dtype).itemsize
        for _, rows, _ in tensors
    ]
    numbers = _fill_files(sizes, _SHARD_BYTES)
    count = numbers[-1]
    index: dict[str, str] = {}
    shard: dict[str, np.ndarray] = {}
    for (name, rows, i), number, after in zip(tensors, numbers, [*numbers[1:], None], strict=True):
        # One tensor at a time, so that no second copy of the model is ever held.
        parts = [_on_host(x if i is None else x[i]) for x in (arrays[row.path] for row in rows)]
        if target is None:
            continue
        stored = [row.to_hf(part) for row, part in zip(rows, parts, strict=True)]
        tensor = stored[0] if len(stored) == 1 else np.concatenate(stored)
        shard[name] = tensor.astype(dtype or tensor.dtype, copy=False)
        index[name] = f"model-{number:05d}-of-{count:05d}.safetensors" if count > 1 else _SINGLE
        if number != after:  # The last of its file.
            save_file(shard, target / index[name], metadata={"format": "pt"})
            shard.clear()
    if target is not None and count > 1:
        _write_json(
            target / _INDEX,
            {"metadata": {"total_size": sum(sizes)}, "weight_map": index},
        )
    return np.dtype(dtype or arrays["embedding"].dtype).name


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
