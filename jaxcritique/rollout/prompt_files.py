"""Prompts from JSON lines, our own or OpenAI's batch format, and answers back to it."""

import collections
import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcritique.rollout.journal import Shard, read_shard
from jaxcritique.rollout.sampler import Completion, Request
from jaxcritique.store import write_rows

_ROUTES = ("/v1/chat/completions", "/v1/completions")
_IGNORED = {"model", "messages", "prompt", "user", "metadata", "store", "service_tier"}


@dataclasses.dataclass(frozen=True)
class Defaults:
    """What is asked of a prompt that does not say itself; see `Request`.

    Raises:
      ValueError: a value makes no sense; it is named.
    """

    n: int
    max_tokens: int
    temperature: float
    seed: int
    top_k: int = 0
    top_p: float = 1.0
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logprobs: bool = False

    def __post_init__(self):
        sensible = {
            "n": self.n >= 1,
            "max_tokens": self.max_tokens >= 1,
            "temperature": 0 <= self.temperature < math.inf,  # False for what is not a number.
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_tokens": 0 <= self.min_tokens <= self.max_tokens,
            "stop": all(isinstance(stop, str) and stop for stop in self.stop),
            "stop_token_ids": all(isinstance(i, int) and i >= 0 for i in self.stop_token_ids),
        }
        for name, fine in sensible.items():
            if not fine:
                raise ValueError(f"{name}={getattr(self, name)!r} makes no sense here")


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What a file asks."""

    requests: list[Request]  # No two are the same.
    rows: int
    batch: bool  # Whether it is OpenAI's format.
    sha256: str  # Of the file.


def read_requests(path: pathlib.Path, defaults: Defaults) -> Prompts:
    """Reads a file of prompts.

    A row's id is its "id" ("custom_id" in a batch) or the hash of its content. A prompt that
    stands k times in the file, with the same id or none, is answered k times as often: it becomes
    one request, its samples numbered on.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row is not a prompt, or its id is another row's; file and line are named.
    """
    if not path.is_file():
        what = "a folder; name a file of rows" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"--prompts={path}: {what}.")
    found: dict[str, tuple[int, Request]] = {}
    rows, batch = 0, False
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            sha256.update(line)
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
                if not isinstance(row, dict):
                    raise ValueError("not an object")
                request = _request(row, defaults)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not JSON (column {error.colno}: {error.msg})"
                ) from error
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            rows += 1
            batch |= "custom_id" in row
            earlier, before = found.get(request.id, (number, None))
            if before is not None:
                if dataclasses.replace(before, n=request.n) != request:
                    raise ValueError(
                        f"{path}, line {number}: line {earlier} has the same id with another prompt"
                    )
                request = dataclasses.replace(request, n=before.n + request.n)
            found[request.id] = earlier, request
    if not found:
        raise ValueError(f"--prompts={path}: there are no rows in it.")
    requests = [request for _, request in found.values()]
    return Prompts(requests, rows, batch, sha256.hexdigest())


def _request(row: Mapping[str, Any], defaults: Defaults) -> Request:
    """Reads a row.

    Raises:
      ValueError: it is not a prompt.
    """
    if "custom_id" not in row:
        name = row.get("id", "")
        return _prompt(row, str(name) if isinstance(name, int) else name, defaults)
    if row.get("url", _ROUTES[0]) not in _ROUTES:
        raise ValueError(f"url {row['url']!r} is not one of {', '.join(_ROUTES)}")
    body = row.get("body")
    if not isinstance(body, dict):
        raise ValueError("a batch row needs a 'body', an object")
    return _prompt(body, row["custom_id"], _settings(body, defaults))


def _prompt(row: Mapping[str, Any], name: Any, settings: Defaults) -> Request:
    if not isinstance(name, str):
        raise ValueError(f"the id {name!r} is not a string")
    text, messages = row.get("prompt"), row.get("messages")
    if (text is None) == (messages is None):
        has = "neither" if text is None else "both"
        raise ValueError(f"a row needs either 'prompt' or 'messages', and this has {has}")
    if text is not None and not isinstance(text, str):
        raise ValueError("'prompt' is not a text")
    if text == "":
        raise ValueError("'prompt' is empty; give it the model's first token, such as <s>")
    if messages is not None and not (
        isinstance(messages, list) and messages and all(map(_is_message, messages))
    ):
        raise ValueError("'messages' is not a list of {'role', 'content'}, both texts")
    chat = [{"role": m["role"], "content": m["content"]} for m in messages or []]
    request = Request(chat, text=text or "", name=name, **vars(settings))
    if not name:  # The same content has the same id however many samples are asked for.
        request = dataclasses.replace(request, name=dataclasses.replace(request, n=1).content)
    _ = request.content  # Refuses what no file can hold: half of a surrogate pair.
    return request


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), str) for key in ("role", "content")
    )


def _settings(body: Mapping[str, Any], defaults: Defaults) -> Defaults:
    """Reads what a batch row says of sampling.

    Raises:
      ValueError: it asks for something else than text, or a value is of the wrong kind.
    """
    said = {key: value for key, value in body.items() if value is not None and key not in _IGNORED}
    if "max_completion_tokens" in said:
        said["max_tokens"] = said.pop("max_completion_tokens")
    if isinstance(said.get("stop"), str):
        said["stop"] = [said["stop"]]
    if "logprobs" in said:
        said["logprobs"] = bool(said["logprobs"])
    kinds: dict[str, Any] = {
        "n": int, "max_tokens": int, "temperature": (int, float), "seed": int, "top_k": int,
        "top_p": (int, float), "min_tokens": int, "stop": list, "stop_token_ids": list,
        "logprobs": bool,
    }  # fmt: skip
    for key, value in said.items():
        if key not in kinds:
            raise ValueError(f"the body's {key!r} is not supported")
        boolean = isinstance(value, bool) and kinds[key] is not bool
        if boolean or not isinstance(value, kinds[key]):
            raise ValueError(f"the body's {key!r} is {value!r}")
    lists = {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
    return dataclasses.replace(defaults, **{**said, **lists})


def write_batch(
    path: pathlib.Path, requests: Sequence[Request], shards: Sequence[Shard], model: str
) -> None:
    """Writes the answers in OpenAI's batch output format, one row a request, in their order."""
    answers: dict[str, list[Completion]] = collections.defaultdict(list)
    for shard in shards:
        for completion in read_shard(shard):
            answers[completion.request].append(completion)
    write_rows(path, (_batch_row(request, answers[request.id], model) for request in requests))


