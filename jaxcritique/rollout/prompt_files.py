"""Prompts from JSON lines, our own or OpenAI's batch format, and answers back to it."""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcritique.config import Config, setting
from jaxcritique.errors import InvalidInput
from jaxcritique.rollout.journal import Shard, read_shard
from jaxcritique.rollout.sampler import Completion, Request
from jaxcritique.store import read_jsonl, write_rows

_ROUTES = ("/v1/chat/completions", "/v1/completions")
_IGNORED = {"model", "messages", "prompt", "user", "metadata", "store", "service_tier"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig(Config):
    """How prompts are sampled; rows of a batch may say otherwise. See `Request`."""

    n: int = setting(1, "Samples of each prompt.", low=1)
    seed: int = setting(
        0,
        "Decides the samples, together with a prompt, its id and the settings from n to logprobs.",
    )
    temperature: float = setting(1.0, "Sampling temperature; 0: greedy.", low=0)
    top_k: int = setting(0, "Sample from the k most likely tokens; 0: all.", low=0)
    top_p: float = setting(
        1.0, "Sample from the most likely tokens with this total probability.", low=0, high=1
    )
    max_tokens: int = setting(1024, "Maximum number of tokens of a sample.", low=1)
    min_tokens: int = setting(0, "Minimum number of tokens of a sample.", low=0)
    stop: tuple[str, ...] = setting(
        (), "A string at which a sample ends, without it; may be repeated.", repeated=True
    )
    stop_token_ids: tuple[int, ...] = setting((), "Tokens at which a sample ends.", low=0)
    logprobs: bool = setting(False, "Write the log-probability of every token.")

    def __post_init__(self) -> None:
        """Checks what bounds cannot say."""
        super().__post_init__()
        if not self.top_p:
            raise ValueError("`top_p=0` must be above 0.")
        if self.min_tokens > self.max_tokens:
            raise ValueError(
                f"`min_tokens={self.min_tokens}` must not exceed `max_tokens={self.max_tokens}`."
            )
        for name, type_ in (("stop", str), ("stop_token_ids", int)):
            values = getattr(self, name)
            if not all(isinstance(value, type_) and value != "" for value in values):
                raise ValueError(f"`{name}={values}`: an entry is empty or of another type.")


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The prompts of a file."""

    requests: list[Request]  # All different.
    rows: int
    batch: bool  # Whether the file is in OpenAI's batch format.
    sha256: str  # Of the file.


def read_requests(path: pathlib.Path, sampling: SamplingConfig) -> Prompts:
    """Reads a file of prompts.

    A request's id is the row's "id" ("custom_id" in a batch) or else the hash of its content. Rows
    with the same prompt, and the same id or none, become one request for all their samples.

    Raises:
      FileNotFoundError: there is no such file.
      InvalidInput: a row is not a prompt, or another prompt has its id; file and line are named.
    """
    requests: dict[str, tuple[int, Request]] = {}  # By id, with the line.
    rows, batch = 0, False
    for number, (request, is_batch) in read_jsonl(path, lambda row: _request(row, sampling)):
        rows += 1
        batch |= is_batch
        earlier, before = requests.get(request.id, (number, None))
        if before is not None:
            if dataclasses.replace(before, n=request.n) != request:
                raise InvalidInput(
                    f"{path}:{number}: line {earlier} has the same id with another prompt."
                )
            request = dataclasses.replace(request, n=before.n + request.n)
        requests[request.id] = earlier, request
    if not requests:
        raise InvalidInput(f"{path}: there are no rows in it.")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Prompts([request for _, request in requests.values()], rows, batch, sha256)


def _request(row: Mapping[str, Any], sampling: SamplingConfig) -> tuple[Request, bool]:
    """Returns the request of a row, and whether the row is one of a batch.

    Raises:
      ValueError: it is not a prompt.
    """
    if "custom_id" not in row:
        name = row.get("id", "")
        return _prompt(row, str(name) if isinstance(name, int) else name, sampling), False
    if row.get("url", _ROUTES[0]) not in _ROUTES:
        raise ValueError(f"url {row['url']!r} is not one of {', '.join(_ROUTES)}")
    body = row.get("body")
    if not isinstance(body, dict):
        raise ValueError("a batch row needs a 'body', an object")
    return _prompt(body, row["custom_id"], _sampling(body, sampling)), True


def _prompt(row: Mapping[str, Any], name: Any, sampling: SamplingConfig) -> Request:
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
    request = Request(chat, text=text or "", name=name, **vars(sampling))
    if not name:  # The same content has the same id however many samples are asked for.
        request = dataclasses.replace(request, name=dataclasses.replace(request, n=1).content)
    _ = request.content  # Refuses what no file can hold: half of a surrogate pair.
    return request


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), str) for key in ("role", "content")
    )


def _sampling(body: Mapping[str, Any], default: SamplingConfig) -> SamplingConfig:
    """Returns `default` with the sampling settings of a batch row in place of its own.

    Raises:
      ValueError: a setting is not supported, or its value is wrong.
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
    try:
        return dataclasses.replace(default, **{**said, **lists})
    except ValueError as error:  # Without backticks: the row's field is meant, not a flag.
        raise ValueError(str(error).replace("`", "").rstrip(".")) from error


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
