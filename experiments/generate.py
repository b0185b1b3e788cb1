"""Answers a file of prompts.

    python -m experiments.generate --model=DIR --prompts=FILE.jsonl --output=DIR --n=4

Rows in: {"id"?, "prompt" | "messages"}, or OpenAI's batch format. Rows out, in shards:
{"id", "sample", "text", "finish_reason", "prompt_tokens", "completion_tokens", "error"?}. Kill it
at any time and run the same command again: it goes on, and ends with the same rows.
"""

import collections
import contextlib
import dataclasses
import json
import pathlib
import sys
import time

from absl import flags

from experiments import engines
from experiments.program import claim, refusing_bad_input, run
from jaxcritique.rollout.journal import generate_shards, read_shard
from jaxcritique.rollout.prompt_files import Defaults, read_requests, write_batch
from jaxcritique.store import read_object, write_atomically

FLAGS = flags.FLAGS
_MODEL = flags.DEFINE_string(
    "model", None, "Hugging Face folder; with --endpoint, the name the server knows.", required=True
)
_PROMPTS = flags.DEFINE_string(
    "prompts",
    None,
    "JSONL of {'id'?, 'prompt' | 'messages'}: a prompt is gone on from as it stands, messages are "
    "replied to in the model's chat format. Or OpenAI batch rows, whose bodies then replace the "
    "flags below.",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for rows and manifest.", required=True)
_N = flags.DEFINE_integer("n", 1, "Samples of each prompt.", lower_bound=1)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Decides the samples, with a prompt, its id and all that is asked of it: --n to --logprobs.",
    lower_bound=0,
)
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Of sampling; 0: greedy.", lower_bound=0.0)
_TOP_K = flags.DEFINE_integer("top_k", 0, "Draw from the k likeliest; 0: all.", lower_bound=0)
_TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "Draw from the likeliest tokens of so much mass.", lower_bound=0, upper_bound=1
)
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", 1024, "Most tokens of a sample.", lower_bound=1)
_MIN_TOKENS = flags.DEFINE_integer("min_tokens", 0, "Fewest tokens of a sample.", lower_bound=0)
_STOP = flags.DEFINE_multi_string("stop", [], "A string a sample ends before; may be repeated.")
_STOP_TOKEN_IDS = flags.DEFINE_list("stop_token_ids", [], "Tokens that end a sample.")
_LOGPROBS = flags.DEFINE_bool("logprobs", False, "Write the log-probability of every token.")
_SHARD = flags.DEFINE_string("shard", "0/1", "i/k: only part i, from 0, of k parts of the prompts.")
_RETRY_FAILED = flags.DEFINE_bool("retry_failed", False, "Ask again what failed before.")


def main(_: list[str]) -> None:
    """Runs the program."""
    output = pathlib.Path(_OUTPUT.value)
    with contextlib.ExitStack() as stack:
        with refusing_bad_input():
            index, count = _shard(_SHARD.value)
            defaults = _defaults()
            prompts = read_requests(pathlib.Path(_PROMPTS.value), defaults)
            part = "" if count == 1 else f"{index}-of-{count}"
            sampler = stack.enter_context(engines.sampler(_MODEL.value))
            settings = {
                "model": sampler.key,
                "prompts": f"{prompts.rows} rows, sha256 {prompts.sha256}",
                "shard": f"i/{count}",
            }
            claim(output, {**settings, **dataclasses.asdict(defaults)}, part)
        mine = [r for r in prompts.requests if int(r.content[:8], 16) % count == index]
        started = time.monotonic()
        shards = generate_shards(output, "generate", sampler, mine, _RETRY_FAILED.value)
    reasons: collections.Counter[str] = collections.Counter()
    sums: collections.Counter[str] = collections.Counter()
    for completion in (completion for shard in shards for completion in read_shard(shard)):
        sums[completion.finish_reason] += 1
        sums["tokens"] += completion.completion_tokens
        if completion.error:
            reasons[completion.error] += 1
    suffix = part and f"-{part}"
    manifest = {
        "model": sampler.key,
        "prompts": str(_PROMPTS.value),
        "rows_read": prompts.rows,
        "requests": len(mine),
        "samples": sum(request.n for request in mine),
        "stopped": sums["stop"],
        "cut_off": sums["length"],
        "failed": sums["error"],
        "completion_tokens": sums["tokens"],
        "seconds_of_last_run": round(time.monotonic() - started, 1),
        "shards": {shard.path.name: read_object(shard.manifest) for shard in shards},
    }
    write_atomically(output / f"manifest{suffix}.json", json.dumps(manifest, indent=2) + "\n")
    if prompts.batch:
        write_batch(output / f"batch{suffix}.jsonl", mine, shards, _MODEL.value)
    print(f"{manifest['samples']} samples of {len(mine)} prompts in {output}")
    for reason, times in reasons.most_common(5):
        print(f"{times} failed: {reason}", file=sys.stderr)
    if reasons:
        print("run it again with --retry_failed to ask for these again.", file=sys.stderr)
    if mine and sums["error"] == manifest["samples"]:
        sys.exit(1)  # Nothing was answered: what comes after would find no text.


def _defaults() -> Defaults:
    """What is asked of every prompt, by the flags.

    Raises:
      ValueError: they contradict each other.
    """
    if _MIN_TOKENS.value > _MAX_TOKENS.value:
        raise ValueError(
            f"--min_tokens={_MIN_TOKENS.value} must not exceed --max_tokens={_MAX_TOKENS.value}."
        )
    if not all(token.isdecimal() for token in _STOP_TOKEN_IDS.value):
        raise ValueError(f"--stop_token_ids={','.join(_STOP_TOKEN_IDS.value)}: numbers wanted.")
    try:
        return Defaults(
            n=_N.value,
            max_tokens=_MAX_TOKENS.value,
            temperature=_TEMPERATURE.value,
            seed=_SEED.value,
            top_k=_TOP_K.value,
            top_p=_TOP_P.value,
            min_tokens=_MIN_TOKENS.value,
            stop=tuple(_STOP.value),
            stop_token_ids=tuple(map(int, _STOP_TOKEN_IDS.value)),
            logprobs=_LOGPROBS.value,
        )
    except ValueError as error:
        raise ValueError(f"--{error}") from error


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ValueError(f"--shard={text}: i/k is wanted, i from 0 to k-1, such as 0/4.")
    return int(index), int(count)


if __name__ == "__main__":
    run(main)
