"""The plan's arithmetic, and its refusals; compiling where a compiler is installed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from launchers.topology import Topology

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEYS = [
    "model", "topology", "devices", "mesh", "batch", "sequence", "argument_bytes", "temp_bytes",
    "peak_bytes", "hbm_bytes", "fits", "flops_per_device", "roofline_step_seconds",
    "compile_seconds",
]  # fmt: skip


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "launchers.plan", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def module():
    """The program's module; importing it sets environment variables, which are put back."""
    before = dict(os.environ)
    from launchers import plan

    os.environ.clear()
    os.environ.update(before)
    return plan


@pytest.mark.parametrize(
    ("name", "platform", "count"),
    [
        ("v5e:8x8", "tpu", 64),
        ("v5p:2x2x2", "tpu", 8),
        ("h100:16", "cuda", 16),
        ("h100:1", "cuda", 1),
    ],
)
def test_topology_names(name, platform, count):
    topology = Topology.parse(name)
    assert (topology.platform, topology.count) == (platform, count)


@pytest.mark.parametrize("name", ["v5e", "v5e:64", "h100:8x8", "b200:8", "h100:12", "h100:0"])
def test_bad_topology_is_refused(name):
    with pytest.raises(ValueError, match=f"--topology={name}"):
        Topology.parse(name)


@pytest.mark.parametrize(
    ("topology", "compiler", "extra"),
    [("v5e:2x2", "libtpu", "plan-tpu"), ("h100:8", "jax_plugins", "plan-gpu")],
)
def test_missing_compiler_names_the_extra(topology, compiler, extra):
    if importlib.util.find_spec(compiler):
        pytest.skip(f"{compiler} is installed")
    result = plan("--model=smollm2-135m", f"--topology={topology}")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: --topology={topology} needs")
    assert f"pip install -e '.[{extra}]'" in result.stderr


def test_unknown_model_is_refused():
    result = plan("--model=gpt-9", "--topology=v5e:2x2")
    assert result.returncode == 1
    assert "--model=gpt-9 is neither a folder nor one of the presets smollm2-135m" in result.stderr


def test_products_are_counted_through_loops_and_gradients(module):
    x, w = jnp.ones((4, 8)), jnp.ones((3, 8, 8))

    def loss(w, x):
        return jax.lax.scan(lambda c, w: (jax.checkpoint(jnp.dot)(c, w), None), x, w)[0].sum()

    product = 2 * 4 * 8 * 8
    assert module._products(jax.make_jaxpr(loss)(w, x).jaxpr) == 3 * product
    assert module._products(jax.make_jaxpr(jax.grad(loss, (0, 1)))(w, x).jaxpr) == 9 * product


@pytest.mark.parametrize("remat", ["none", "full"])
def test_flops_of_a_step_are_those_of_its_products(module, tiny, remat, monkeypatch):
    config, _, _ = tiny
    monkeypatch.setattr(module, "_REMAT", type("Flag", (), {"value": remat}))
    b, s = 4, 256
    layer = config.dim * config.head_dim * (2 * config.num_heads + 2 * config.num_kv_heads)
    layer += 3 * config.dim * config.mlp_dim
    pairs = sum(128 * end for end in (128, 256))  # What the reference's chunks multiply.
    attention = 2 * config.num_heads * config.head_dim * pairs
    layers = 2 * b * config.num_layers * (s * layer + attention)
    head = 2 * b * s * config.vocab_size * config.dim
    # Forward, backward twice that; the head always works its logits out again. With full remat the
    # layers do so too, but for the last product, whose result nothing needs.
    last = 2 * b * config.num_layers * s * config.mlp_dim * config.dim
    expected = (3 if remat == "none" else 4) * layers + 4 * head
    expected -= last if remat == "full" else 0
    assert module._flops(config, b, s) == expected


def test_the_compilers_complaint_is_read(module):
    message = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory \
space hbm. Used 24.48G of 15.75G hbm. Exceeded hbm capacity by 8.73G.

  Largest program allocations in hbm:

  1. Size: 2.00G
     Operator: op_name="jit(train_step)/while/body/dot_general" source_file="a.py"
     Shape: f32[32,4096,4096]{2,1,0:T(8,128)}
     Unpadded size: 2.00G
"""
    peak, users = module._out_of_memory(message)
    assert peak == int(24.48 * 2**30)
    assert users == [(2 * 2**30, "f32[32,4096,4096] of jit(train_step)/while/body/dot_general")]
    with pytest.raises(RuntimeError, match="does not compile: something else"):
        module._out_of_memory("something else")


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_plan_of_a_tpu(tmp_path):
    result = plan("--model=smollm2-135m", "--topology=v5e:2x2", f"--json={tmp_path / 'plan.json'}")
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((tmp_path / "plan.json").read_text())
    assert list(row) == KEYS
    assert row["fits"]
    assert row["argument_bytes"] < row["peak_bytes"] < row["hbm_bytes"]
