import dataclasses
import gc
import time

import pytest
from flaky import FAILURES, serve

from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.rollout.sampler import Request, SamplerError
from jaxcritique.rollout.server import ClientConfig, Endpoints, Local, ServerSampler
from jaxcritique.tasks import TINY_BASE

IMPATIENT = ClientConfig(attempt_seconds=0.5, concurrency=32)


def sampler(*urls: str, config: ClientConfig = IMPATIENT) -> ServerSampler:
    return ServerSampler("flaky", Endpoints(urls), "flaky-1", config)


def ask(*texts: str, n: int = 2, **settings) -> list[Request]:
    return [Request([{"role": "user", "content": t}], n, 8, 1.0, 0, **settings) for t in texts]


def answers(sampler: ServerSampler, requests: list[Request]):
    """The completions by (text asked, sample)."""
    names = {request.id: (request.messages or [{"content": request.text}])[-1]["content"]
             for request in requests}  # fmt: skip
    found = list(sampler.generate(requests, lambda *_: None))
    by_sample = {(names[c.request], c.sample): c for c in found}
    assert len(found) == len(by_sample) == sum(request.n for request in requests)
    return by_sample


@pytest.mark.slow
@pytest.mark.parametrize("servers", [1, 2])
def test_a_thousand_requests_to_servers_that_fail_at_a_third_of_them(servers):
    requests = ask(*(f"question {i} é" for i in range(1000 // servers)))
    # Long enough that only what hangs runs out of time on a busy machine; few hang, since each
    # takes as long. Should another one do so, it is one more failed attempt.
    config = ClientConfig(attempt_seconds=3, concurrency=64)
    kinds = ("hang", *(2 * [kind for kind in FAILURES if kind != "hang"]))
    with serve(0.3, kinds) as first, serve(0.3, kinds) as second:
        urls = [first.url, f"{second.url}/v1/"][:servers]
        found = answers(sampler(*urls, config=config), requests)
        attempts = first.asked + second.asked
        failures = first.failures + second.failures
    for (text, sample), completion in found.items():
        if completion.error is None:
            assert (completion.text, completion.finish_reason) == (f"{text}/{sample}", "stop")
            assert (completion.prompt_tokens, completion.completion_tokens) == (3, 5)
        else:
            assert completion.error.startswith("given up after 10 attempts")
            assert attempts[text] == 10
    assert all(failures[kind] > 10 // servers for kind in FAILURES)
    assert sum(c.error is not None for c in found.values()) <= 8
    assert sum(attempts.values()) > 1.3 * len(requests)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("500", 'answers 500: {"error": "not now"}'),
        ("429", "answers 429"),
        ("hang", "no answer within 2 s"),
        ("reset", "ReadError"),
        ("truncated", "the answer is not JSON"),
        ("choices", "the answer has 3 choices, not 2"),
        ("cut", "a choice has no text"),
        ("malformed", "the answer is malformed"),
        ("nested", "the answer is not JSON"),
        ("encoded", "DecodingError"),
        ("surrogate", "the answer is malformed: UnicodeEncodeError"),
        ("abort", "a choice has the finish_reason 'abort'"),
        ("endless", "the answer is malformed: OverflowError"),
    ],
)
def test_what_never_works_is_a_failed_row_with_its_reason(kind, reason):
    # Only what hangs is to run out of time, however busy the machine.
    seconds = 0.5 if kind == "hang" else 60
    config = dataclasses.replace(IMPATIENT, attempts=3, attempt_seconds=seconds)
    with serve(doomed=lambda text: kind if text == "doomed" else None) as server:
        found = answers(sampler(server.url, config=config), ask("fine", "doomed"))
        assert server.asked == {"fine": 1, "doomed": 3}
    assert found["fine", 1].text == "fine/1"
    for sample in range(2):
        completion = found["doomed", sample]
        assert (completion.finish_reason, completion.text) == ("error", "")
        assert completion.error is not None
        assert completion.error.startswith("given up after 3 attempts: ")
        assert reason in completion.error


@pytest.mark.parametrize(("kind", "attempts"), [("first", 1), ("empty", 3)])
def test_an_empty_text_beside_others_or_again_and_again_is_the_answer(kind, attempts):
    config = dataclasses.replace(IMPATIENT, attempts=3, attempt_seconds=60)
    with serve(doomed=lambda text: kind) as server:
        found = answers(sampler(server.url, config=config), ask("a"))
        assert server.asked == {"a": attempts}
    assert [(c.finish_reason, c.error) for c in found.values()] == [("stop", None)] * 2
    assert found["a", 0].text == ""
    assert found["a", 1].text == ("a/1" if kind == "first" else "")


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        *((name, "stop") for name in ("stop", "eos", "eos_token", "end_turn", "STOP", None)),
        *((name, "length") for name in ("length", "max_tokens", "model_length", "MAX_TOKENS")),
    ],
)
def test_other_spellings_of_finish_reasons(reason, meaning):
    def habit(answer, text):
        choices = [{**choice, "finish_reason": reason} for choice in answer["choices"]]
        return {**answer, "choices": choices}

    with serve(habit=habit) as server:
        found = answers(sampler(server.url), ask("a"))
        assert server.asked == {"a": 1}
    assert [c.finish_reason for c in found.values()] == [meaning] * 2


