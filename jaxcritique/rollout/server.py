"""The `server` engine: any OpenAI-compatible server, over a network where everything can fail."""

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
from typing import Any, Protocol

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

_RETRIED = frozenset({408, 409, 425, 429})  # And everything from 500 on.
# A 403 may be a moderator's, for one prompt. So many, and no answer: it is the key. Other refusals
# are of what all requests have in common, such as a parameter that the server does not know.
_REFUSALS = 20
_UNPAID = frozenset({401, 402})  # No key that is valid, no credit: nobody is answered any more.
_LONGEST_PAUSE = 30.0
_DEATHS = 3  # A request that saw so many of a server, the last one alone, is the cause.


@dataclasses.dataclass(frozen=True)
class ClientConfig:
    """How servers are spoken to."""

    api_key: str | None = None
    concurrency: int = 64  # Requests in flight at each server.
    requests_per_minute: float = 0  # To all servers together, attempts counted; 0: no limit.
    attempts: int = 10  # Times a request is tried.
    # For an answer; twice that after each time it did not suffice, and in the end what is left.
    attempt_seconds: float = 60
    # From a request's first attempt to its last, without waiting for the rate.
    deadline_seconds: float = 600
    send_seed: bool = True  # vllm-tpu refuses requests with seeds.


class Servers(Protocol):
    """Where requests go."""

    @property
    def urls(self) -> Sequence[str]:
        """One base URL a server, without a final slash."""
        ...

    def check(self, index: int, answered: bool, ended: threading.Event) -> bool:
        """Called where a server did not answer: returns once it can be tried again.

        Args:
          index: which.
          answered: whether it answered anything since it was last restarted.
          ended: once it is set nobody waits any more; returns soon.

        Returns:
          Whether it had died and was restarted.

        Raises:
          SamplerError: it cannot be brought back.
        """
        ...

    def close(self) -> None:
        """Ends the servers, where they are ours."""
        ...


class Endpoints:
    """Servers that somebody else runs."""

    def __init__(self, urls: Sequence[str]):
        """Takes base URLs; where one has no path, /v1 is added.

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
                    f"{url}: nothing answers there ({error}). Is the server running?"
                ) from error
            except httpx2.HTTPError:
                pass  # It is there, if unwell; that is what retries are for.

    def check(self, index: int, answered: bool, ended: threading.Event) -> bool:
        """Nothing we could do for it."""
        return False

    def close(self) -> None:
        """They go on without us."""


@dataclasses.dataclass(frozen=True)
class Local:
    """What is known of a model that is served from a folder of ours."""

    tokenizer: Tokenizer
    context: int  # The most tokens of a prompt and its reply together.


class _Failed(Exception):
    """An attempt that another may follow; `pause` is how long the server asks us to wait."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause


class _Empty(_Failed):
    """No choice has a text. If asking again does not help, these completions are the answer."""

    def __init__(self, completions: list[Completion]):
        super().__init__("no choice has a text")
        self.completions = completions


class _Refused(Exception):
    """An answer that no repetition would change."""


@dataclasses.dataclass
class _Try:
    """What a request went through."""

    request: Request
    attempts: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    deaths: int = 0  # Of servers that had it in flight.


