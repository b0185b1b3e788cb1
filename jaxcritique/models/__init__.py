"""Llama and Qwen in Flax, their tokenizers, and Hugging Face folders in and out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcritique.models.huggingface import load_pretrained, save_pretrained

__all__ = ["load_pretrained", "save_pretrained"]


def __getattr__(name: str) -> Any:
    """Imports JAX and Flax only when a model is wanted: the grader's workers come by here too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxcritique.models import huggingface

    return getattr(huggingface, name)
