"""The rollout benchmark as its users start it, at the smallest sizes."""

import functools
import json
import os
import subprocess
from collections.abc import Callable

import pytest
import torch

from jaxcritique.tasks import TINY_BASE


@pytest.fixture
def benchmark(run, tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function: flags, further environment -> the program as it ended."""
    prompts = tmp_path / "prompts.jsonl"
    rows = ({"prompt": f"Tom has {i} apples. That"} for i in range(3))
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    smallest = (
        "--suite=rollout", f"--model={TINY_BASE}", f"--prompts={prompts}",
        "--vllm_python=/nowhere/python", "--bench_samples=2", "--bench_tokens=8", "--slots=4",
    )  # fmt: skip
    return functools.partial(run, "benchmark", *smallest)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mesh=tensor=7"], "error: --mesh: tensor=7 does not divide "),
        (["--bench_batches=4,many"], "error: --bench_batches=4,many: give whole numbers"),
        (["--output=."], "error: --output=. is a folder"),
    ],
)
def test_bad_flags_are_refused_in_a_line(flags, message, benchmark):
    environment = {"JAX_NUM_CPU_DEVICES": "7"} if "tensor=7" in flags[0] else {}
    done = benchmark(*flags, **environment)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_figures_of_the_engines_there_are(benchmark, tmp_path):
    output = tmp_path / "out" / "figures.json"
    flags = (f"--output={output}", "--bench_batches=2,6")
    done = benchmark(*flags)
    assert done.returncode == 0, done.stderr
    assert "vLLM is left out: --vllm_python=/nowhere/python: No such file" in done.stderr
    figures = json.loads(output.read_text())
    assert set(figures["engines"]) == {"jax", "transformers"}
    for name, result in figures["engines"].items():
        assert result["output_tokens"] == 3 * 2 * 8
        rate = result["output_tokens"] / result["seconds"]
        assert result["output_tokens_per_second"] == pytest.approx(rate)
        assert result["settings"]["version"]
        assert f"\n{name} " in done.stdout
    parts = figures["engines"]["jax"]["settings"]["seconds_by_part"]
    assert {"prefill", "decode", "host"} <= set(parts)
    assert sum(parts.values()) <= figures["engines"]["jax"]["seconds"]
    settings = figures["engines"]["transformers"]["settings"]
    assert settings["batch"] in (2, 6)
    assert set(settings["tried_tokens_per_second"]) == {"2", "6"}
    assert settings["device"] == str(torch.accelerator.current_accelerator(True) or "cpu")
    assert figures["greedy_agreement_with_jax"] == {"jax": 1.0, "transformers": 1.0}
    assert figures["machine"]["cpus"] == os.cpu_count()
