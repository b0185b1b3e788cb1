"""The `server` engine: a client of OpenAI-compatible servers that retries what can be retried."""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import math
import os
import threading
import urllib.parse
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from typing import Any, Literal

import httpx2
import tenacity
from absl import logging

from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.rollout.sampler import (
    AllRefused,
    Completion,
    Progress,
    Request,
    SamplerError,
    no_progress,
    too_long,
)
from jaxcritique.rollout.vllm import VllmServers

_RETRIED = frozenset({408, 409, 425, 429})  # And everything from 500 on.
# A 403 may come from a moderation filter, for one prompt. After this many, and no answer, the key
# is taken to be wrong. After as many rejections of other kinds, what all requests have in common
# is, such as a parameter that the server does not support.
_REFUSALS = 20
# What servers call the end that the model chose, and the end of the tokens allowed, in lower case.
_STOPS = frozenset({
    "stop", "stop_sequence", "stop_token", "eos", "eos_token", "end", "end_turn", "end_of_turn",
    "complete", "completed",
})  # fmt: skip
_CUTS = frozenset({
    "length", "max_tokens", "max_new_tokens", "max_output_tokens", "max_length", "model_length",
})  # fmt: skip
# Where a reply with HTTP 200 says that it is an error, and what its words stand for.
_CODES = ("code", "status", "status_code", "type")
_NAMED_CODES = {
    "rate_limit": 429, "overloaded": 503, "timeout": 504, "quota": 402, "billing": 402,
    "api_key": 401, "authentication": 401, "permission": 403, "not_found": 404, "invalid": 400,
    "context_length": 400,
}  # fmt: skip
_UNPAID = frozenset({401, 402})  # Invalid key or no credit: no later request will succeed either.
_LONGEST_PAUSE = 30.0  # Seconds.
# A request in flight at this many crashes of a server, alone at the last one, is their cause.
_DEATHS = 3


@dataclasses.dataclass(frozen=True)
class ClientConfig:
    """How requests are sent."""

    api_key: str | None = None
    concurrency: int = 64  # Requests in flight at each server.
    requests_per_minute: float = 0  # At all servers together, retries included; 0: no limit.
    attempts: int = 10  # For each request.
    # Timeout of an attempt; doubled after each timeout, up to what the deadline leaves.
    attempt_seconds: float = 60
    # From a request's first attempt to its last, without the time spent waiting for the rate limit.
    deadline_seconds: float = 600
    send_seed: bool = True  # vllm-tpu refuses requests with seeds.


class Endpoints:
    """Servers that are already running."""

    def __init__(self, urls: Sequence[str]):
        """Takes base URLs; /v1 is added to those without a path.

        Raises:
          ValueError: one is not a URL, or nothing answers there.
        """
        self.urls: list[str] = []
        for given in urls:
            if not given.startswith(("http://", "https://")):
                raise ValueError(f"{given}: not an http(s) URL")
            url = given.rstrip("/")
            if not urllib.parse.urlsplit(url).path:
                url += "/v1"
            self.urls.append(url)
            try:
                httpx2.get(f"{url}/models", timeout=10)
            except httpx2.InvalidURL as error:
                raise ValueError(f"{url}: {error}") from error
            except httpx2.ConnectError as error:
                raise ValueError(
                    f"{url}: no server answers there ({error}). Is it running?"
                ) from error
            except httpx2.HTTPError:
                pass  # The server exists; other errors are retried later.

    def check(self, index: int, answered: bool, ended: threading.Event) -> bool:
        """Returns False: servers of others are not restarted; see `VllmServers.check`."""
        return False

    def close(self) -> None:
        """Leaves the servers running."""


@dataclasses.dataclass(frozen=True)
class Local:
    """A model that our own servers load from a folder."""

    tokenizer: Tokenizer
    context: int  # Maximum number of tokens of a prompt and its reply together.