def one_choice(answer, text):
    return {**answer, "choices": answer["choices"][-1:]}


def test_a_server_that_returns_one_choice_is_asked_for_the_others():
    with serve(habit=one_choice) as server:
        found = answers(sampler(server.url), ask("a", n=3))
        asked = [(body["n"], body["seed"]) for _, _, body in server.bodies]
    assert [found["a", i].text for i in range(3)] == ["a/0"] * 3
    assert [n for n, _ in asked] == [3, 2, 1]
    assert len({seed for _, seed in asked}) == 3  # Else all would be the same sample.


def test_samples_are_kept_if_the_others_cannot_be_had():
    config = dataclasses.replace(IMPATIENT, attempts=2, attempt_seconds=60)
    with serve(habit=one_choice) as server:
        server.doomed = lambda text: "500" if server.asked[text] > 1 else None
        found = answers(sampler(server.url, config=config), ask("a", n=3))
    assert [found["a", i].text for i in range(3)] == ["a/0", "", ""]
    assert "answers 500" in found["a", 2].error


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_a_sample_cut_off_in_its_thoughts_costs_no_retries_and_no_siblings(name):
    def habit(answer, text):
        for choice in answer["choices"]:
            if choice["index"] == 1:
                choice |= {"message": {"content": None, name: "Hm"}, "finish_reason": "length"}
        return answer

    for n in (1, 2):
        with serve(habit=habit) as server:
            found = answers(sampler(server.url), ask("a", n=n))
            assert server.asked == {"a": 1}
        assert (found["a", 0].text, found["a", 0].finish_reason) == ("a/0", "stop")
    assert (found["a", 1].text, found["a", 1].finish_reason) == ("", "length")
    assert found["a", 1].error is None


def test_all_samples_cut_off_in_their_thoughts_cost_no_retries():
    def habit(answer, text):
        for choice in answer["choices"]:
            choice |= {"message": {"content": None, "reasoning": "Hm"}, "finish_reason": "length"}
        return answer

    with serve(habit=habit) as server:
        found = answers(sampler(server.url), ask("a"))
        assert server.asked == {"a": 1}
    assert [(c.text, c.finish_reason) for c in found.values()] == [("", "length")] * 2


def test_a_content_in_parts():
    def habit(answer, text):
        for choice in answer["choices"]:
            choice["message"]["content"] = [{"type": "text", "text": "4"}, {"type": "image"}]
        return answer

    with serve(habit=habit) as server:
        assert answers(sampler(server.url), ask("a"))["a", 0].text == "4"


@pytest.mark.parametrize(
    ("error", "status", "attempts"),
    [
        ({"error": {"message": "slow down", "code": 429}}, 429, 2),
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, 429, 2),
        ({"error": "slow down"}, 500, 2),
        ({"object": "error", "message": "slow down", "code": 503}, 503, 2),
        ({"error": {"message": "slow down", "code": 400}}, 400, 1),
        ({"error": {"message": "slow down", "type": "invalid_request_error"}}, 400, 1),
        ({"choices": [], "error": {"message": "slow down", "code": "400"}}, 400, 1),
    ],
)
def test_an_error_sent_as_200_is_said_and_retried_as_it_deserves(error, status, attempts):
    config = dataclasses.replace(IMPATIENT, attempts=2, attempt_seconds=60)
    with serve(habit=lambda answer, text: error if text == "bad" else answer) as server:
        found = answers(sampler(server.url, config=config), ask("good", "bad"))
        assert server.asked == {"good": 1, "bad": attempts}
    assert found["good", 0].text == "good/0"
    assert f"answers {status}: " in found["bad", 0].error
    assert "slow down" in found["bad", 0].error


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
def test_tokens_that_are_not_counted_are_said_to_be_unknown(usage, caplog):
    with serve(habit=lambda answer, text: {**answer, "usage": usage}) as server:
        found = answers(sampler(server.url), ask("a", "b"))
    assert found["a", 0].text == "a/0"
    [warning] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "flaky-1 does not say how many tokens its replies have" in warning


