"""Sampling in shards with a journal, so that an interrupted run resumes; and the progress bar."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from jaxcritique.records import digest
from jaxcritique.rollout.sampler import AllRefused, Completion, Progress, Request, Sampler
from jaxcritique.store import Stage, read_object, read_rows, write_atomically, write_rows

_SHARD_SAMPLES = 2048
# In memory fewer samples, or shorter work, show no bar.
_BAR_SAMPLES, _BAR_SECONDS = 32, 2.0


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of the requests, and the file with their completions."""

    requests: tuple[Request, ...]
    path: pathlib.Path

    @property
    def manifest(self) -> pathlib.Path:
        """The manifest, written last: a shard without one is not finished."""
        return self.path.with_suffix(".json")

    @property
    def journal(self) -> pathlib.Path:
        """The completions of an unfinished shard, in the order in which they came."""
        return self.path.with_suffix(".journal")

    @property
    def finished(self) -> bool:
        """Whether the file and its manifest exist."""
        return self.manifest.is_file() and self.path.is_file()


def complete(
    stage: Stage, name: str, sampler: Sampler, requests: Sequence[Request]
) -> list[list[Completion]]:
    """Samples as part of a stage: in shards (see `generate_shards`), or in memory if the stage is.

    Returns:
      The completions of each request by sample, in the order of the requests.

    Raises:
      DamagedFile: a finished shard is not what its manifest says.
      SamplerError: the sampler cannot continue.
    """
    if stage.path is None:
        total = sum(request.n for request in requests)
        with _bar(name, total, 0, _BAR_SECONDS, total < _BAR_SAMPLES) as progress:
            answers = _by_request(sampler.generate(requests, progress))
    else:
        shards = generate_shards(stage.path, name, sampler, requests)
        answers = _by_request(itertools.chain.from_iterable(map(read_shard, shards)))
    return [sorted(answers[request.id], key=lambda c: c.sample) for request in requests]


def generate_shards(
    folder: pathlib.Path,
    name: str,
    sampler: Sampler,
    requests: Sequence[Request],
    retry_failed: bool = False,
) -> list[Shard]:
    """Samples shard by shard; completions that are already in the folder are not sampled again.

    Completions are appended to the shard's journal request by request, and a finished shard is
    rewritten in order. Which requests share a shard depends on the requests alone.

    Args:
      folder: of the shards.
      name: the label of the progress bar.
      sampler: the engine.
      requests: each with an id of its own.
      retry_failed: sample again the requests that failed before.

    Raises:
      DamagedFile: a finished shard is not what its manifest says.
      SamplerError: the sampler cannot continue.
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
            shard.journal.unlink(missing_ok=True)  # A kill may have left it beside a manifest.
    return shards


def read_shard(shard: Shard) -> Iterator[Completion]:
    """Yields the completions of a finished shard, by request and sample.

    Raises:
      DamagedFile: the file is not what its manifest says.
    """
    sha256 = read_object(shard.manifest).get("sha256")
    yield from map(_completion, read_rows(shard.path, sha256))


def _divide(folder: pathlib.Path, requests: Sequence[Request]) -> list[Shard]:
    """Puts requests of similar length into one shard: they decode in full batches."""
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
    """Returns the completions in a shard, by request, of requests that have all their samples."""
    completions: list[Completion] = []
    if shard.finished:
        completions.extend(read_shard(shard))
    elif shard.journal.is_file():
        *lines, _ = shard.journal.read_text(encoding="utf-8", errors="replace").split("\n")
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # Torn in a crash.
                completions.append(_completion(json.loads(line)))
    answers = _by_request(completions)
    return {
        request.id: samples
        for request in shard.requests
        if len(samples := answers.get(request.id, [])) == request.n
        and not (retry_failed and any(c.finish_reason == "error" for c in samples))
    }


def _by_request(completions: Iterable[Completion]) -> dict[str, list[Completion]]:
    answers: dict[str, list[Completion]] = {}
    for completion in completions:
        answers.setdefault(completion.request, []).append(completion)
    return answers


def _finish(
    shard: Shard,
    answers: dict[str, list[Completion]],
    sampler: Sampler,
    progress: Progress,
    works: bool,
) -> None:
    """Samples the requests that `answers` lacks, and writes the shard."""
    missing = {r.id: r for r in shard.requests if r.id not in answers}
    sampled = _sample(sampler, list(missing.values()), progress, works)
    first = list(itertools.islice(sampled, 1))  # If the sampler fails, no file has changed.
    kept = [completion for completions in answers.values() for completion in completions]
    write_atomically(shard.journal, "".join(map(_line, kept)))
    # Removed only now, when the journal holds everything the manifest covered.
    shard.manifest.unlink(missing_ok=True)
    open_samples: dict[str, list[Completion]] = {}
    with shard.journal.open("a", encoding="utf-8") as journal:
        for completion in itertools.chain(first, sampled):
            samples = open_samples.setdefault(completion.request, [])
            samples.append(completion)
            if len(samples) == missing[completion.request].n:
                answers[completion.request] = samples
                journal.write("".join(map(_line, samples)))
                journal.flush()  # A killed process loses nothing; a dead machine redoes the shard.
    # The journal of a killed run may have the samples in any order.
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
    progress: Progress,
    works: bool,
) -> Iterator[Completion]:
    """Samples; a sampler that `works`, as earlier answers show, may reject all other requests."""
    try:
        yield from sampler.generate(requests, progress)
    except AllRefused as refused:
        if not works:
            raise
        yield from refused.failures


def _row(completion: Completion) -> dict[str, Any]:
    """Returns the row of a file, without fields that are None."""
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
def _bar(
    name: str, total: int, done: int, delay: float = 0.0, disable: bool = False
) -> Iterator[Progress]:
    """Shows samples, time left and tokens a second, after a delay in seconds."""
    with tqdm(
        total=total, initial=done, desc=name, unit="sample", delay=delay, disable=disable
    ) as bar:
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
