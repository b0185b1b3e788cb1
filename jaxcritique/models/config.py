"""What a checkpoint's `config.json` says, as one frozen dataclass.

Llama 2/3/3.1, SmolLM2, Qwen2, Qwen2.5 and Qwen3 (dense) are the same transformer with switches.
"""

import dataclasses
import json
import math
import pathlib
from typing import Any, NoReturn, cast

from absl import logging

# Fields that change nothing in what the transformer computes from token ids in evaluation.
_IGNORED = {
    "_name_or_path", "architectures", "attention_dropout", "bos_token_id", "dtype", "eos_token_id",
    "initializer_range", "max_window_layers", "model_type", "name_or_path", "pad_token_id",
    "pretraining_tp", "tokenizer_class", "torch_dtype", "transformers.js_config",
    "transformers_version", "use_cache", "is_llama_config", "_attn_implementation_autoset",
}  # fmt: skip
# Fields that tools write for themselves; none of them says how the model computes.
_OTHER_TOOLS = ("unsloth", "axolotl", "trl_", "llamafactory", "swift_", "lmstudio", "mlx_", "_")


@dataclasses.dataclass(frozen=True)
class Family:
    """The models of one Hugging Face `model_type`."""

    architecture: str  # The class of `transformers`.
    models: str  # For messages.
    # What `transformers` takes for a field that is absent, where that is not derived from others.
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    # Fields of `ModelConfig`.
    switches: dict[str, bool] = dataclasses.field(default_factory=dict[str, bool])


FAMILIES = {
    "llama": Family("LlamaForCausalLM", "Llama 2/3, SmolLM2"),
    "qwen2": Family(
        "Qwen2ForCausalLM", "Qwen2, Qwen2.5", {"num_key_value_heads": 32}, {"qkv_bias": True}
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM", "dense", {"num_key_value_heads": 32, "head_dim": 128}, {"qk_norm": True}
    ),
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's scaling of the rotary frequencies to a longer context."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder-only transformer, hashable and so usable as a static argument."""

    vocab_size: int
    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    max_positions: int
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    tie_embeddings: bool = False
    family: str = "llama"  # The Hugging Face `model_type` it is written back as.

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> "ModelConfig":
        """Reads `folder/config.json`.

        Raises:
          FileNotFoundError: there is no such file; the message says what the folder must hold.
          ValueError: the architecture or one of its fields is not supported; it is named.
        """
        path = pathlib.Path(folder) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file. A model is a Hugging Face folder with config.json, "
                "*.safetensors and a tokenizer."
            )
        try:
            fields: Any = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{path}: not a JSON object")
        return cls.from_hf(cast(dict[str, Any], fields), where=str(path))

    @classmethod
    def from_hf(cls, hf: dict[str, Any], where: str = "config.json") -> "ModelConfig":
        """Translates the contents of a `config.json`; see `load` for what it raises."""
        family = hf.get("model_type")
        if family not in FAMILIES:
            known = [f"{name!r} ({known.models})" for name, known in FAMILIES.items()]
            raise ValueError(
                f"{where}: model_type {family!r} is not supported; this project runs "
                f"{', '.join(known[:-1])} and {known[-1]}."
            )

        hf = FAMILIES[family].defaults | hf

        def refuse(name: str, value: Any) -> NoReturn:
            raise ValueError(f"{where}: {name}={value!r} is not supported for {family!r}.")

        def size(name: str, default: int | None = None) -> int:
            value = hf.pop(name, None)
            value = default if value is None else value
            if value is None:
                raise ValueError(f"{where}: there is no field {name!r}.")
            if not isinstance(value, int) or value < 1:
                refuse(name, value)
            return value

        # transformers 5 writes rope_parameters; earlier versions rope_theta and rope_scaling.
        rope = dict(hf.pop("rope_parameters", None) or hf.pop("rope_scaling", None) or {})
        hf.pop("rope_scaling", None)
        theta = rope.pop("rope_theta", None) or hf.get("rope_theta") or 10_000.0
        hf.pop("rope_theta", None)
        kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
        rope.pop("type", None)
        scaling = None
        if kind == "llama3" and set(rope) == {f.name for f in dataclasses.fields(RopeScaling)}:
            scaling = RopeScaling(**rope)
        elif kind != "default" or rope:
            refuse("rope_parameters", {"rope_type": kind, **rope})

        heads, dim = size("num_attention_heads"), size("hidden_size")
        config = cls(
            vocab_size=size("vocab_size"),
            dim=dim,
            num_layers=size("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=size("num_key_value_heads", heads),
            head_dim=size("head_dim", dim // heads),
            mlp_dim=size("intermediate_size"),
            max_positions=size("max_position_embeddings"),
            norm_eps=hf.pop("rms_norm_eps", 1e-6),
            rope_theta=float(theta),
            rope_scaling=scaling,
            tie_embeddings=hf.pop("tie_word_embeddings", False),
            family=family,
            **FAMILIES[family].switches,
        )
        for name, only in {
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rope_interleaved": False,
            "use_sliding_window": False,
            "use_mrope": False,
            "sliding_window": None,
        }.items():
            value = hf.pop(name, only)
            # Qwen's configs give a window's width beside use_sliding_window=false.
            if value != only and name != "sliding_window":
                refuse(name, value)
        kinds: list[str] = hf.pop("layer_types", None) or []
        if any(kind != "full_attention" for kind in kinds):
            refuse("layer_types", "sliding_attention")
        quantized = hf.pop("quantization_config", None)
        if quantized:
            raise ValueError(
                f"{where}: quantization_config={quantized!r} is not supported; use the model's "
                "weights in bfloat16 or float32."
            )
        unknown = sorted(set(hf) - _IGNORED)
        notes = [name for name in unknown if name.startswith(_OTHER_TOOLS)]
        if notes:
            logging.warning("%s: ignoring what other tools noted: %s", where, ", ".join(notes))
        unknown = [name for name in unknown if name not in notes]
        if unknown:
            refuse(unknown[0], hf[unknown[0]])
        if heads % config.num_kv_heads:
            refuse("num_key_value_heads", config.num_kv_heads)
        if config.head_dim % 2:
            refuse("head_dim", config.head_dim)
        return config

    def to_hf(self) -> dict[str, Any]:
        """Returns the `config.json` of this model (keys of both transformers 4 and 5)."""
        rope: dict[str, Any] = {"rope_type": "default"}
        if self.rope_scaling is not None:
            rope = {"rope_type": "llama3", **dataclasses.asdict(self.rope_scaling)}
        return {
            "architectures": [FAMILIES[self.family].architecture],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.dim,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.mlp_dim,
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": rope if self.rope_scaling else None,
            "rope_parameters": {**rope, "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tie_embeddings,
            "hidden_act": "silu",
        }

    @property
    def num_parameters(self) -> int:
        """The number of parameters, embeddings counted once where they are tied."""
        from jaxcritique.models.weights import weights  # It imports this module.

        return sum(
            math.prod(row.shape(self)) * (self.num_layers if row.in_layers else 1)
            for row in weights(self).values()
        )