def test_what_the_server_refuses_is_not_asked_again():
    with serve(doomed=lambda text: "400" if text == "bad" else None) as server:
        found = answers(sampler(server.url), ask("bad", "good"))
        assert server.asked == {"bad": 1, "good": 1}
    assert found["bad", 0].error is not None
    assert "answers 400" in found["bad", 0].error
    assert found["good", 0].error is None


def test_a_deadline_ends_the_attempts():
    config = ClientConfig(attempt_seconds=0.4, deadline_seconds=1.5)
    with serve(1.0, kinds=("hang",)) as server:
        started = time.monotonic()
        found = answers(sampler(server.url, config=config), ask("slow"))
        assert time.monotonic() - started < 10
    assert found["slow", 0].finish_reason == "error"


def test_the_last_attempt_has_all_the_time_that_is_left():
    config = ClientConfig(attempt_seconds=0.5, deadline_seconds=6)
    with serve(delay=2.5) as server:  # 0.5 + 1 + 2 s would leave 2.5, less the pauses.
        found = answers(sampler(server.url, config=config), ask("slow"))
    assert found["slow", 0].error is None


def test_waiting_for_the_rate_is_not_late():
    config = ClientConfig(requests_per_minute=1200, deadline_seconds=1.5)
    requests = ask(*map(str, range(40)), n=1)
    with serve() as server:
        server.doomed = lambda text: "500" if server.asked[text] == 1 else None
        found = answers(sampler(server.url, config=config), requests)
        assert set(server.asked.values()) == {2}
    assert [c.error for c in found.values()] == [None] * 40


@pytest.mark.parametrize("status", ["401", "402"])
def test_a_key_that_is_no_longer_good_ends_it(status):
    with serve() as server:
        asker = sampler(server.url)
        assert answers(asker, ask("a"))["a", 0].error is None
        server.doomed = lambda text: status
        with pytest.raises(SamplerError, match=f"answers {status}: "):
            answers(asker, ask("b"))


@pytest.mark.parametrize("status", ["401", "404"])
def test_wrong_settings_end_it_at_once(status):
    with (
        serve(1.0, kinds=(status,)) as server,
        pytest.raises(SamplerError, match=f"/v1/chat/completions answers {status}: .*not now"),
    ):
        answers(sampler(server.url), ask("a", "b"))


def without_texts(server) -> None:
    """Takes away a server's route for texts."""
    server.doomed = lambda text: "404" if server.bodies[-1][0].endswith("v1/completions") else None


def test_a_server_without_a_route_for_texts_is_sent_messages():
    with serve() as server:
        without_texts(server)
        request = Request([], 1, 8, 1.0, 0, text="Once upon")
        config = dataclasses.replace(IMPATIENT, attempts=1)
        found = answers(sampler(server.url, config=config), [request])
        assert server.bodies[-1][2]["messages"] == [{"role": "user", "content": "Once upon"}]
    assert found["Once upon", 0].text == "Once upon/0"


@pytest.mark.parametrize("texts_first", [True, False])
def test_chats_and_texts_for_a_server_without_a_route_for_texts(texts_first):
    chats = ask("hi", "ho", n=1)
    texts = [Request([], 1, 8, 1.0, 0, text=text) for text in ("Once", "Upon")]
    config = dataclasses.replace(IMPATIENT, concurrency=1)
    with serve() as server:
        without_texts(server)
        requests = [*texts, *chats] if texts_first else [*chats, *texts]
        found = answers(sampler(server.url, config=config), requests)
    assert [c.error for c in found.values()] == [None] * 4


def test_a_late_404_of_a_text_sent_before_anything_was_answered():
    requests = [Request([], 1, 8, 1.0, 0, text=text) for text in ("late", "early")]
    with serve() as server:
        without_texts(server)
        server.delays = {"late": 0.25}
        found = answers(sampler(server.url), requests)
    assert [c.error for c in found.values()] == [None] * 2


