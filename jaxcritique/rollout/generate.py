"""Generation as a stage: shards, resumption, and the bar. All sampling goes through here."""

import dataclasses
import json
from collections.abc import Sequence

from tqdm import tqdm

from jaxcritique.records import digest, from_json
from jaxcritique.rollout.sampler import Completion, Request, Sampler
from jaxcritique.store import Stage, read_rows, write_atomically, write_rows

_SHARD_SAMPLES = 2048


def complete(
    stage: Stage, name: str, sampler: Sampler, requests: Sequence[Request]
) -> list[list[Completion]]:
    """Answers requests, shard by shard; a shard once finished is never sampled again.

    Which requests share a shard is a function of the requests alone, so what shares a batch with
    a request is the same whether or not the process was killed in between.

    Args:
      stage: where the shards are kept.
      name: what the bar shows.
      sampler: the engine.
      requests: what is asked.

    Returns:
      The completions of each request, in the order of the requests.
    """
    # Neighbours in length make full batches.
    order = sorted(range(len(requests)), key=lambda i: (_length(requests[i]), requests[i].id))
    shards: list[list[int]] = [[]]
    samples = 0
    for index in order:
        if samples + requests[index].n > _SHARD_SAMPLES and shards[-1]:
            shards.append([])
            samples = 0
        shards[-1].append(index)
        samples += requests[index].n
    answers: dict[str, list[Completion]] = {}
    total = sum(request.n for request in requests)
    with tqdm(total=total, desc=name, unit="sample") as bar:
        tokens = 0

        def progress(new_tokens: int, finished: int) -> None:
            nonlocal tokens
            tokens += new_tokens
            elapsed = bar.format_dict["elapsed"] or 1e-9
            bar.set_postfix(tokens_per_s=f"{tokens / elapsed:.0f}", refresh=False)
            bar.update(finished)

        for shard in shards:
            path = stage.folder / f"shard-{digest(*(requests[i].id for i in shard))}.jsonl"
            manifest = path.with_suffix(".json")
            if manifest.is_file():
                rows = read_rows(path, json.loads(manifest.read_text())["sha256"])
                completions = [from_json(Completion, row) for row in rows]
                bar.update(len(completions))
            else:
                completions = sampler.generate([requests[i] for i in shard], progress)
                sha256 = write_rows(path, map(dataclasses.asdict, completions))
                facts = {"rows": len(completions), "sha256": sha256}
                write_atomically(manifest, json.dumps(facts))
            for completion in completions:
                answers.setdefault(completion.request, []).append(completion)
    return [answers[request.id] for request in requests]


def _length(request: Request) -> int:
    return sum(len(message["content"]) for message in request.messages) + len(request.prefix)
