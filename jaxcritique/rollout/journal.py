"""Generation that loses nothing: shards, a journal, and the bar. All sampling goes through here."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from jaxcritique.records import digest
from jaxcritique.rollout.sampler import AllRefused, Completion, Request, Sampler
from jaxcritique.store import Stage, read_object, read_rows, write_atomically, write_rows

_SHARD_SAMPLES = 2048


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of the requests and the file of its rows."""

    requests: tuple[Request, ...]
    path: pathlib.Path

    @property
    def manifest(self) -> pathlib.Path:
        """Written last: without it the file was never finished."""
        return self.path.with_suffix(".json")

    @property
    def journal(self) -> pathlib.Path:
        """What an unfinished shard has so far, as it came."""
        return self.path.with_suffix(".journal")

    @property
    def finished(self) -> bool:
        """Whether it is there with its manifest."""
        return self.manifest.is_file() and self.path.is_file()


def complete(
    stage: Stage, name: str, sampler: Sampler, requests: Sequence[Request]
) -> list[list[Completion]]:
    """Answers requests as part of a stage; see `generate_shards`.

    Returns:
      The completions of each request, in the order of the requests.
    """
    answers: dict[str, list[Completion]] = {}
    for shard in generate_shards(stage.folder, name, sampler, requests):
        for completion in read_shard(shard):
            answers.setdefault(completion.request, []).append(completion)
    return [answers[request.id] for request in requests]


def generate_shards(
    folder: pathlib.Path,
    name: str,
    sampler: Sampler,
    requests: Sequence[Request],
    retry_failed: bool = False,
) -> list[Shard]:
    """Answers requests, shard by shard; what was once sampled is never sampled again.

    Each request goes to the shard's journal as it is answered, and a finished shard is written
    anew in order. Which requests share a shard is a function of the requests alone.

    Args:
      folder: where the shards are kept.
      name: what the bar shows.
      sampler: the engine.
      requests: what is asked, each with an id of its own.
      retry_failed: ask again what failed before.

    Raises:
      DamagedFile: a finished shard is not what its manifest says.
      SamplerError: the sampler cannot go on.
    """
    shards = _divide(folder, requests)
    known = [_answered(shard, retry_failed) for shard in shards]
    total = sum(request.n for request in requests)
    before = [c for answers in known for completions in answers.values() for c in completions]
    works = any(completion.finish_reason != "error" for completion in before)
    with _bar(name, total, len(before)) as progress:
        for shard, answers in zip(shards, known, strict=True):
            if len(answers) < len(shard.requests) or not shard.finished:
                _finish(shard, answers, sampler, progress, works)
            shard.journal.unlink(missing_ok=True)  # Also one that a kill left beside a manifest.
    return shards


def read_shard(shard: Shard) -> Iterator[Completion]:
    """Yields the completions of a finished shard, by request and sample.

    Raises:
      DamagedFile: the file is not what its manifest says.
    """
    sha256 = read_object(shard.manifest).get("sha256")
    yield from map(_completion, read_rows(shard.path, sha256))


def _divide(folder: pathlib.Path, requests: Sequence[Request]) -> list[Shard]:
    """Neighbours in length make full batches, and go into one shard."""
    groups: list[list[Request]] = [[]]
    samples = 0
    for request in sorted(requests, key=lambda request: (_length(request), request.content)):
        if samples + request.n > _SHARD_SAMPLES and groups[-1]:
            groups.append([])
            samples = 0
        groups[-1].append(request)
        samples += request.n
    return [
        Shard(tuple(group), folder / f"shard-{digest(*(r.content for r in group))}.jsonl")
        for group in groups
        if group
    ]


def _answered(shard: Shard, retry_failed: bool) -> dict[str, list[Completion]]:
    """Returns what is known of a shard: requests of which every sample was answered."""
    if shard.finished:
        found = list(read_shard(shard))
    elif shard.journal.is_file():
        *lines, _ = shard.journal.read_text(encoding="utf-8", errors="replace").split("\n")
        found = []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # Torn in a crash.
                found.append(_completion(json.loads(line)))
    else:
        return {}
    answers: dict[str, list[Completion]] = {}
    for completion in found:
        answers.setdefault(completion.request, []).append(completion)
    return {
        request.id: completions
        for request in shard.requests
        if len(completions := answers.get(request.id, [])) == request.n
        and not (retry_failed and any(c.finish_reason == "error" for c in completions))
    }


def _finish(
    shard: Shard,
    answers: dict[str, list[Completion]],
    sampler: Sampler,
    progress: Callable[[int, int], None],
    works: bool,
) -> None:
    """Samples what `answers` lacks, and writes the shard."""
    missing = {r.id: r for r in shard.requests if r.id not in answers}
    sampled = _sample(sampler, list(missing.values()), progress, works)
    first = list(itertools.islice(sampled, 1))  # Where none comes, all stays as it was.
    kept = [completion for completions in answers.values() for completion in completions]
    write_atomically(shard.journal, "".join(map(_line, kept)))
    shard.manifest.unlink(missing_ok=True)  # Only now: what it vouched for is in the journal.
    open_samples: dict[str, list[Completion]] = {}
    with shard.journal.open("a", encoding="utf-8") as journal:
        for completion in itertools.chain(first, sampled):
            samples = open_samples.setdefault(completion.request, [])
            samples.append(completion)
            if len(samples) == missing[completion.request].n:
                answers[completion.request] = samples
                journal.write("".join(map(_line, samples)))
                journal.flush()  # A killed process loses nothing; a dead machine redoes the shard.
    # Samples came in any order, and lie so in the journal that a kill left.
    rows = [
        _row(completion)
        for request in shard.requests
        for completion in sorted(answers[request.id], key=lambda c: c.sample)
    ]
    sha256 = write_rows(shard.path, rows)
    write_atomically(shard.manifest, json.dumps({"rows": len(rows), "sha256": sha256}))


def _sample(
    sampler: Sampler,
    requests: list[Request],
    progress: Callable[[int, int], None],
    works: bool,
) -> Iterator[Completion]:
    """Samples; what `works`, as earlier answers show, may refuse all that is left to ask."""
    try:
        yield from sampler.generate(requests, progress)
    except AllRefused as refused:
        if not works:
            raise
        yield from refused.failures


def _row(completion: Completion) -> dict[str, Any]:
    """The row of a file: without what there is none of."""
    row = dataclasses.asdict(completion)
    row = {"id": row.pop("request"), **row}
    return {key: value for key, value in row.items() if value is not None}


def _line(completion: Completion) -> str:
    return json.dumps(_row(completion), ensure_ascii=False) + "\n"


def _completion(row: dict[str, Any]) -> Completion:
    row = dict(row)
    logprobs = row.pop("logprobs", None)
    return Completion(
        request=row.pop("id"), logprobs=None if logprobs is None else tuple(logprobs), **row
    )


@contextlib.contextmanager
def _bar(name: str, total: int, done: int) -> Iterator[Callable[[int, int], None]]:
    """Shows samples, time left and tokens a second; yields what is told of progress."""
    with tqdm(total=total, initial=done, desc=name, unit="sample") as bar:
        tokens = 0

        def progress(new_tokens: int, finished: int) -> None:
            nonlocal tokens
            tokens += new_tokens
            elapsed = bar.format_dict["elapsed"] or 1e-9
            bar.set_postfix(tokens_per_s=f"{tokens / elapsed:.0f}", refresh=False)
            bar.update(finished)

        yield progress


def _length(request: Request) -> int:
    chat = sum(len(message["content"]) for message in request.messages)
    return chat + len(request.text) + len(request.prefix)