def test_a_404_where_texts_were_answered_is_one_failed_row():
    request = Request([], 1, 8, 1.0, 0, text="fine")
    with serve() as server:
        asker = sampler(server.url)
        assert answers(asker, [request])["fine", 0].error is None
        without_texts(server)
        found = answers(asker, [dataclasses.replace(request, text="lost")])
        assert server.asked == {"fine": 1, "lost": 1}
    assert "completions answers 404" in (found["lost", 0].error or "")


def test_a_forbidden_prompt_is_one_failed_row_even_if_it_is_the_first():
    config = dataclasses.replace(IMPATIENT, concurrency=1)
    with serve(doomed=lambda text: "403" if text == "bad" else None) as server:
        found = answers(sampler(server.url, config=config), ask("bad", "good", n=1))
        assert server.asked == {"bad": 1, "good": 1}
    assert "answers 403" in (found["bad", 0].error or "")
    assert found["good", 0].error is None


def test_nothing_but_forbidden_prompts_end_it(caplog):
    with (
        serve(doomed=lambda text: "403") as server,
        pytest.raises(SamplerError, match="answers 403"),
    ):
        answers(sampler(server.url), ask(*map(str, range(40))))
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_settings_that_every_request_is_refused_for_end_it():
    with serve(doomed=lambda text: "400") as server:
        asker = sampler(server.url)
        with pytest.raises(
            SamplerError,
            match=r"Every request was rejected; .* 40 rejections: .* answers 400",
        ):
            answers(asker, ask(*map(str, range(40)), n=1))


def test_empty_answers_are_answers_where_the_rest_is_refused():
    config = dataclasses.replace(IMPATIENT, attempts=2)
    doomed = {str(i) for i in range(30)}
    with serve(doomed=lambda text: "400" if text in doomed else "empty") as server:
        found = answers(sampler(server.url, config=config), ask(*doomed, "silent", n=1))
    assert sum(c.error is not None for c in found.values()) == 30
    assert (found["silent", 0].finish_reason, found["silent", 0].text) == ("stop", "")


def test_refused_prompts_among_others_are_failed_rows():
    doomed = {str(i) for i in range(30)}
    with serve(doomed=lambda text: "400" if text in doomed else None) as server:
        found = answers(sampler(server.url), ask(*doomed, "good", n=1))
    assert sum(c.error is not None for c in found.values()) == 30
    assert found["good", 0].error is None


def test_what_is_sent():
    config = ClientConfig(api_key="secret")
    chat = ask("hi", n=3, prefix="Well, ", top_k=5, top_p=0.9, min_tokens=2, stop=("\n", "é"))
    text = [Request([], 1, 4, 0.0, 7, text="Once", stop_token_ids=(3,))]
    with serve() as server:
        found = list(sampler(server.url, config=config).generate(chat, lambda *_: None))
        assert {c.text for c in found} == {f"Well, Well, /{i}" for i in range(3)}
        list(sampler(server.url, config=config).generate(text, lambda *_: None))
        (path, key, body), (text_path, _, text_body) = server.bodies
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert body == {
        "model": "flaky-1",
        "n": 3,
        "max_tokens": 8,
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 5,
        "min_tokens": 2,
        "stop": ["\n", "é"],
        "seed": chat[0].sample_seed(0),
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "Well, "},
        ],
        "add_generation_prompt": False,
        "continue_final_message": True,
    }
    assert text_path == "/v1/completions"
    assert (text_body["prompt"], text_body["stop_token_ids"]) == ("Once", [3])
    assert "top_k" not in text_body


def test_greedy_samples_are_asked_for_once():
    request = Request([], 3, 8, 0.0, 0, text="Once")
    with serve() as server:
        found = answers(sampler(server.url), [request])
        assert server.bodies[-1][2]["n"] == 1
    assert [found["Once", i].text for i in range(3)] == ["Once/0"] * 3
    assert {c.completion_tokens for c in found.values()} == {5}


def own(server, **settings) -> ServerSampler:
    """Asks as if the server were one of ours, with the tiny base."""
    config = dataclasses.replace(IMPATIENT, attempts=2, **settings)
    endpoints = Endpoints([server.url])
    return ServerSampler("flaky", endpoints, "flaky-1", config, Local(Tokenizer(TINY_BASE), 64))


