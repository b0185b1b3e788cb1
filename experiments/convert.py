"""Hugging Face folder to Orbax checkpoint and back, bit for bit.

    python -m experiments.convert --input=path/to/model --output=path/to/checkpoint

The direction is read from the input: a folder with *.safetensors becomes an Orbax checkpoint (its
arrays in OUTPUT/arrays, beside the config and tokenizer files), such a checkpoint becomes a Hugging
Face folder. Weights keep the dtype they are stored in.
"""

import os
import pathlib
import shutil

os.environ["JAX_PLATFORMS"] = "cpu"  # Before JAX is imported: host memory is all this takes.

from absl import flags

from experiments.program import refusing_bad_input, run
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import copy_tokenizer, load_pretrained, write_weights
from jaxcritique.models.transformer import abstract
from jaxcritique.store import replace_folder
from jaxcritique.training.checkpoint import load_arrays, save_arrays

_INPUT = flags.DEFINE_string("input", None, "Folder to read.", required=True)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder to write; must not exist, or be empty.", required=True
)
_ARRAYS = "arrays"


def main(_: list[str]) -> None:
    """Runs the program."""
    source, target = pathlib.Path(_INPUT.value), pathlib.Path(_OUTPUT.value)
    with refusing_bad_input():
        if not source.is_dir():
            raise FileNotFoundError(f"--input={source}: no such folder.")
        if target.exists() and any(target.iterdir()):
            raise FileExistsError(f"--output={target} is not empty; choose another or delete it.")
        config = ModelConfig.load(source)
        from_hf = any(source.glob("*.safetensors"))
        if not from_hf and not (source / _ARRAYS).is_dir():
            raise FileNotFoundError(
                f"--input={source} holds neither *.safetensors nor an Orbax checkpoint of this "
                f"program ({_ARRAYS}/)."
            )
        if from_hf:
            params = load_pretrained(source, dtype=None)[2]
        else:
            params = load_arrays(source / _ARRAYS, abstract(config)[1])
    with replace_folder(target) as folder:
        if from_hf:
            save_arrays(folder / _ARRAYS, params)
        else:
            write_weights(folder, params)
        copy_tokenizer(source, folder)
        shutil.copy(source / "config.json", folder / "config.json")
    print(f"{target}: {'an Orbax checkpoint' if from_hf else 'a Hugging Face folder'}")


if __name__ == "__main__":
    run(main)
