import shutil

import pytest

from jaxcritique.errors import InvalidInput
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.models.sharding import make_mesh
from jaxcritique.store import Store
from jaxcritique.tasks import TINY_BASE
from jaxcritique.training.data import Example
from jaxcritique.training.sft import ExecutionConfig, SftConfig, fine_tune_stage
from jaxcritique.training.step import Execution, check_execution

CONFIG = SftConfig(learning_rate=1e-3, epochs=1, rows=2, sequence=64, micro_rows=2)
EXAMPLES = [Example([{"role": "user", "content": "What is 2+2?"}], "It is 4.")]


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