def test_servers_of_our_own_are_spoken_to_in_tokens_and_past_any_proxy(monkeypatch):
    tokenizer = Tokenizer(TINY_BASE)
    request = Request([], 2, 200, 1.0, 0, text="Tom has 5 eggs.", min_tokens=100, logprobs=True)
    prompt = request.token_ids(tokenizer)
    with serve() as server:
        asker = own(server)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        completions = list(asker.generate([request], lambda *_: None))
        body = server.bodies[-1][2]
    assert [(c.text, c.error, c.logprobs) for c in completions] == 2 * [
        ("Tom has 5 eggs.", None, (-0.5,))
    ]
    assert body["prompt"] == prompt
    # Neither limit reaches beyond the context, and vLLM refuses a lower one above the upper one.
    assert (body["max_tokens"], body["min_tokens"]) == (64 - len(prompt), 64 - len(prompt))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "a choice has no tokens"),
        ("abort", "a choice has the finish_reason 'abort'"),
        ("infinite", "a log-probability is not a finite number"),
    ],
)
def test_what_a_server_of_our_own_breaks_off_is_a_failed_row(kind, reason):
    request = Request([], 2, 8, 1.0, 0, text="Tom", logprobs=True)
    with serve(doomed=lambda text: kind) as server:
        completions = list(own(server).generate([request], lambda *_: None))
        assert server.failures == {kind: 2}
    for completion in completions:
        assert completion.error is not None
        assert completion.error.endswith(reason)


def test_a_server_of_our_own_that_counts_no_tokens(monkeypatch):
    local = Local(Tokenizer(TINY_BASE), 100)
    with serve(habit=lambda answer, text: {**answer, "usage": None}) as server:
        own = ServerSampler("own", Endpoints((server.url,)), "own", IMPATIENT, local)
        [request] = ask("Tom", n=1)
        [completion] = own.generate([request])
    tokens = len(request.token_ids(local.tokenizer))
    assert completion.prompt_tokens == completion.completion_tokens == tokens  # It echoes them.


def test_a_server_of_our_own_knows_why_it_ended_a_text():
    request = Request([], 1, 99, 1.0, 0, text="Tom", stop=("zebra",))
    with serve() as server:  # Ends with "stop" what has neither a stop token nor the string.
        [completion] = own(server).generate([request], lambda *_: None)
    assert (completion.text, completion.finish_reason) == ("Tom", "stop")


def test_concurrency_and_rate_are_kept():
    requests = ask(*map(str, range(30)), n=1)
    with serve(delay=0.05) as server:
        answers(sampler(server.url, config=ClientConfig(concurrency=4)), requests)
        assert server.most_running == 4
        started = time.monotonic()
        config = ClientConfig(requests_per_minute=1200)
        answers(sampler(server.url, config=config), requests)
        assert time.monotonic() - started >= 29 * 60 / 1200


def test_work_is_balanced_over_servers():
    with serve(delay=0.02) as first, serve(delay=0.02) as second:
        config = ClientConfig(concurrency=2)
        answers(sampler(first.url, second.url, config=config), ask(*map(str, range(40))))
        assert min(first.answered.total(), second.answered.total()) > 10


def test_a_server_that_always_fails_costs_nothing_beside_a_healthy_one():
    # It is the least loaded, since it fails at once.
    config = ClientConfig(attempts=3, concurrency=16)
    requests = ask(*map(str, range(40)), n=1)
    with serve(doomed=lambda text: "500") as bad, serve(delay=0.2) as good:
        found = answers(sampler(bad.url, good.url, config=config), requests)
        assert bad.asked
        assert good.answered.total() == 40
    assert [c.error for c in found.values()] == [None] * 40


def test_nothing_answers():
    with serve() as server:
        url = server.url
    with pytest.raises(ValueError, match=f"{url}.*no server answers there"):
        Endpoints([url])
    with pytest.raises(ValueError, match="not an http"):
        Endpoints(["localhost:8000"])


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1beta/openai/"])
def test_v1_is_added_where_an_endpoint_has_no_path(path):
    with serve() as server:
        answers(sampler(server.url + path), ask("hi"))
        route = path.rstrip("/") or "/v1"
        assert server.bodies[-1][0] == f"{route}/chat/completions"


def test_no_requests():
    with serve() as server:
        assert answers(sampler(server.url), []) == {}