def _batch_row(request: Request, completions: Sequence[Completion], model: str) -> dict[str, Any]:
    """Makes a row. Where some samples failed it has both the others and an error."""
    answered = [c for c in completions if c.error is None]
    reasons = [c.error for c in completions if c.error is not None]
    row = {"id": f"batch_req_{request.content}", "custom_id": request.name}
    error = None
    if reasons:
        share = f"{len(reasons)} of {request.n} samples failed: " if answered else ""
        error = {"code": "failed", "message": share + reasons[0]}
    if not answered:
        return {**row, "response": None, "error": error}
    tokens = sum(c.completion_tokens for c in answered)
    prompt_tokens = answered[0].prompt_tokens
    body = {
        "id": f"cmpl-{request.content}",
        "object": "chat.completion" if request.messages else "text_completion",
        "model": model,
        "choices": [_choice(request, completion) for completion in answered],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": prompt_tokens + tokens,
        },
    }
    response = {"status_code": 200, "request_id": request.content, "body": body}
    return {**row, "response": response, "error": error}


def _choice(request: Request, completion: Completion) -> dict[str, Any]:
    said: dict[str, Any] = (
        {"message": {"role": "assistant", "content": completion.text}}
        if request.messages
        else {"text": completion.text}
    )
    if completion.logprobs is not None:  # Without the tokens' texts, which no row keeps.
        said["logprobs"] = (
            {"content": [{"logprob": value} for value in completion.logprobs]}
            if request.messages
            else {"token_logprobs": list(completion.logprobs)}
        )
    return {"index": completion.sample, **said, "finish_reason": completion.finish_reason}