class _Door:
    """Lets requests in to a server; belongs to one event loop."""

    def __init__(self) -> None:
        self.load = 0  # Requests behind it and before it.
        self.deaths = 0
        self.check = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()
        self._shares: list[float] = []

    @contextlib.asynccontextmanager
    async def entered(self, share: float) -> AsyncIterator[None]:
        """Lets a request in, in turn, that is to be one of so many in flight at most."""
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
        servers: Servers,
        model: str,
        config: ClientConfig,
        local: Local | None = None,
    ):
        """Speaks to servers of one model.

        Args:
          key: names the weights.
          servers: where they are served.
          model: what the servers call it.
          config: how they are spoken to.
          local: of a model that is served from a folder of ours. Prompts are then sent as tokens
            and replies read as tokens, those that training and the JAX engine know.
        """
        self.key = key
        self._servers = servers
        self._model = model
        self._config = config
        self._local = local
        self._answered: set[str] = set()  # The routes that ever worked.
        self._forbidden = 0  # Requests answered with 403.
        self._refused, self._refusal = 0, ""  # Requests refused for any reason, and the last one.
        self._well: set[int] = set()  # Servers that answered since they were last restarted.
        self._chat_only = False  # Hosted models often have no route for plain texts.

    def generate(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> Iterator[Completion]:
        """Answers all requests; see `Sampler.generate`.

        Raises:
          SamplerError: the server refuses the key or the model, or a server of ours died and
            cannot be started again.
          AllRefused: the server rejects every request.
        """
        completions = self._generate(requests, progress or no_progress)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return completions
        return _in_thread(completions)  # As in a notebook, whose thread has an event loop.

    def _generate(
        self, requests: Sequence[Request], progress: Progress
    ) -> Generator[Completion, None, None]:
        answers = self._answers(requests)

        async def following() -> list[Completion] | None:
            return await anext(answers, None)

        # Failures before any answer wait: where there never is one, none is written down.
        held: list[Completion] = []
        self._ended = threading.Event()
        with asyncio.Runner() as runner:
            try:
                while (completions := runner.run(following())) is not None:
                    progress(sum(c.completion_tokens for c in completions), len(completions))
                    held += completions
                    if self._answered:
                        yield from held
                        held.clear()
            finally:
                self._ended.set()  # The runner waits for a check that is going on.
        if self._refused >= _REFUSALS and not self._answered:
            raise AllRefused(
                f"nothing was answered, and {self._refused} requests were refused, the last one: "
                f"{self._refusal}",
                held,
            )
        yield from held

    def close(self) -> None:
        """Ends the servers, where they are ours."""
        self._servers.close()

    async def _answers(self, requests: Sequence[Request]) -> AsyncIterator[list[Completion]]:
        """Yields the completions of each request as it is answered."""
        limit = self._config.concurrency * len(self._servers.urls)
        # Of this event loop: each call has one of its own, with its own clock.
        self._doors = [_Door() for _ in self._servers.urls]
        self._next_start = 0.0
        waiting = iter(requests)
        tasks: set[asyncio.Task[list[Completion]]] = set()
        done: set[asyncio.Task[list[Completion]]] = set()
        async with httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._config.api_key}"}
            if self._config.api_key
            else None,
            limits=httpx2.Limits(max_connections=limit, max_keepalive_connections=limit),
            trust_env=self._local is None,  # No proxy stands before a server of our own.
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
                # Of several that found out at once what ends it, one is reported.
                await asyncio.gather(*done, *tasks, return_exceptions=True)

    async def _answer(self, client: httpx2.AsyncClient, request: Request) -> list[Completion]:
        """Asks until there is an answer, or it is too late."""
        seconds = self._config.attempt_seconds
        now = asyncio.get_running_loop().time
        end = now() + self._config.deadline_seconds
        this = _Try(request)

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
                    if left < seconds + 2 * seconds:  # Twice as long would not fit behind it.
                        seconds = left
                    try:
                        return await self._attempt(client, this, seconds)
                    except TimeoutError as error:
                        reason = f"no answer within {seconds:.0f} s"
                        seconds *= 2
                        raise _Failed(reason) from error
        except _Empty as error:
            return error.completions
        except (_Failed, _Refused) as error:
            reason = str(error)
            if isinstance(error, _Failed):
                reason = f"given up after {attempt.retry_state.attempt_number} attempts: {reason}"
            return [request.failure(sample, reason) for sample in range(request.n)]
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _attempt(
        self, client: httpx2.AsyncClient, this: _Try, seconds: float
    ) -> list[Completion]:
        """Asks once, and again where the server died: that is no attempt of the request's.

        Those in flight at a death are suspects. They share a server with few others, after a second
        death with none, so that the request that a server dies of is found and the rest go on.

        Raises:
          _Failed: it may work another time.
          _Refused: it will not.
          TimeoutError: there was no answer in time.
          SamplerError: nothing will.
        """
        while True:
            # A server that fails at once is always the least loaded: a retry prefers another.
            index = min(
                range(len(self._doors)), key=lambda i: (this.attempts[i], self._doors[i].load)
            )
            this.attempts[index] += 1
            door = self._doors[index]
            # So many in flight that each death leaves about as many suspects.
            share = (math.inf, math.isqrt(self._config.concurrency), 1)[this.deaths]
            async with door.entered(share):
                deaths = door.deaths
                try:
                    completions = await self._ask(client, this.request, index, seconds)
                    self._well.add(index)
                    return completions
                except (_Failed, TimeoutError) as error:
                    async with door.check:  # One at a time; the others find it well again.
                        if await asyncio.to_thread(
                            self._servers.check, index, index in self._well, self._ended
                        ):
                            self._well.discard(index)
                            door.deaths += 1
                    if door.deaths == deaths:
                        raise
                    if not isinstance(error.__cause__, httpx2.ConnectError):
                        this.deaths += 1  # Else it was dead before.
                    if this.deaths == _DEATHS:
                        raise _Refused(
                            f"the server died {_DEATHS} times while it was asked this, the last "
                            f"time this alone: {error or 'it hung'}"
                        ) from error

    async def _ask(
        self, client: httpx2.AsyncClient, request: Request, index: int, seconds: float
    ) -> list[Completion]:
        """Asks one server once; raises what `_attempt` does."""
        path, body = self._message(request)
        url = f"{self._servers.urls[index]}/{path}"
        try:
            async with asyncio.timeout(seconds):
                response = await client.post(url, json=body, timeout=None)
        except httpx2.RequestError as error:
            raise _Failed(f"{type(error).__name__}: {error}") from error
        if response.status_code != 200:
            said = f"{url} answers {response.status_code}: {' '.join(response.text.split())[:300]}"
            if response.status_code in _RETRIED or response.status_code >= 500:
                raise _Failed(said, _retry_after(response))
            if response.status_code in _UNPAID:
                raise SamplerError(said)
            no_texts = path == "completions" and path not in self._answered and not self._local
            if response.status_code == 404 and no_texts:
                if not self._chat_only:
                    logging.warning("%s; prompts are sent as a user's messages instead", said)
                self._chat_only = True
                return await self._ask(client, request, index, seconds)
            self._forbidden += response.status_code == 403
            wrong_settings = response.status_code == 404 or self._forbidden >= _REFUSALS
            if wrong_settings and not self._answered:
                raise SamplerError(said)
            self._refused += 1
            self._refusal = said
            raise _Refused(said)
        completions = self._read(request, response)
        self._answered.add(path)
        if not self._local and not any(completion.text for completion in completions):
            raise _Empty(completions)
        return completions

    async def _keep_to_the_rate(self) -> float:
        """Returns once an attempt may begin, and for how many seconds it waited."""
        if not self._config.requests_per_minute:
            return 0.0
        now = asyncio.get_running_loop().time()
        start = max(now, self._next_start)
        self._next_start = start + 60 / self._config.requests_per_minute
        await asyncio.sleep(start - now)
        return start - now

    def _message(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Returns the route and the body of a request.

        What OpenAI's interface does not have is sent only where it is asked for; vLLM and SGLang
        understand it.
        """
        body: dict[str, Any] = {
            "model": self._model,
            "n": _drawn(request),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if self._config.send_seed:
            body["seed"] = request.sample_seed(0)
        if request.stop:
            body["stop"] = list(request.stop)
        if request.stop_token_ids:
            body["stop_token_ids"] = list(request.stop_token_ids)
        if request.top_k:
            body["top_k"] = request.top_k
        if request.min_tokens:
            body["min_tokens"] = request.min_tokens
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

    def _read(self, request: Request, response: httpx2.Response) -> list[Completion]:
        """Reads an answer, in which nothing is taken for granted.

        Raises:
          _Failed: it is not what was asked for; the message says in what.
        """
        try:
            reply = response.json()
        except (ValueError, RecursionError) as error:
            raise _Failed(f"the answer is not JSON: {error}") from error
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or len(choices) != _drawn(request):
            count = len(choices) if isinstance(choices, list) else "no"
            raise _Failed(f"the answer has {count} choices, not {_drawn(request)}")
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        try:
            choices = sorted(choices, key=lambda choice: int(choice.get("index", 0)))
            for choice in choices:
                if (reason := choice.get("finish_reason")) not in ("stop", "length"):
                    raise _Failed(f"a choice has the finish_reason {reason!r}")
            if self._local is not None:
                completions = _read_tokens(self._local.tokenizer, request, choices, usage)
            else:
                completions = _read_texts(request, choices, usage)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise _Failed(f"the answer is malformed: {type(error).__name__}: {error}") from error
        if len(completions) < request.n:
            completions = [dataclasses.replace(completions[0], sample=i) for i in range(request.n)]
        return completions


def _drawn(request: Request) -> int:
    """How many samples are asked for: greedy ones are all one, and vLLM refuses to write two."""
    return request.n if request.temperature else 1


def _read_tokens(
    tokenizer: Tokenizer,
    request: Request,
    choices: Sequence[Mapping[str, Any]],
    usage: Mapping[str, Any],
) -> list[Completion]:
    """Reads what a server of ours wrote, token by token.

    Raises:
      _Failed: a choice has no tokens.
      AttributeError, KeyError, TypeError, ValueError, OverflowError: it is malformed.
    """
    completions = []
    for sample, choice in enumerate(choices):
        tokens = [int(token) for token in choice["token_ids"]]
        if not tokens:
            raise _Failed("a choice has no tokens")
        logprobs = _logprobs(choice) if request.logprobs else ()
        completion = request.completion(
            tokenizer, sample, int(usage["prompt_tokens"]), tokens, logprobs
        )
        if choice["finish_reason"] == "stop":  # It may see an end where we do not.
            completion = dataclasses.replace(completion, finish_reason="stop")
        completions.append(completion)
    return completions


def _read_texts(
    request: Request, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any]
) -> list[Completion]:
    """Reads what anybody's server wrote.

    Raises:
      _Failed: a choice has no text, and did not stop by itself.
      AttributeError, KeyError, TypeError, ValueError, OverflowError: it is malformed.
    """
    texts = [_text(choice) for choice in choices]
    for choice, text in zip(choices, texts, strict=True):
        if not request.prefix + text and choice["finish_reason"] != "stop":
            raise _Failed("a choice has no text")
    counts = _shares(int(usage.get("completion_tokens") or 0), list(map(len, texts)))
    return [
        Completion(
            request=request.id,
            sample=sample,
            text=request.prefix + texts[sample],
            finish_reason=choice["finish_reason"],
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=counts[sample],
            logprobs=tuple(_logprobs(choice)) if request.logprobs else None,
        )
        for sample, choice in enumerate(choices)
    ]


def api_key(variable: str) -> str | None:
    """The key an environment variable holds; None where there is none."""
    return os.environ.get(variable) or None


def _pause(state: tenacity.RetryCallState) -> float:
    """Twice as long each time, at random so that many do not come back at once."""
    pause = tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE)(state)
    error = state.outcome.exception() if state.outcome else None
    return max(pause, error.pause) if isinstance(error, _Failed) else pause


def _retry_after(response: httpx2.Response) -> float:
    with contextlib.suppress(ValueError):  # It may be a date; then our own pause has to do.
        return min(float(response.headers.get("retry-after", 0)), 2 * _LONGEST_PAUSE)
    return 0.0


def _text(choice: Mapping[str, Any]) -> str:
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    if not isinstance(text, str):
        raise TypeError(f"a choice's text is {text!r}")
    text.encode()  # ValueError: half of a surrogate pair, which no file can hold.
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
