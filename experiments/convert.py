"""Hugging Face folder to Orbax checkpoint and back, bit for bit.

    python -m experiments.convert --input=path/to/model --output=path/to/checkpoint

The direction is read from the input: a folder with *.safetensors becomes an Orbax checkpoint (its
arrays in OUTPUT/arrays, beside the config and tokenizer files), such a checkpoint becomes a Hugging
Face folder. Weights keep the dtype they are stored in.
"""

import dataclasses
import os
import pathlib
import shutil

os.environ["JAX_PLATFORMS"] = "cpu"  # Before JAX is imported: host memory is all this takes.

from experiments.program import run
from jaxcritique.config import REQUIRED, Config, setting
from jaxcritique.errors import checking_input
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import copy_tokenizer, load_pretrained, write_weights
from jaxcritique.models.transformer import abstract
from jaxcritique.store import replace_folder
from jaxcritique.training.checkpoint import load_arrays, save_arrays

_ARRAYS = "arrays"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig(Config):
    """What to convert."""

    input: pathlib.Path = setting(REQUIRED, "Folder to read.")
    output: pathlib.Path = setting(REQUIRED, "Folder to write; must not exist, or be empty.")


CONFIGS = (ConvertConfig,)


def main(config: ConvertConfig) -> None:
    """Runs the program."""
    source, target = config.input, config.output
    with checking_input():
        if not source.is_dir():
            raise FileNotFoundError(f"`input={source}`: no such folder.")
        if target.exists() and any(target.iterdir()):
            raise FileExistsError(f"`output={target}` is not empty; choose another or delete it.")
        model_config = ModelConfig.load(source)
        from_hf = any(source.glob("*.safetensors"))
        if not from_hf and not (source / _ARRAYS).is_dir():
            raise FileNotFoundError(
                f"`input={source}` holds neither *.safetensors nor an Orbax checkpoint of this "
                f"program ({_ARRAYS}/)."
            )
        if from_hf:
            model = load_pretrained(source, dtype=None)
        else:
            model = load_arrays(source / _ARRAYS, abstract(model_config))
    with replace_folder(target) as folder:
        if from_hf:
            save_arrays(folder / _ARRAYS, model)
        else:
            write_weights(folder, model)
        copy_tokenizer(source, folder)
        shutil.copy(source / "config.json", folder / "config.json")
    print(f"{target}: {'an Orbax checkpoint' if from_hf else 'a Hugging Face folder'}")


if __name__ == "__main__":
    run(main, *CONFIGS)
