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

from experiments.program import parse
from jaxcritique.models.presets import PRESETS
from jaxcritique.models.sharding import make_mesh
from jaxcritique.rollout.decoding import BLOCK, trace_decoding
from jaxcritique.training.hardware import Chip
from launchers.fits import (
    FitConfig,
    Job,
    largest_arrays,
    out_of_memory,
    products,
    training_products,
)
from launchers.topology import Topology

NEEDS_LIBTPU = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason="libtpu is not installed"
)
ROOT = pathlib.Path(__file__).resolve().parents[2]
KEYS = [
    "model", "topology", "devices", "mesh", "batch", "sequence", "argument_bytes", "temp_bytes",
    "peak_bytes", "hbm_bytes", "fits", "flops_per_device", "roofline_step_seconds",
    "compile_seconds", "step", "needed_bytes",
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
def refusal():
    """Returns a function: arguments -> what the program says where it refuses them."""
    before = dict(os.environ)
    from launchers import plan  # It sets environment variables, which are put back.

    os.environ.clear()
    os.environ.update(before)

    def refusal(*arguments: str) -> str:
        with pytest.raises((ValueError, OSError)) as refused:
            plan.main(*parse(arguments, *plan.CONFIGS))
        return str(refused.value)

    return refusal


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
    with pytest.raises(ValueError, match=f"`topology={name}`"):
        Topology.parse(name)


@pytest.mark.parametrize(
    ("topology", "compiler", "extra"),
    [("v5e:2x2", "libtpu", "plan-tpu"), ("h100:8", "jax_plugins", "plan-gpu")],
)
def test_missing_compiler_names_the_extra(topology, compiler, extra, refusal):
    if importlib.util.find_spec(compiler):
        pytest.skip(f"{compiler} is installed")
    message = refusal("--model=smollm2-135m", f"--topology={topology}")
    assert message.startswith(f"`topology={topology}` needs")
    assert f"pip install -e '.[{extra}]'" in message


def test_a_refusal_ends_the_program_in_a_line():
    result = plan("--model=gpt-9", "--topology=v5e:2x2")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: --model=gpt-9 is neither a folder nor")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch=4", "--search"], "--search finds the batch; leave --batch out"),
        (["--topology="], "--topology=: give at least one."),
        (["--model="], "--model=: give at least one."),
        (["--json=."], "`json=.` is a folder"),
        (["--model=gpt-9"], "`model=gpt-9` is neither a folder nor one of the presets smollm2"),
    ],
)
def test_bad_flags_are_refused(flags, message, refusal):
    assert refusal("--model=smollm2-135m", "--topology=v5e:2x2", *flags).startswith(message)


@NEEDS_LIBTPU
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sequence=2000"], "rows of a multiple of 128 tokens, not 2000"),
        (["--sequence=16384"], "beyond the model's 8192 positions"),
        (["--batch=3"], "cannot be divided over data x fsdp = 4 devices"),
        (["--batch=3", "--step=decode"], "cannot be divided over data x fsdp = 4 devices"),
        (["--mesh=fsdp=2,tensor=2"], "tensor=2 does not divide the 3 of layers.k"),
        (["--mesh=fsdp=8"], "asks for 8 devices; there are 4"),
        (["--topology=v5e:3x5"], "`topology=v5e:3x5`: "),
    ],
)
def test_what_cannot_be_compiled_is_refused_before(flags, message, refusal):
    assert message in refusal("--model=smollm2-135m", "--topology=v5e:2x2", *flags)


def test_products_are_counted_through_loops_and_gradients():
    x, w = jnp.ones((4, 8)), jnp.ones((3, 8, 8))

    def loss(w, x):
        return jax.lax.scan(lambda c, w: (jax.checkpoint(jnp.dot)(c, w), None), x, w)[0].sum()

    product = 2 * 4 * 8 * 8
    assert products(jax.make_jaxpr(loss)(w, x).jaxpr) == 3 * product
    assert products(jax.make_jaxpr(jax.grad(loss, (0, 1)))(w, x).jaxpr) == 9 * product


@pytest.mark.parametrize(("slots", "rows"), [(16, 16), (4, 8)])  # It works on 8 rows at least.
def test_flops_of_decoding_are_those_of_its_products(tiny, slots, rows):
    config = tiny.config
    positions = 128
    traced, _, _ = trace_decoding(config, make_mesh(), slots, positions, "float32")
    weights = config.num_parameters - config.vocab_size * config.dim  # One table is looked up in.
    norms = (2 * config.num_layers + 1) * config.dim
    attention = 2 * config.num_layers * positions * config.num_heads * config.head_dim
    expected = 2 * rows * (weights - norms + attention)
    assert products(traced.jaxpr.jaxpr) == BLOCK * expected