class _Failed(Exception):
    """An attempt failed and may be retried, after `pause` seconds if the server asks for that."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause


class _Empty(_Failed):
    """No choice has a text. If retries do not help, these completions are the answer."""

    def __init__(self, completions: list[Completion]):
        super().__init__("no choice has a text")
        self.completions = completions


class _Refused(Exception):
    """The server rejected a request, and would again."""


@dataclasses.dataclass
class _Attempts:
    """The attempts at a request so far."""

    request: Request
    by_server: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    deaths: int = 0  # Crashes of a server that had the request in flight.
    # The samples that there are; servers that do not know `n` return one at a time.
    found: list[Completion] = dataclasses.field(default_factory=list[Completion])


class _Admission:
    """Limits the requests in flight at a server; belongs to one event loop."""

    def __init__(self) -> None:
        self.load = 0  # Requests in flight and waiting.
        self.deaths = 0
        self.check = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()
        self._shares: list[float] = []

    @contextlib.asynccontextmanager
    async def entered(self, share: float) -> AsyncIterator[None]:
        """Waits for its turn, until at most `share` requests are in flight with this one."""
        self.load += 1
        try:
            async with self._turn:
                while len(self._shares) >= min([share, *self._shares]):
                    self._left.clear()
                    await self._left.wait()
                self._shares.append(share)
            try:
                yield
            finally:
                self._shares.remove(share)
                self._left.set()
        finally:
            self.load -= 1


def _in_thread(completions: Generator[Completion, None, None]) -> Iterator[Completion]:
    """Runs a generator in a thread of its own: a thread can run one event loop at a time."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        try:
            while (completion := thread.submit(next, completions, None).result()) is not None:
                yield completion
        finally:
            thread.submit(completions.close).result()


