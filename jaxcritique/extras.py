"""Optional dependencies of the package."""

import importlib.util

# The modules of the extra `train`, whose packages stand in pyproject.toml.
TRAIN = (
    "flax", "httpx2", "jax", "jaxtyping", "jinja2", "matplotlib", "numpy", "optax", "orbax",
    "rich", "safetensors", "sentencepiece", "tenacity", "tensorboardX", "transformers",
)  # fmt: skip


def require_train(what: str) -> None:
    """Checks, without importing anything, that the extra `train` is installed.

    Args:
      what: what needs it, for the message.

    Raises:
      ImportError: it is not.
    """
    missing = [name for name in TRAIN if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{what} needs {', '.join(missing)}, not installed here: "
            "pip install 'jaxcritique[train]'"
        )
