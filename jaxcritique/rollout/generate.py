"""Samples for a file of prompts, as one call."""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import time
from typing import Any

from jaxcritique.config import REQUIRED, setting
from jaxcritique.errors import checking_input
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.rollout.journal import generate_shards, read_shard
from jaxcritique.rollout.prompt_files import SamplingConfig, read_requests, write_batch
from jaxcritique.run_folder import claim, release
from jaxcritique.store import read_object, write_atomically


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateConfig(SamplingConfig):
    """What is sampled for which prompts."""

    model: str = setting(
        REQUIRED, "Hugging Face folder; with `endpoint`, the name by which the server knows it."
    )
    prompts: pathlib.Path = setting(
        REQUIRED,
        "JSONL of {'id'?, 'prompt' | 'messages'}: a prompt is continued as it stands, messages are "
        "answered in the model's chat format. Or OpenAI batch rows, whose bodies then override "
        "the sampling settings.",
    )
    shard: str = setting("0/1", "i/k: only part i, from 0, of k parts of the prompts.")
    retry_failed: bool = setting(False, "Retry samples that failed before.")

    @property
    def part_of_parts(self) -> tuple[int, int]:
        """The i and the k of `shard`.

        Raises:
          ValueError: it is not written so.
        """
        index, slash, count = self.shard.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"`shard={self.shard}`: write i/k, with i from 0 to k-1, such as 0/4.")
        return int(index), int(count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateResults:
    """What was sampled. The fields but `failures` are the keys of the manifest."""

    model: str  # Names the weights.
    prompts: str
    rows_read: int
    requests: int
    samples: int
    stopped: int
    cut_off: int  # At `max_tokens` or the end of the context.
    failed: int
    completion_tokens: int
    seconds_of_last_run: float
    shards: dict[str, dict[str, Any]]  # The manifest of each, by file name.
    failures: dict[str, int]  # Reasons, the most frequent first.


def generate(
    config: GenerateConfig,
    output: str | os.PathLike[str],
    engine: EngineConfig = EngineConfig(),
) -> GenerateResults:
    """Samples for a file of prompts, into shards, a manifest and, for a batch, its output file.

    A row of a shard is {"id", "sample", "text", "finish_reason", "prompt_tokens",
    "completion_tokens", "logprobs"?, "error"?}. Called again after a kill, it continues, and ends
    with the same rows.

    Args:
      config: the model, the prompts, and how to sample.
      output: the folder.
      engine: what samples.

    Raises:
      InvalidInput: settings or files cannot be used, or the folder belongs to another run.
      SamplerError: the engine cannot go on.
    """
    output = pathlib.Path(output)
    with contextlib.ExitStack() as stack:
        with checking_input():
            index, count = config.part_of_parts
            sampling = config.part(SamplingConfig)
            prompts = read_requests(config.prompts, sampling)
            if engine.is_hosted:
                sampler = engine.hosted(config.model)
            else:
                started_engine = stack.enter_context(engine.start())
                sampler = started_engine.sampler(ModelFolder.of(config.model))
            settings = {
                "model": sampler.key,
                "prompts": f"{prompts.rows} rows, sha256 {prompts.sha256}",
                "shard": f"i/{count}",
            }
            part = "" if count == 1 else f"{index}-of-{count}"
            claim(output, "generate", {**settings, **sampling.to_json()}, part)
            stack.callback(release, output)
        requests = [r for r in prompts.requests if int(r.content[:8], 16) % count == index]
        started = time.monotonic()
        shards = generate_shards(output, "generate", sampler, requests, config.retry_failed)
    finish_reasons: collections.Counter[str] = collections.Counter()
    failures: collections.Counter[str] = collections.Counter()
    tokens = 0
    for completion in (completion for shard in shards for completion in read_shard(shard)):
        finish_reasons[completion.finish_reason] += 1
        tokens += completion.completion_tokens
        if completion.error:
            failures[completion.error] += 1
    results = GenerateResults(
        model=sampler.key,
        prompts=str(config.prompts),
        rows_read=prompts.rows,
        requests=len(requests),
        samples=sum(request.n for request in requests),
        stopped=finish_reasons["stop"],
        cut_off=finish_reasons["length"],
        failed=finish_reasons["error"],
        completion_tokens=tokens,
        seconds_of_last_run=round(time.monotonic() - started, 1),
        shards={shard.path.name: read_object(shard.manifest) for shard in shards},
        failures=dict(failures.most_common()),
    )
    manifest = dataclasses.asdict(results)
    del manifest["failures"]
    suffix = part and f"-{part}"
    write_atomically(output / f"manifest{suffix}.json", json.dumps(manifest, indent=2) + "\n")
    if prompts.batch:
        write_batch(output / f"batch{suffix}.jsonl", requests, shards, config.model)
    return results
