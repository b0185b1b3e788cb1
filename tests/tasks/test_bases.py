"""The tiny bases that ship with the package."""

import json

import jax
import numpy as np
import pytest

from jaxcritique.models.huggingface import load_pretrained
from jaxcritique.prompts.templates import COMPACT, PromptSet
from jaxcritique.tasks import TINY_BASE

BASES = sorted(TINY_BASE.parent.glob("tiny_base*"))


def test_there_are_four_sizes():
    sizes = {load_pretrained(folder).config.num_parameters for folder in BASES}
    assert len(sizes) == len(BASES) == 4


@pytest.mark.parametrize("folder", BASES, ids=lambda folder: folder.name)
def test_a_base_is_what_its_record_says(folder):
    model = load_pretrained(folder)
    config = model.config
    record = json.loads((folder / "pretraining.json").read_text())
    if folder != TINY_BASE:  # The first one's record is from before sizes were noted.
        assert record["parameters"] == config.num_parameters
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == config.num_parameters
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model))
    name = folder.name.removeprefix("tiny_base").removeprefix("_")
    assert name in ("", f"{config.dim}x{config.num_layers}")


@pytest.mark.parametrize("folder", BASES, ids=lambda folder: folder.name)
def test_all_bases_have_the_same_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (TINY_BASE / name).read_bytes()


@pytest.mark.parametrize("folder", BASES, ids=lambda folder: folder.name)
def test_a_base_says_which_prompts_it_was_trained_on(folder):
    assert PromptSet.read(folder) is COMPACT
