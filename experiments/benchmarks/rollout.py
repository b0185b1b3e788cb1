"""Output tokens per second of the JAX engine, vLLM and `transformers`, on the same prompts.

Every sample has exactly --bench_tokens tokens (stop tokens are held back), so all engines do the
same work. Compilation and the start of a server are paid once and not counted: the JAX engine does
the work twice and the second time is measured, vLLM and `transformers` answer a few prompts before.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from experiments.benchmarks import Measured
from experiments.program import in_flags
from jaxcritique.config import Config, setting, settings_of
from jaxcritique.errors import checking_input
from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.rollout.engines import EngineConfig, load_jax, load_vllm
from jaxcritique.rollout.prompt_files import SamplingConfig, read_requests
from jaxcritique.rollout.sampler import Request, Sampler, SamplerError

_AGREEMENT_TOKENS = 64
_GREEDY = 16  # Prompts `transformers` answers greedily at a time.
_WARM_UP = 4  # Prompts; few, for vLLM remembers them.


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutBenchmark(Config):
    """The settings of --suite=rollout."""

    model: pathlib.Path | None = setting(None, "rollout: Hugging Face folder.")
    prompts: pathlib.Path | None = setting(
        None, "rollout: JSONL of {'prompt' | 'messages'}, as experiments.generate reads it."
    )
    bench_samples: int = setting(4, "rollout: samples a prompt.", low=1)
    bench_tokens: int = setting(128, "rollout: tokens a sample.", low=1)
    bench_batches: tuple[int, ...] = setting(
        (16, 64, 128), "rollout: batch sizes `transformers` is tried with.", low=1
    )


@dataclasses.dataclass(frozen=True)
class _Work:
    """What every contender does."""

    model: ModelFolder
    engine: EngineConfig
    requests: list[Request]  # The measured ones.
    greedy: list[Request]  # For agreement.
    batches: tuple[int, ...]


def measure(benchmark: RolloutBenchmark, engine: EngineConfig) -> Measured:
    """Measures the engines that are installed.

    Raises:
      InvalidInput: a setting, the model or the prompts cannot be used.
      SamplerError: the JAX engine cannot answer them.
    """
    with checking_input():
        if not benchmark.model or not benchmark.prompts:
            raise ValueError("`suite=rollout` needs `model` and `prompts`.")
        model = ModelFolder.of(benchmark.model)
        config = ModelConfig.load(model.folder)
        tokens = benchmark.bench_tokens
        prompts = read_requests(
            benchmark.prompts,
            SamplingConfig(n=benchmark.bench_samples, max_tokens=tokens, min_tokens=tokens),
        )
        if prompts.batch:
            raise ValueError(
                f"`prompts={benchmark.prompts}`: batch rows set their own number of tokens."
            )
        greedy = SamplingConfig(max_tokens=_AGREEMENT_TOKENS, temperature=0.0)
        work = _Work(
            model,
            engine,
            prompts.requests,
            read_requests(benchmark.prompts, greedy).requests,
            benchmark.bench_batches,
        )
        contenders: dict[str, Callable[[_Work], tuple[dict[str, Any], list[str]]]] = {"jax": _jax}
        try:
            engine.vllm().check()
            contenders["vllm"] = _vllm
        except ValueError as error:
            reason = in_flags(str(error), {field.name for field in settings_of(EngineConfig)})
            print(f"vLLM is left out: {reason}", file=sys.stderr)
        if importlib.util.find_spec("torch"):
            contenders["transformers"] = _transformers
        else:
            print("transformers is left out: torch is not installed.", file=sys.stderr)
    rate = matrix_product_gflops()
    results: dict[str, dict[str, Any]] = {}
    texts: dict[str, list[str]] = {}
    for name, contender in contenders.items():
        try:
            results[name], texts[name] = contender(work)
        except SamplerError as error:
            if name == "jax":
                raise
            print(f"{name} is left out: {error}", file=sys.stderr)
    flops = 2 * (
        config.num_parameters - (not config.tie_embeddings) * config.vocab_size * config.dim
    )
    agreement = {
        name: sum(a == b for a, b in zip(texts[name], texts["jax"], strict=True))
        / len(texts["jax"])
        for name in texts
    }
    rows: list[Sequence[str]] = [
        ("engine", "output tokens", "seconds", "tokens/s", "GF/s", "of products'", "same greedy")
    ]
    for name, result in results.items():
        speed = result["output_tokens_per_second"]
        rows.append(
            (
                name,
                f"{result['output_tokens']:,}",
                f"{result['seconds']:.1f}",
                f"{speed:.1f}",
                f"{speed * flops / 1e9:.0f}",
                f"{speed * flops / 1e9 / rate:.0%}",
                f"{agreement[name]:.0%}",
            )
        )
    figures = {
        "engines": results,
        "greedy_agreement_with_jax": agreement,
        "matrix_product_gflops": rate,
        "flops_per_token": flops,
        "prompts": len(work.requests),
    }
    parts = results["jax"]["settings"]["seconds_by_part"]
    decode_rate = results["jax"]["output_tokens"] * flops / parts["decode"] / 1e9
    split = ", ".join(f"{name} {seconds:.1f}" for name, seconds in parts.items())
    footnote = (
        f"The JAX engine's seconds: {split}; {decode_rate:.0f} GF/s while it decodes.\n"
        "GF/s counts products with weights for the output's tokens only; a large fp32 product does "
        f"{rate:.0f} here.\nSame greedy: the share of prompts with the JAX engine's greedy text, "
        f"{_AGREEMENT_TOKENS} tokens at most."
    )
    return Measured(rows, footnote, figures)


def matrix_product_gflops() -> float:
    """The rate of a fp32 product of two matrices of 2,048, the best of ten."""
    x = jnp.ones((2048, 2048))
    product = jax.jit(lambda x: x @ x)
    seconds = []
    for _ in range(11):
        started = time.perf_counter()
        jax.block_until_ready(product(x))
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(seconds[1:]) / 1e9


def _jax(work: _Work) -> tuple[dict[str, Any], list[str]]:
    config = work.engine.jax()
    with checking_input():
        sampler = load_jax(work.model, config)
    _, first_seconds = _timed("jax, compiling", sampler, work.requests)
    sampler.seconds.clear()
    tokens, seconds = _timed("jax", sampler, work.requests)
    result = _result(
        tokens,
        seconds,
        version=jax.__version__,
        slots=config.slots,
        mesh=config.mesh,
        compiled_programs=len(sampler.shapes),
        seconds_with_compilation=first_seconds,
        seconds_by_part=dict(sampler.seconds),
    )
    return result, _texts(sampler, work.greedy)


def _vllm(work: _Work) -> tuple[dict[str, Any], list[str]]:
    config = work.engine.vllm()
    sampler = load_vllm(work.model, config, work.engine.own_client())
    try:
        _texts(sampler, work.greedy[:_WARM_UP])
        tokens, seconds = _timed("vllm", sampler, work.requests)
        texts = _texts(sampler, work.greedy)
    finally:
        sampler.close()
    result = _result(
        tokens,
        seconds,
        distribution=config.check(),
        arguments=config.arguments,
        environment={
            key: value
            for key, value in os.environ.items()
            if key.startswith("VLLM_") and not key.endswith(("KEY", "TOKEN"))
        },
    )
    return result, texts


def _transformers(work: _Work) -> tuple[dict[str, Any], list[str]]:
    import torch
    import transformers

    model, requests, greedy = work.model, work.requests, work.greedy
    tokenizer = Tokenizer(model.folder)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16  # As in the JAX engine.
    network: Any = transformers.AutoModelForCausalLM.from_pretrained(
        model.folder, dtype=dtype, local_files_only=True
    )
    network = network.to(device).eval()
    network.generation_config = transformers.GenerationConfig()  # What is asked, not the folder's.
    ends = sorted(tokenizer.stop_ids)
    pad = min(ends, default=0)

    def generate(prompts: list[list[int]], **settings: Any) -> list[list[int]]:
        longest = max(map(len, prompts))
        padded = [[pad] * (longest - len(p)) + p for p in prompts]
        mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
        with torch.inference_mode():
            out = network.generate(
                torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                pad_token_id=pad,
                **settings,
            )
        return out[:, longest:].tolist()

    torch.manual_seed(0)
    texts = []
    for start in tqdm(range(0, len(greedy), _GREEDY), desc="transformers, greedy", unit="batch"):
        some = greedy[start : start + _GREEDY]
        drawn = generate(
            [request.token_ids(tokenizer) for request in some],
            do_sample=False,
            max_new_tokens=_AGREEMENT_TOKENS,
            eos_token_id=ends or None,
        )
        for request, tokens in zip(some, drawn, strict=True):
            count = next((n for n, token in enumerate(tokens, 1) if token in ends), len(tokens))
            texts.append(request.completion(tokenizer, 0, 0, tokens[:count], ()).text)
    prompts = sorted((r.token_ids(tokenizer) for r in requests for _ in range(r.n)), key=len)
    tokens = requests[0].max_tokens
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}

    def timed(some: list[list[int]], batch: int, count: int, show: bool = False) -> float:
        started = time.perf_counter()
        starts = range(0, len(some), batch)
        for start in tqdm(starts, f"transformers, {batch}", disable=not show, unit="batch"):
            generate(
                some[start : start + batch], max_new_tokens=count, min_new_tokens=count, **sampling
            )
        return time.perf_counter() - started

    timed(prompts[:_WARM_UP], _WARM_UP, min(tokens, 16))
    tried = {}
    for batch in {min(size, len(prompts)) for size in work.batches}:
        seconds = timed(prompts[-batch:], batch, min(tokens, 16))
        tried[batch] = batch * min(tokens, 16) / seconds
    best = max(tried, key=tried.__getitem__)
    seconds = timed(prompts, best, tokens, show=True)
    version = importlib.metadata.version("transformers")
    result = _result(
        len(prompts) * tokens,
        seconds,
        version=version,
        device=str(device),
        dtype=str(dtype),
        batch=best,
        tried_tokens_per_second=tried,
    )
    return result, texts


def _result(tokens: int, seconds: float, **settings: Any) -> dict[str, Any]:
    return {
        "output_tokens": tokens,
        "seconds": seconds,
        "output_tokens_per_second": tokens / seconds,
        "settings": settings,
    }


def _timed(name: str, sampler: Sampler, requests: list[Request]) -> tuple[int, float]:
    total = sum(request.n for request in requests)
    started = time.perf_counter()
    with tqdm(total=total, desc=name, unit="sample") as bar:

        def progress(_: int, finished: int) -> None:
            bar.update(finished)

        done = list(sampler.generate(requests, progress))
    seconds = time.perf_counter() - started
    if failed := next((c.error for c in done if c.error), None):
        raise SamplerError(f"{name}: {failed}")
    return sum(completion.completion_tokens for completion in done), seconds


def _texts(sampler: Sampler, requests: list[Request]) -> list[str]:
    texts = {c.request: c.text for c in sampler.generate(requests)}
    return [texts[request.id] for request in requests]
