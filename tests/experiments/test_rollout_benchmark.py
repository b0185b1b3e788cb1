"""The rollout benchmark as its users start it, at the smallest sizes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from jaxcritique.tasks import TINY_BASE

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_figures_of_the_engines_there_are(tmp_path):
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "out" / "figures.json"
    rows = ({"prompt": f"Tom has {i} apples. That"} for i in range(3))
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable, "-m", "experiments.benchmark", "--suite=rollout", f"--model={TINY_BASE}",
        f"--prompts={prompts}", f"--output={output}", "--vllm_python=/nowhere/python",
        "--bench_samples=2", "--bench_tokens=8", "--bench_batches=2,6", "--slots=4",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
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
    assert figures["engines"]["transformers"]["settings"]["batch"] in (2, 6)
    assert figures["greedy_agreement_with_jax"] == {"jax": 1.0, "transformers": 1.0}
    assert figures["machine"]["cpus"] == os.cpu_count()