@pytest.mark.parametrize("remat", ["none", "full"])
def test_flops_of_a_step_are_those_of_its_products(tiny, remat):
    config = tiny.config
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
    assert training_products(config, remat, b, s) == expected


@pytest.fixture
def job(tiny):
    """Returns a function: bytes of memory -> a job for this CPU as a topology with so much."""
    config = FitConfig(model=("tiny",), topology=("here",), sequence=128)

    def job(hbm_bytes: int) -> Job:
        topology = Topology("here", "cpu", Chip(1e12, hbm_bytes, 1e11, ()), 1)
        return Job(config, "tiny", tiny.config, topology, jax.devices()[:1], "")

    return job


def test_what_is_needed_must_fit_and_not_only_the_peak(job):
    roomy, _ = job(2**40).fit(4)
    assert roomy.fits
    assert roomy.needed_bytes >= roomy.argument_bytes + roomy.temp_bytes
    assert roomy.peak_bytes < roomy.needed_bytes
    assert job(roomy.needed_bytes).fit(4)[0].fits
    tight, users = job(roomy.needed_bytes - 1).fit(4)
    assert not tight.fits
    assert len(users) >= 3
    assert users[0][0] < roomy.needed_bytes


@pytest.mark.slow
def test_search_finds_the_last_batch_that_fits(job):
    limit = job(2**40).fit(5)[0].needed_bytes + 1
    best, _ = job(limit).search()
    assert best.fits
    assert best.batch >= 5
    assert not job(limit).fit(best.batch + 1)[0].fits


def test_no_split_to_search_is_said(tiny, monkeypatch):
    monkeypatch.setattr(Topology, "devices", lambda self: [])
    monkeypatch.setitem(PRESETS, "tiny", tiny.config)
    config = FitConfig(model=("tiny",), topology=("v5e:16x16",), search=True)
    with pytest.raises(ValueError, match="no split of v5e:16x16's 256 devices"):
        config.jobs()


def test_largest_arrays_are_those_in_memory():
    hlo = """HloModule jit_step

%fused_computation (p: f32[1000]) -> f32[] {
  %p = f32[1000]{0} parameter(0)
  ROOT %b = f32[1000,1000]{1,0} broadcast(%p), dimensions={0}, metadata={op_name="jit(step)/outer"}
}

ENTRY %main (x: f32[1000]) -> f32[] {
  %x = f32[1000]{0} parameter(0)
  %e = bf16[1000]{0} exponential(%x), metadata={op_name="jit(step)/exp"}
  ROOT %f = f32[] fusion(%e), kind=kLoop, calls=%fused_computation, metadata={op_name="jit(step)/s"}
}
"""
    assert largest_arrays(hlo) == [(2000, "bf16[1000] of jit(step)/exp")]


def test_the_compilers_complaint_is_read():
    message = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory \
space hbm. Used 24.48G of 15.75G hbm. Exceeded hbm capacity by 8.73G.

  Largest program allocations in hbm:

  1. Size: 2.00G
     Operator: op_name="jit(train_step)/while/body/dot_general" source_file="a.py"
     Shape: f32[32,4096,4096]{2,1,0:T(8,128)}
     Unpadded size: 2.00G
"""
    peak, users = out_of_memory(message, 0)
    assert peak == int(24.48 * 2**30)
    assert users == [(2 * 2**30, "f32[32,4096,4096] of jit(train_step)/while/body/dot_general")]
    message = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO \
temporaries (142.41G) exceeds available HBM (15.75G)."
    peak, ((size, what),) = out_of_memory(message, 2**30)
    assert size == int(142.41 * 2**30)
    assert peak == size + 2**30
    assert "temporary arrays" in what
    with pytest.raises(RuntimeError, match="does not compile: something else"):
        out_of_memory("something else", 0)


@NEEDS_LIBTPU
@pytest.mark.parametrize("step", ["train", "decode"])
def test_plan_of_a_tpu(step, tmp_path):
    json_file = tmp_path / "plans" / "plan.json"
    result = plan(
        "--model=smollm2-135m", "--topology=v5e:2x2", f"--step={step}", f"--json={json_file}"
    )
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(json_file.read_text())
    assert list(row) == KEYS
    assert row["fits"]
    assert row["step"] == step
    assert row["argument_bytes"] < row["peak_bytes"] < row["hbm_bytes"]
    assert row["argument_bytes"] + row["temp_bytes"] <= row["needed_bytes"] < row["hbm_bytes"]


@NEEDS_LIBTPU
def test_what_does_not_fit_names_its_largest_users():
    result = plan("--model=smollm2-135m", "--topology=v5e:2x2", "--batch=256", "--remat=none")
    assert result.returncode == 1
    first, title, *users = result.stdout.splitlines()
    assert "DOES NOT FIT" in first
    assert "largest users of memory" in title
    sizes = [float(user.split()[0]) for user in users]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1
