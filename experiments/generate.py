"""Samples for a file of prompts.

    python -m experiments.generate --model=DIR --prompts=FILE.jsonl --output=DIR --n=4

Rows in: {"id"?, "prompt" | "messages"}, or OpenAI's batch format. Rows out, in shards:
{"id", "sample", "text", "finish_reason", "prompt_tokens", "completion_tokens", "error"?}. Kill it
at any time and run the same command again: it continues, and ends with the same rows.
"""

import dataclasses
import itertools
import pathlib
import sys

from experiments.program import run
from jaxcritique.config import REQUIRED, Config, setting
from jaxcritique.rollout.engines import EngineConfig
from jaxcritique.rollout.generate import GenerateConfig, generate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output(Config):
    """Where the rows go."""

    output: pathlib.Path = setting(REQUIRED, "Folder for rows and manifest.")


CONFIGS = GenerateConfig, EngineConfig, Output


def main(config: GenerateConfig, engine: EngineConfig, output: Output) -> None:
    """Runs the program. Its exit code is 1 where every sample failed."""
    results = generate(config, output.output, engine)
    print(f"{results.samples} samples of {results.requests} prompts in {output.output}")
    for reason, count in itertools.islice(results.failures.items(), 5):
        print(f"{count} failed: {reason}", file=sys.stderr)
    if results.failures:
        print("run it again with --retry_failed to retry these.", file=sys.stderr)
    if results.samples and results.failed == results.samples:
        sys.exit(1)  # So that a script does not go on without any text.


if __name__ == "__main__":
    run(main, *CONFIGS)
