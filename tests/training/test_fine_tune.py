import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from jaxcritique.errors import InvalidInput
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder, load_pretrained, save_pretrained
from jaxcritique.models.sharding import make_mesh
from jaxcritique.models.transformer import initialize
from jaxcritique.records import digest
from jaxcritique.store import Store
from jaxcritique.tasks import TINY_BASE
from jaxcritique.training.data import Example
from jaxcritique.training.loop import train
from jaxcritique.training.sft import (
    ExecutionConfig,
    FineTuned,
    SftConfig,
    fine_tune_stage,
    prepare,
)
from jaxcritique.training.step import Execution, check_execution

CONFIG = SftConfig(learning_rate=1e-3, epochs=1, rows=2, sequence=64, micro_rows=2)
EXAMPLES = [Example([{"role": "user", "content": "What is 2+2?"}], "It is 4.")]


def fine_tune(base, folder=None) -> FineTuned:
    job = prepare(base, EXAMPLES, CONFIG, folder=folder)
    return job.save_result(train(job))


def test_a_base_without_a_whole_tokenizer_ends_in_a_line(tmp_path):
    base = tmp_path / "base"
    shutil.copytree(TINY_BASE, base)
    model = ModelFolder.of(base)
    (base / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(InvalidInput, match=f"{base}: its tokenizer cannot be read"):
        fine_tune_stage(Store(tmp_path / "run"), "sft", model, EXAMPLES, CONFIG, seed=0)


def test_a_mesh_that_devices_do_not_make_ends_in_a_line(tmp_path):
    base, execution = ModelFolder.of(TINY_BASE), ExecutionConfig(mesh="fsdp=3,tensor=5")
    with pytest.raises(InvalidInput, match="devices"):
        fine_tune_stage(Store(tmp_path), "sft", base, EXAMPLES, CONFIG, 0, execution)


def test_rows_that_micro_batches_do_not_divide_are_refused():
    """The step would cut them anew, at another length, and train on what comes of it."""
    config = ModelConfig.load(TINY_BASE)
    with pytest.raises(ValueError, match="the 3 rows of a step are no multiple of 2 at a time"):
        check_execution(config, make_mesh(), Execution(micro_rows=2), rows=3, sequence=64)


@pytest.fixture(scope="module")
def base(tiny, tokenizer_folder, tmp_path_factory):
    """A folder with a tiny model; its vocabulary is that of the test's tokenizer."""
    config = dataclasses.replace(tiny.config, vocab_size=300, max_positions=64)
    folder = tmp_path_factory.mktemp("base") / "model"
    save_pretrained(folder, initialize(config, seed=0), tokenizer_folder, np.float16)
    return folder


def test_in_memory_or_in_a_folder_is_the_same_fine_tuning(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    in_memory = fine_tune(base)
    assert list(tmp_path.iterdir()) == []
    in_folder = fine_tune(base, folder=tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, in_memory.model, in_folder.model)
    [step] = in_memory.history
    [logged] = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert step.keys() == logged.keys()
    assert step["loss"] == logged["loss"]
    assert in_memory.summary().keys() == {"examples", "too_long", "steps", "seconds"}
    saved = load_pretrained(tmp_path / "run" / "model")
    rounded = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), in_memory.model)
    jax.tree.map(np.testing.assert_array_equal, saved, rounded)


def test_what_was_fine_tuned_can_be_fine_tuned_again(base):
    first = fine_tune(base)
    before = jax.tree.map(np.asarray, first.model)
    second = fine_tune(first)
    jax.tree.map(np.testing.assert_array_equal, first.model, before)
    assert second.history[0]["loss"] < first.history[0]["loss"]


def test_a_fine_tuned_model_has_a_key_of_what_decides_its_outcome(base):
    def key(base, examples=EXAMPLES, config=CONFIG, seed=0):
        return digest(prepare(base, examples, config, seed).settings)

    first = fine_tune(base)
    same = dataclasses.replace(CONFIG, micro_rows=1)
    assert first.key == key(base) == key(ModelFolder.of(base)) == key(base, config=same)
    slower = dataclasses.replace(CONFIG, learning_rate=1e-4)
    others = {key(base, EXAMPLES * 2), key(base, config=slower), key(base, seed=1), key(first)}
    assert len(others - {first.key}) == 4