class ServerSampler:
    """The `server` engine; see `Sampler`."""

    def __init__(
        self,
        key: str,
        servers: Endpoints | VllmServers,
        model: str,
        config: ClientConfig,
        local: Local | None = None,
    ):
        """Takes servers of one model.

        Args:
          key: names the weights.
          servers: the servers.
          model: its name at the servers.
          config: how requests are sent.
          local: the model's folder, for servers of our own. Prompts are then sent as token ids and
            replies read as token ids, so that they are the tokens of training and the JAX engine.
        """
        self.key = key
        self._servers = servers
        self._model = model
        self._config = config
        self._local = local
        self._answered: set[str] = set()  # The routes that have worked.
        self._forbidden = 0  # Requests answered with 403.
        self._refused, self._refusal = 0, ""  # Rejected requests, and the last answer to one.
        self._healthy: set[int] = set()  # Servers that have answered since their last restart.
        self._uncounted = False  # Replies without a number of tokens were warned of.
        self._chat_only = False  # Hosted models often have no route for plain texts.

    def generate(
        self, requests: Sequence[Request], progress: Progress = no_progress
    ) -> Iterator[Completion]:
        """Answers all requests; see `Sampler.generate`.

        Raises:
          SamplerError: the server rejects the key or the model, or a server of ours crashed and
            cannot be restarted.
          AllRefused: the server rejects every request.
        """
        completions = self._generate(requests, progress)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return completions
        return _in_thread(completions)  # As in a notebook, whose thread has an event loop.

    def _generate(
        self, requests: Sequence[Request], progress: Progress
    ) -> Generator[Completion, None, None]:
        answers = self._answers(requests)

        async def next_answer() -> list[Completion] | None:
            return await anext(answers, None)

        # Failures before the first answer are held back: if none comes, none is recorded.
        held: list[Completion] = []
        self._ended = threading.Event()
        with asyncio.Runner() as runner:
            try:
                while (completions := runner.run(next_answer())) is not None:
                    progress(sum(c.completion_tokens for c in completions), len(completions))
                    held += completions
                    if self._answered:
                        yield from held
                        held.clear()
            finally:
                self._ended.set()  # Else the runner waits for a running check.
        if self._refused >= _REFUSALS and not self._answered:
            raise AllRefused(
                f"Every request was rejected; check model name and parameters. The last of "
                f"{self._refused} rejections: {self._refusal}",
                held,
            )
        yield from held

    def close(self) -> None:
        """Stops the servers that we started."""
        self._servers.close()

    async def _answers(self, requests: Sequence[Request]) -> AsyncIterator[list[Completion]]:
        """Yields the completions of each request as it is answered."""
        limit = self._config.concurrency * len(self._servers.urls)
        # New for each call, since they belong to its event loop and clock.
        self._admissions = [_Admission() for _ in self._servers.urls]
        self._next_start = 0.0
        waiting = iter(requests)
        tasks: set[asyncio.Task[list[Completion]]] = set()
        done: set[asyncio.Task[list[Completion]]] = set()
        async with httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._config.api_key}"}
            if self._config.api_key
            else None,
            limits=httpx2.Limits(max_connections=limit, max_keepalive_connections=limit),
            trust_env=self._local is None,  # Servers of our own are on this machine: no proxy.
        ) as client:
            try:
                while True:
                    for request in itertools.islice(waiting, limit - len(tasks)):
                        tasks.add(asyncio.create_task(self._answer(client, request)))
                    if not tasks:
                        return
                    done, tasks = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
                    for task in done:
                        yield task.result()
            finally:
                for task in tasks:
                    task.cancel()
                # Where several failed at once, the first error is reported.
                await asyncio.gather(*done, *tasks, return_exceptions=True)

    async def _answer(self, client: httpx2.AsyncClient, request: Request) -> list[Completion]:
        """Retries until there is an answer, or attempts or time are used up."""
        seconds = self._config.attempt_seconds
        now = asyncio.get_running_loop().time
        end = now() + self._config.deadline_seconds
        attempts = _Attempts(request)

        def enough(state: tenacity.RetryCallState) -> bool:
            late = now() + state.upcoming_sleep >= end
            return late or state.attempt_number >= self._config.attempts

        try:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(_Failed),
                stop=enough,
                wait=_pause,
                reraise=True,
            ):
                with attempt:
                    end += await self._keep_to_the_rate()
                    left = max(end - now(), 1.0)
                    # A retry with the doubled timeout would miss the deadline, so this attempt
                    # gets all the time left.
                    if left < seconds + 2 * seconds:
                        seconds = left
                    try:
                        return await self._attempt(client, attempts, seconds)
                    except TimeoutError as error:
                        reason = f"no answer within {seconds:.0f} s"
                        seconds *= 2
                        raise _Failed(reason) from error
        except (_Failed, _Refused) as error:
            found = attempts.found
            if isinstance(error, _Empty):
                found += error.completions
            reason = str(error)
            if isinstance(error, _Failed):
                reason = f"given up after {attempt.retry_state.attempt_number} attempts: {reason}"
            if found and not request.temperature:
                found = [dataclasses.replace(found[0], sample=i) for i in range(request.n)]
            rest = range(len(found), request.n)
            return [*found, *(request.failure(sample, reason) for sample in rest)]
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _attempt(
        self, client: httpx2.AsyncClient, attempts: _Attempts, seconds: float
    ) -> list[Completion]:
        """Makes one attempt. A server's crash does not count: the request is sent again.

        Requests in flight at a crash are suspects. From then on they share a server with few
        others, after a second crash with none, which finds the one that crashes it.

        Raises:
          _Failed: a retry may succeed.
          _Refused: a retry will not.
          TimeoutError: there was no answer in time.
          SamplerError: no request will succeed.
        """
        while True:
            # A server that fails at once always has the least load: retries prefer another one.
            index = min(
                range(len(self._admissions)),
                key=lambda i: (attempts.by_server[i], self._admissions[i].load),
            )
            attempts.by_server[index] += 1
            admission = self._admissions[index]
            # The square root, so that each crash reduces the suspects by about the same factor.
            share = (math.inf, math.isqrt(self._config.concurrency), 1)[attempts.deaths]
            async with admission.entered(share):
                deaths = admission.deaths
                try:
                    request, found = attempts.request, attempts.found
                    while len(found) < _drawn(request):
                        found += await self._ask(client, request, len(found), index, seconds)
                        self._healthy.add(index)
                    return [
                        dataclasses.replace(found[min(i, len(found) - 1)], sample=i)
                        for i in range(request.n)
                    ]
                except (_Failed, TimeoutError) as error:
                    async with admission.check:  # The first to fail has it restarted.
                        if await asyncio.to_thread(
                            self._servers.check, index, index in self._healthy, self._ended
                        ):
                            self._healthy.discard(index)
                            admission.deaths += 1
                    if admission.deaths == deaths:
                        raise
                    if not isinstance(error.__cause__, httpx2.ConnectError):
                        attempts.deaths += 1  # Else it had crashed before.
                    if attempts.deaths == _DEATHS:
                        raise _Refused(
                            f"the server crashed {_DEATHS} times during this request, the last "
                            f"time with no other in flight: {error or 'it hung'}"
                        ) from error

    async def _ask(
        self, client: httpx2.AsyncClient, request: Request, first: int, index: int, seconds: float
    ) -> list[Completion]:
        """Asks one server once for the samples from `first` on; raises what `_attempt` does.

        Returns:
          At least one of them.
        """
        path, body = self._message(request, first)
        url = f"{self._servers.urls[index]}/{path}"
        try:
            async with asyncio.timeout(seconds):
                response = await client.post(url, json=body, timeout=None)
        except httpx2.RequestError as error:
            raise _Failed(f"{type(error).__name__}: {error}") from error
        reply = _json(response) if response.status_code == 200 else None
        status = response.status_code if reply is None else _status_of(reply)
        if status != 200:
            said = f"{url} answers {status}: {' '.join(response.text.split())[:300]}"
            if status in _RETRIED or status >= 500:
                raise _Failed(said, _retry_after(response))
            if status in _UNPAID:
                raise SamplerError(said)
            no_texts = path == "completions" and path not in self._answered and not self._local
            if status == 404 and no_texts:
                if not self._chat_only:
                    logging.warning("%s; prompts are sent as a user's messages instead", said)
                self._chat_only = True
                return await self._ask(client, request, first, index, seconds)
            self._forbidden += status == 403
            wrong_settings = status == 404 or self._forbidden >= _REFUSALS
            if wrong_settings and not self._answered:
                raise SamplerError(said)
            self._refused += 1
            self._refusal = said
            raise _Refused(said)
        completions = self._read(request, first, reply)
        self._answered.add(path)
        # What was cut off in its thoughts has no text, and would have none again.
        retried = [c for c in completions if not c.text and c.finish_reason == "stop"]
        if not self._local and len(retried) == len(completions) == _drawn(request):
            raise _Empty(completions)
        return completions

    async def _keep_to_the_rate(self) -> float:
        """Waits until the rate limit allows an attempt; returns for how many seconds."""
        if not self._config.requests_per_minute:
            return 0.0
        now = asyncio.get_running_loop().time()
        start = max(now, self._next_start)
        self._next_start = start + 60 / self._config.requests_per_minute
        await asyncio.sleep(start - now)
        return start - now

    def _message(self, request: Request, first: int) -> tuple[str, dict[str, Any]]:
        """Returns the route and the body of a request for its samples from `first` on.

        Parameters that only vLLM and SGLang support are sent only if they are not the default.
        """
        body: dict[str, Any] = {
            "model": self._model,
            "n": _drawn(request) - first,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if self._config.send_seed:
            body["seed"] = request.sample_seed(first)
        for name in ("stop", "stop_token_ids", "top_k", "min_tokens"):
            if value := getattr(request, name):
                body[name] = value
        if self._local is None and (request.messages or self._chat_only):
            messages = request.messages or [{"role": "user", "content": request.text}]
            body["messages"] = messages
            if request.prefix:
                body["messages"] = [*messages, {"role": "assistant", "content": request.prefix}]
                body |= {"add_generation_prompt": False, "continue_final_message": True}
            if request.logprobs:
                body["logprobs"] = True
            return "chat/completions", body
        body["prompt"] = request.text + request.prefix
        if request.logprobs:
            body["logprobs"] = 1
        if self._local is not None:
            try:
                prompt = request.token_ids(self._local.tokenizer)
            except ValueError as error:
                raise _Refused(str(error)) from error
            room = self._local.context - len(prompt)
            if room < 1:
                raise _Refused(too_long(len(prompt), self._local.context))
            ends = self._local.tokenizer.stop_ids.union(request.stop_token_ids)
            if request.min_tokens:
                body["min_tokens"] = min(request.min_tokens, room)
            body |= {
                "prompt": prompt,
                "max_tokens": min(request.max_tokens, room),
                "stop_token_ids": sorted(ends),
                "return_token_ids": True,
            }
        return "completions", body

    def _read(self, request: Request, first: int, reply: Any) -> list[Completion]:
        """Reads an answer, every field of which may be missing or malformed.

        Raises:
          _Failed: it is; the message names the field.
        """
        choices = reply.get("choices") if isinstance(reply, dict) else None
        wanted = _drawn(request) - first
        if not isinstance(choices, list) or not 0 < len(choices) <= wanted:
            count = len(choices) if isinstance(choices, list) else "no"
            raise _Failed(f"the answer has {count} choices, not {wanted}")
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        try:
            choices = sorted(choices, key=lambda choice: int(choice.get("index", 0)))
            if self._local is not None:
                completions = _read_tokens(self._local.tokenizer, request, choices, usage)
            else:
                completions = _read_texts(request, choices, usage)
                self._say_if_uncounted(usage)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise _Failed(f"the answer is malformed: {type(error).__name__}: {error}") from error
        return [dataclasses.replace(c, sample=first + i) for i, c in enumerate(completions)]

    def _say_if_uncounted(self, usage: Mapping[str, Any]) -> None:
        if not usage.get("completion_tokens") and not self._uncounted:
            self._uncounted = True
            logging.warning(
                "%s does not say how many tokens its replies have: they count as 0, and figures at "
                "equal tokens mean nothing.",
                self._model,
            )


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise _Failed(f"the answer is not JSON: {error}") from error


def _status_of(reply: Any) -> int:
    """Returns the HTTP status that a reply deserves which was sent with 200; 500 if unknown."""
    if not isinstance(reply, dict) or reply.get("choices"):
        return 200
    error = reply.get("error")
    if not error and reply.get("object") != "error":
        return 200
    sources = [source for source in (error, reply) if isinstance(source, dict)]
    codes = [str(s[name]).lower() for s in sources for name in _CODES if name in s]
    for code in codes:
        if code.isdecimal() and 400 <= int(code) < 600:
            return int(code)
    named = (status for code in codes for name, status in _NAMED_CODES.items() if name in code)
    return next(named, 500)


def _finish_reason(choice: Mapping[str, Any], said: str) -> Literal["stop", "length"]:
    """Returns why a choice ended, whatever its server calls it; without a reason, a text stopped.

    Raises:
      _Failed: it was broken off.
    """
    reason = choice.get("finish_reason")
    name = reason.lower() if isinstance(reason, str) else reason
    if name in _CUTS:
        return "length"
    if name in _STOPS or (reason is None and said):
        return "stop"
    raise _Failed(f"a choice has the finish_reason {reason!r}")


def _drawn(request: Request) -> int:
    """The number of samples to request: one if greedy, as all are equal and vLLM rejects more."""
    return request.n if request.temperature else 1


def _read_tokens(
    tokenizer: Tokenizer,
    request: Request,
    choices: Sequence[Mapping[str, Any]],
    usage: Mapping[str, Any],
) -> list[Completion]:
    """Reads the token ids that a server of our own returns.

    Raises:
      _Failed: a choice has no tokens.
      AttributeError, KeyError, TypeError, ValueError, OverflowError: it is malformed.
    """
    prompt_tokens = int(usage.get("prompt_tokens") or len(request.token_ids(tokenizer)))
    completions: list[Completion] = []
    for sample, choice in enumerate(choices):
        tokens = [int(token) for token in choice["token_ids"]]
        if not tokens:
            raise _Failed("a choice has no tokens")
        logprobs = _logprobs(choice) if request.logprobs else ()
        completion = request.completion(tokenizer, sample, prompt_tokens, tokens, logprobs)
        # Also for an end that we do not know.
        if _finish_reason(choice, completion.text) == "stop" and choice.get("finish_reason"):
            completion = dataclasses.replace(completion, finish_reason="stop")
        completions.append(completion)
    return completions


def _read_texts(
    request: Request, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any]
) -> list[Completion]:
    """Reads the texts that any server returns.

    Raises:
      _Failed: a choice has no text, but did not end with a stop token.
      AttributeError, KeyError, TypeError, ValueError, OverflowError: it is malformed.
    """
    texts = [_text(choice) for choice in choices]
    reasons: list[Literal["stop", "length"]] = [
        _finish_reason(choice, text) for choice, text in zip(choices, texts, strict=True)
    ]
    for choice, text, reason in zip(choices, texts, reasons, strict=True):
        if not request.prefix + text and reason != "stop" and not _thought(choice):
            raise _Failed("a choice has no text")
    counts = _shares(int(usage.get("completion_tokens") or 0), list(map(len, texts)))
    return [
        Completion(
            request=request.id,
            sample=sample,
            text=request.prefix + texts[sample],
            finish_reason=reasons[sample],
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=counts[sample],
            logprobs=tuple(_logprobs(choice)) if request.logprobs else None,
        )
        for sample, choice in enumerate(choices)
    ]


