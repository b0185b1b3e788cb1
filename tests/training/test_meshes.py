"""One device, eight, and two processes of four learn the same."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # Each mesh compiles the step anew.
ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / "tests" / "training" / "meshes.py")
ONE = '{"mesh_text": "fsdp=1", "devices": 1}'
MESHES = {
    "data": {"mesh_text": "data=8"},
    "fsdp": {"mesh_text": "fsdp=8"},
    "tensor": {"mesh_text": "fsdp=4,tensor=2", "remat": "full"},
    "mixed": {"mesh_text": "data=2,fsdp=2,tensor=2", "remat": "dots"},
    "micro-batches": {"mesh_text": "fsdp=2,tensor=2", "devices": 4, "micro_rows": 2},
}


@pytest.fixture(scope="module")
def train(program_environment) -> Callable[..., dict]:
    """Returns a function: folder, runs, launcher, further environment -> the losses of each run."""

    def train(tmp_path, runs: list[str], launcher=(), **environment: str) -> dict:
        output = tmp_path / "losses.json"
        subprocess.run(
            [sys.executable, *launcher, PROGRAM, str(output), *runs],
            check=True,
            cwd=ROOT,
            env={**program_environment, **environment},
            timeout=600,
        )
        return json.loads(output.read_text())

    return train


@pytest.fixture(scope="module")
def losses(train, tmp_path_factory) -> dict[str, list[float]]:
    """The losses of 20 steps on 1 and on 8 simulated devices."""
    runs = {"one": ONE, **{name: json.dumps(run) for name, run in MESHES.items()}}
    found = train(tmp_path_factory.mktemp("one"), list(runs.values()), JAX_NUM_CPU_DEVICES="8")
    return {name: found[text] for name, text in runs.items()}


def test_the_reference_learns(losses):
    assert losses["one"][-1] < losses["one"][0] - 0.01
    assert len(losses["one"]) == 20


@pytest.mark.parametrize("mesh", MESHES)
def test_mesh_changes_no_loss(mesh, losses):
    np.testing.assert_allclose(losses[mesh], losses["one"], atol=1e-5)


def test_two_processes_change_no_loss(losses, train, tmp_path):
    run = '{"mesh_text": "data=2,fsdp=4"}'
    launcher = ("-m", "launchers.local", "--processes=2", "--cpu_devices=4", "--")
    np.testing.assert_allclose(train(tmp_path, [run], launcher)[run], losses["one"], atol=1e-5)