def api_key(variable: str) -> str | None:
    """Returns the key in an environment variable; None if it is unset or empty."""
    return os.environ.get(variable) or None


def _pause(state: tenacity.RetryCallState) -> float:
    """Exponential backoff with jitter."""
    pause = tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE)(state)
    error = state.outcome.exception() if state.outcome else None
    return max(pause, error.pause) if isinstance(error, _Failed) else pause


def _retry_after(response: httpx2.Response) -> float:
    with contextlib.suppress(ValueError):  # It may be a date, which is ignored.
        return min(float(response.headers.get("retry-after", 0)), 2 * _LONGEST_PAUSE)
    return 0.0


def _thought(choice: Mapping[str, Any]) -> bool:
    """Whether a choice has thoughts, which servers return apart from its text."""
    message = choice.get("message") or {}
    return bool(message.get("reasoning") or message.get("reasoning_content"))


def _text(choice: Mapping[str, Any]) -> str:
    """Returns a choice's text, without its thoughts; "" where it has nothing else."""
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    if isinstance(text, list):  # Parts: [{"type": "text", "text": ...}, ...]
        text = "".join(part.get("text", "") for part in text if part.get("type") == "text")
    if text is None and _thought(choice):
        return ""
    if not isinstance(text, str):
        raise TypeError(f"a choice's text is {text!r}")
    text.encode()  # ValueError: a lone surrogate, which cannot be written to a file.
    return text


def _logprobs(choice: Mapping[str, Any]) -> list[float]:
    """Reads either form: chat's list of contents, or completions' list of numbers."""
    found = choice["logprobs"]
    if "token_logprobs" in found:
        values = [float(value) for value in found["token_logprobs"]]
    else:
        values = [float(entry["logprob"]) for entry in found["content"]]
    if not all(map(math.isfinite, values)):
        raise ValueError("a log-probability is not a finite number")
    return values


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """Divides a number of tokens, known only for all choices together, in proportion."""
    seen, given = 0, 0
    shares = []
    for weight in weights:
        seen += weight
        upto = total * seen // max(sum(weights), 1)
        shares.append(upto - given)
        given = upto
    return shares
