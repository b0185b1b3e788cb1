import collections
import dataclasses
import itertools
import os
import pathlib
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
import transformers

from jaxcritique.models.config import ModelConfig
from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.models.sharding import make_mesh
from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.models.transformer import abstract
from jaxcritique.prompts.templates import FULL
from jaxcritique.rollout import decoding
from jaxcritique.rollout.engines import load_jax
from jaxcritique.rollout.jax_engine import JaxConfig, JaxSampler
from jaxcritique.rollout.sampler import Completion, Request, SamplerError
from jaxcritique.rollout.sampling import _first_above, draw_tokens
from jaxcritique.tasks import TINY_BASE, word_problems


def generate(sampler, requests: list[Request]) -> list[Completion]:
    found = {(c.request, c.sample): c for c in sampler.generate(requests, lambda *_: None)}
    return [found[request.id, sample] for request in requests for sample in range(request.n)]


def texts(completions: list[Completion]) -> dict[tuple[str, int], str]:
    return {(c.request, c.sample): c.text for c in completions}


@pytest.fixture(scope="module")
def mixed(prompts) -> list[Request]:
    """200 requests of all kinds: greedy and hot, once and twice, short and long, cut and not."""
    rng = random.Random(0)
    return [
        Request(
            rng.choice(prompts),
            n=rng.choice((1, 1, 2)),
            max_tokens=rng.choice((3, 8, 14)),
            temperature=rng.choice((0.0, 0.7, 1.5)),
            seed=i,
            prefix=rng.choice(("", "That makes")),
            top_k=rng.choice((0, 0, 5)),
            top_p=rng.choice((1.0, 0.8)),
            min_tokens=rng.choice((0, 2)),
            stop=rng.choice(((), ("\n",))),
        )
        for i in range(200)
    ]


@pytest.fixture(scope="module")
def answers(make_sampler, mixed) -> list[Completion]:
    return generate(make_sampler(slots=4), mixed)


def test_greedy_is_argmax_over_the_whole_sequence_and_what_torch_generates(
    base, make_sampler, prompts
):
    mine, tokenizer = base
    model = transformers.AutoModelForCausalLM.from_pretrained(TINY_BASE, dtype=torch.float32)

    @jax.jit
    def next_token(tokens, last):
        length = tokens.shape[1]
        hidden = mine.hidden(tokens, jnp.arange(length)[None], jnp.ones_like(tokens))
        return mine.logits(hidden[0, last]).argmax()

    for messages in prompts[:3]:
        prompt = tokenizer.encode(tokenizer.prompt(messages))
        [ours] = generate(make_sampler(), [Request(messages, 1, 40, 0.0, 0)])
        tokens = list(prompt)
        while len(tokens) < len(prompt) + 40 and tokens[-1] not in tokenizer.stop_ids:
            padded = np.zeros((1, 128), np.int32)
            padded[0, : len(tokens)] = tokens
            tokens.append(int(next_token(padded, len(tokens) - 1)))
        assert ours.text == tokenizer.decode(tokens[len(prompt) :])
        assert ours.completion_tokens == len(tokens) - len(prompt)
        assert ours.prompt_tokens == len(prompt)
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)
        assert theirs[0].tolist() == tokens


def test_completions_come_in_the_order_of_the_requests(mixed, answers):
    assert [(c.request, c.sample) for c in answers] == [
        (request.id, sample) for request in mixed for sample in range(request.n)
    ]


def test_token_limits_are_kept(base, mixed, answers):
    tokenizer = base[1]
    asked = {request.id: request for request in mixed}
    for completion in answers:
        request = asked[completion.request]
        drawn = tokenizer.encode(completion.text.removeprefix(request.prefix))
        assert request.min_tokens <= completion.completion_tokens <= request.max_tokens
        if completion.finish_reason == "length":
            assert completion.completion_tokens == request.max_tokens
            assert abs(len(drawn) - completion.completion_tokens) <= 2  # But for odd tokenisations.
        else:
            assert completion.finish_reason == "stop"
            assert "</s>" not in completion.text
        if not request.min_tokens:
            assert not any(stop in completion.text for stop in request.stop)
    assert {c.finish_reason for c in answers} == {"stop", "length"}


def test_samples_differ_when_hot_and_are_one_when_greedy(make_sampler, prompts):
    hot = Request(prompts[0], 6, 24, 3.0, seed=0)
    other_seed = dataclasses.replace(hot, seed=1)
    greedy = dataclasses.replace(hot, temperature=0.0)
    drawn = collections.defaultdict(list)
    for completion in generate(make_sampler(), [hot, other_seed, greedy]):
        drawn[completion.request].append(completion.text)
    assert len(set(drawn[hot.id])) > 3
    assert len(set(drawn[other_seed.id]) | set(drawn[hot.id])) > 6
    assert len(set(drawn[greedy.id])) == 1


@pytest.mark.parametrize("slots", [pytest.param(1, marks=pytest.mark.slow), 8, 64])
def test_neither_slots_nor_order_change_a_text(slots, make_sampler, mixed, answers):
    shuffled = random.Random(slots).sample(mixed, len(mixed))
    assert texts(generate(make_sampler(slots), shuffled)) == texts(answers)


@pytest.mark.slow
def test_neither_slots_nor_long_company_change_a_likelihood_but_by_rounding(
    base, make_sampler, prompts
):
    asked = [Request(m, 2, 40, 1.0, 0, min_tokens=40, logprobs=True) for m in prompts]
    long = Request([], 1, 40, 1.0, 0, text="Tom has 5 eggs. " * 90, min_tokens=40)
    assert len(long.token_ids(base[1])) > 600
    expected = generate(make_sampler(slots=4), asked)
    others = [generate(make_sampler(slots), asked) for slots in (1, 8, 64)]
    others.append(generate(make_sampler(slots=8), [*asked, long])[: len(expected)])
    for answers in others:
        for mine, theirs in zip(expected, answers, strict=True):
            assert mine.text == theirs.text
            np.testing.assert_allclose(mine.logprobs, theirs.logprobs, atol=1e-4)


def test_company_does_not_change_a_text(make_sampler, mixed, answers):
    sampler = make_sampler(slots=4)
    for request in mixed[3:9]:
        assert texts(generate(sampler, [request])).items() <= texts(answers).items()


@pytest.mark.slow
def test_what_begins_alike_is_read_once(base, make_sampler, monkeypatch):
    chunks = []
    read = decoding.read_chunk

    def counted(model, cache, tokens, start, slots):
        chunks.extend(start[slots < cache[0][0].shape[0]].tolist())
        return read(model, cache, tokens, start, slots)

    monkeypatch.setattr(decoding, "read_chunk", counted)
    shots = "Tom has 5 eggs and eats 2. That makes 3 eggs.\n" * 12
    requests = [
        Request([], 3, 8, 1.0, 0, text=f"{shots}{name} has {i} apples.")
        for i, name in enumerate(("Ann", "Bob", "Joe", "Sue", "Tim"))
    ]
    together = generate(make_sampler(slots=15), requests)
    columns = zip(*(request.token_ids(base[1]) for request in requests), strict=False)
    alike = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns)) // 64
    assert alike >= 3
    for start in set(chunks):  # The shots are read once, not 15 times, the rest once a prompt.
        assert chunks.count(start) == (1 if start < alike * 64 else 5)
    for request in requests:
        assert texts(generate(make_sampler(slots=3), [request])).items() <= texts(together).items()
    chunks.clear()
    assert texts(generate(make_sampler(slots=2), requests)) == texts(together)
    assert len(chunks) <= alike + 5 * 2  # Slots taken over hold what came before.


def test_a_prefix_is_gone_on_from(make_sampler, prompts):
    sampler = make_sampler()
    request = Request(prompts[0], 1, 60, 0.0, 0)
    [whole] = generate(sampler, [request])
    line, rest = whole.text.split("\n", 1)
    [continued] = generate(sampler, [dataclasses.replace(request, prefix=f"{line}\n")])
    assert continued.text == whole.text
    assert continued.completion_tokens < whole.completion_tokens
    assert continued.prompt_tokens > whole.prompt_tokens
    assert rest


def test_too_long_a_prompt_is_an_error_and_others_are_answered(make_sampler, prompts):
    fine = Request(prompts[0], 2, 16, 1.0, 0)
    long = Request([{"role": "user", "content": "Tom has 5 eggs. " * 40}], 2, 16, 1.0, 0)
    completions = generate(make_sampler(context=128), [long, fine])
    assert [c.finish_reason for c in completions[:2]] == ["error", "error"]
    for completion in completions[:2]:
        assert (completion.text, completion.completion_tokens) == ("", 0)
        assert completion.error == (
            f"the prompt has {completion.prompt_tokens} tokens, the context 128"
        )
    assert completions[2:] == generate(make_sampler(), [fine])


def test_a_text_ends_with_the_context(base, make_sampler, prompts):
    tokenizer = base[1]
    length = len(tokenizer.encode(tokenizer.prompt(prompts[0])))
    sampler = make_sampler(context=length + 6)
    request = Request(prompts[0], 1, 100, 0.0, 0)
    [completion] = generate(sampler, [request])
    assert completion.completion_tokens == 6
    assert completion.finish_reason == "length"
    [whole] = generate(make_sampler(), [request])
    assert whole.text.startswith(completion.text)


def test_progress_counts_every_token_and_sample(make_sampler, mixed, answers):
    calls = []
    list(make_sampler(slots=4).generate(mixed, lambda *counts: calls.append(counts)))
    tokens, finished = map(sum, zip(*calls, strict=True))
    assert tokens == sum(c.completion_tokens for c in answers)
    assert finished == len(answers)


def test_no_requests(make_sampler):
    assert generate(make_sampler(), []) == []


def test_loading_a_folder(make_sampler, prompts):
    folder = ModelFolder.of(TINY_BASE)
    sampler = load_jax(folder, JaxConfig(slots=4))
    assert sampler.key == folder.key
    request = Request(prompts[0], 1, 16, 0.0, 0)
    assert generate(sampler, [request]) == generate(make_sampler(), [request])


def test_stop_strings_end_a_text_where_they_begin(make_sampler, prompts):
    sampler = make_sampler()
    request = Request(prompts[0], 1, 60, 0.0, 0)
    [whole] = generate(sampler, [request])
    for stop in (("\n",), ("zebra", "kes"), ("zebra",)):
        [cut] = generate(sampler, [dataclasses.replace(request, stop=stop)])
        at = min((i for s in stop if (i := whole.text.find(s)) >= 0), default=len(whole.text))
        assert cut.text == whole.text[:at]
        assert cut.finish_reason == "stop"
        assert cut.completion_tokens <= whole.completion_tokens


def test_stop_tokens_end_a_text_and_min_tokens_hold_them_back(base, make_sampler, prompts):
    tokenizer = base[1]
    sampler = make_sampler()
    request = Request(prompts[0], 1, 60, 0.0, 0)
    [whole] = generate(sampler, [request])
    assert whole.finish_reason == "stop"
    fourth = tokenizer.encode(whole.text)[3]
    [cut] = generate(sampler, [dataclasses.replace(request, stop_token_ids=(fourth,))])
    assert whole.text.startswith(cut.text)
    assert (cut.finish_reason, cut.completion_tokens) == ("stop", 4)
    [long] = generate(sampler, [dataclasses.replace(request, min_tokens=60)])
    assert (long.finish_reason, long.completion_tokens) == ("length", 60)
    assert long.text.startswith(whole.text)


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_logprobs_are_the_model_s(temperature, base, make_sampler, prompts):
    model, tokenizer = base
    request = Request(prompts[0], 1, 30, temperature, 3, top_k=20, logprobs=True)
    [completion] = generate(make_sampler(), [request])
    assert completion.logprobs is not None
    assert len(completion.logprobs) == completion.completion_tokens
    prompt = request.token_ids(tokenizer)
    tokens = prompt + tokenizer.encode(completion.text)
    assert tokenizer.decode(tokens[len(prompt) :]) == completion.text
    padded = np.zeros((1, 128), np.int32)
    padded[0, : len(tokens)] = tokens
    positions = jnp.arange(128)[None]
    hidden = model.hidden(jnp.asarray(padded), positions, jnp.ones_like(positions))
    likely = jax.nn.log_softmax(model.logits(hidden[0]))
    expected = [likely[i - 1, tokens[i]] for i in range(len(prompt), len(tokens))]
    got = completion.logprobs[: len(expected)]  # Without the stop token.
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.slow
def test_a_prompt_like_what_was_written_before_is_read_all_the_same(base, make_sampler):
    tokenizer = base[1]
    first = Request([], 1, 100, 0.0, 0, text="Tom has 5 eggs. That", min_tokens=100)
    [written] = generate(make_sampler(slots=1), [first])
    second = dataclasses.replace(first, text=first.text + written.text, logprobs=True)
    prompt = second.token_ids(tokenizer)
    assert prompt[:64] == (first.token_ids(tokenizer) + tokenizer.encode(written.text))[:64]
    [alone] = generate(make_sampler(slots=1), [second])
    # One slot: what the first left in it is what the second could go on from.
    assert generate(make_sampler(slots=1), [first, second])[1] == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_without_numbers_is_a_failed_row(temperature, base, prompts):
    model, tokenizer = base
    nothing = jax.tree.map(lambda x: x * np.nan, model.unstacked())
    mesh = make_mesh(devices=jax.devices()[:1])
    sampler = JaxSampler("nan", nothing, tokenizer, JaxConfig(4), mesh)
    for completion in generate(sampler, [Request(prompts[0], 2, 16, temperature, 0)]):
        assert completion.finish_reason == "error"
        assert completion.error == "the model's logits are not finite"


@pytest.mark.slow
def test_a_sample_without_numbers_breaks_no_other(base):
    tokenizer = base[1]
    config = ModelConfig(
        vocab_size=768,  # The tiny base's, for its tokenizer.
        dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        mlp_dim=16,
        max_positions=256,
        tie_embeddings=False,
    )
    rng = np.random.default_rng(0)
    draw = lambda x: 0.3 * rng.standard_normal(x.shape, np.float32)  # noqa: E731
    model = jax.tree.map(draw, abstract(config))
    model.embedding[300:304] = np.nan  # After one of these tokens, logits are not finite.
    model = model.unstacked()
    mesh = make_mesh(devices=jax.devices()[:1])
    request = Request([], 40, 150, 1.0, 0, text="Tom has 5 eggs.")

    def errors(slots: int) -> list[str | None]:
        sampler = JaxSampler("nan", model, tokenizer, JaxConfig(slots), mesh)
        return [completion.error for completion in generate(sampler, [request])]

    alone = errors(slots=64)  # Each in a slot of its own.
    assert 5 < sum(error is None for error in alone) < 35
    assert errors(slots=2) == alone


@pytest.mark.slow
def test_bfloat16_rounds_what_float32_says(make_sampler, prompts):
    requests = [Request(messages, 1, 4, 0.0, 0, logprobs=True) for messages in prompts[:4]]
    rounded = generate(make_sampler(dtype="bfloat16"), requests)
    for half, whole in zip(rounded, generate(make_sampler(), requests), strict=True):
        assert half.logprobs != whole.logprobs
        assert half.logprobs[0] == pytest.approx(whole.logprobs[0], abs=0.05)


@pytest.mark.slow
def test_the_cache_keeps_to_its_budget(base, make_sampler, mixed, answers):
    config = base[0].config
    slot = 128 * config.num_layers * 2 * config.num_kv_heads * config.head_dim * 4
    sampler = make_sampler(slots=64, cache_bytes=4 * slot)
    assert texts(generate(sampler, mixed)) == texts(answers)
    assert {shape[-4] for shape in sampler.shapes} == {3}  # A layer is there twice as it grows.
    with pytest.raises(SamplerError, match="budget is"):
        generate(make_sampler(cache_bytes=slot), mixed)


@pytest.mark.slow
def test_short_ones_do_not_cut_a_long_one_short(make_sampler, prompts):
    long = Request(prompts[0], 1, 200, 1.0, 0, min_tokens=200)
    short = [Request(messages, 1, 4, 1.0, 0) for messages in prompts]
    [alone] = generate(make_sampler(slots=1), [long])
    assert generate(make_sampler(slots=2), [long, *short])[0] == alone


def test_few_programs_are_compiled(make_sampler, prompts):
    sampler = make_sampler(slots=8)
    generate(sampler, [Request(m, 3, 5 + i, 1.0, 0) for i, m in enumerate(prompts)])
    assert len(sampler.shapes) <= 3  # To read, to copy, to decode.


def test_stages_of_many_sizes_need_few_programs(make_sampler, prompts):
    sampler = make_sampler(slots=64)
    for count in (17, 25):
        generate(sampler, [Request(prompts[0], count, 3, 1.0, 0)])
    assert {shape[-4] for shape in sampler.shapes} == {32}


def test_stories260k_writes_what_transformers_writes(stories, stories_folder):
    people = ("Lily", "Tom", "Sue", "Ben", "Mia", "Max", "Anna", "Tim")
    things = ("dog", "ball", "cat", "car", "bird", "hat", "tree", "boat")
    texts = [f"<s>{person} had a {thing}." for person in people for thing in things]
    check_greedy(stories, stories_folder, [Request([], 1, 64, 0.0, 0, text=text) for text in texts])


@pytest.mark.parametrize(
    ("text", "settings", "beginning"),
    [
        ("<s>Once upon a time, there was a", {}, " little girl named Lily."),
        ("<s>Once upon a time, there was a", {"stop": ("girl",)}, " little "),
        ("Lily", {}, "'s mommy said"),  # No space where none was drawn.
        ("<s>", {"prefix": "Lily had a"}, "Lily had a big box."),
        ("<s>", {}, "Once upon a time"),  # Nothing is gone on from.
    ],
)
def test_stories260k_goes_on_with_the_space_it_drew(text, settings, beginning, stories_folder):
    sampler = load_jax(ModelFolder.of(stories_folder), JaxConfig(slots=8))
    [completion] = generate(sampler, [Request([], 1, 16, 0.0, 0, text=text, **settings)])
    assert completion.text.startswith(beginning)
    assert "girl" not in completion.text or "stop" not in settings


@pytest.mark.parametrize(
    ("min_tokens", "ends"), [(0, True), (2, True), (3, True), (4, True), (5, False)]
)
def test_a_stop_string_behind_a_character_that_min_tokens_divides(min_tokens, ends, base):
    tokenizer = base[1]
    tokens = tokenizer.encode("\U0001f600\nfoo")
    assert tokenizer.decode(tokens[:3]) == 3 * "\ufffd"  # The character is of four tokens.
    request = Request([], 1, 9, 1.0, 0, text="Tom", min_tokens=min_tokens, stop=("\n",))
    completion = request.completion(tokenizer, 0, 1, tokens, ())
    assert (completion.text, completion.finish_reason) == (
        ("\U0001f600", "stop") if ends else ("\U0001f600\nfoo", "length")
    )


def test_a_stop_string_may_begin_among_min_tokens_but_not_end_there(base):
    tokenizer = base[1]
    tokens = tokenizer.encode("Tom\n\nhas")
    newline = tokens.index(tokenizer.encode("\n")[0])
    assert tokens[newline] == tokens[newline + 1]
    request = Request([], 1, 9, 1.0, 0, text="Tom", min_tokens=newline + 1, stop=("\n\n",))
    assert request.completion(tokenizer, 0, 1, tokens, ()).text == "Tom"
    late = dataclasses.replace(request, min_tokens=newline + 2)
    assert late.completion(tokenizer, 0, 1, tokens, ()).text == "Tom\n\nhas"


@pytest.mark.skipif(
    "JAXCRITIQUE_SMOLLM2" not in os.environ, reason="JAXCRITIQUE_SMOLLM2 names no folder"
)
def test_smollm2_writes_what_transformers_writes():
    folder = pathlib.Path(os.environ["JAXCRITIQUE_SMOLLM2"])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    problems = word_problems.generate("test", 8, 0)
    check_greedy(model, folder, [Request(FULL.to_solve(p), 1, 64, 0.0, 0) for p in problems])


def check_greedy(model, folder: pathlib.Path, requests: list[Request]) -> None:
    """Compares the engine's greedy texts with those `transformers` generates, token for token."""
    tokenizer = Tokenizer(folder)
    prompts = [request.token_ids(tokenizer) for request in requests]
    ours = generate(load_jax(ModelFolder.of(folder), JaxConfig(slots=16)), requests)
    ends = sorted(tokenizer.stop_ids)
    for length in set(map(len, prompts)):  # Of one length, so that nothing is padded.
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        theirs = model.generate(
            torch.tensor([prompts[i] for i in rows]),
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
        )[:, length:]
        for i, tokens in zip(rows, theirs.tolist(), strict=True):
            count = next((n for n, token in enumerate(tokens, 1) if token in ends), len(tokens))
            expected = requests[i].completion(tokenizer, 0, length, tokens[:count], ())
            assert ours[i] == expected


@jax.jit
def draw(seeds, positions, temperature):
    rows = len(seeds)
    logits = jnp.broadcast_to(LOGITS, (rows, len(LOGITS)))
    return draw_tokens(logits, seeds, positions, jnp.full(rows, temperature))


LOGITS = np.array([1.0, -1.0, 2.5, 0.0, -40.0, 2.4], np.float32)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("varied", ["seeds", "positions"])
def test_draws_follow_the_softmax(varied, temperature):
    many, one = np.arange(40_000, dtype=np.uint32), np.full(40_000, 7, np.uint32)
    seeds, positions = (many, one) if varied == "seeds" else (one, many)
    counts = np.bincount(draw(seeds, positions, temperature), minlength=len(LOGITS))
    expected = np.exp(LOGITS / temperature, dtype=np.float64)
    expected *= counts.sum() / expected.sum()
    possible = expected > 1e-3
    assert counts[~possible].sum() == 0
    expected = expected[possible] * counts.sum() / expected[possible].sum()
    assert scipy.stats.chisquare(counts[possible], expected).pvalue > 1e-3


def test_temperature_zero_is_argmax():
    numbers = np.arange(1000, dtype=np.uint32)
    assert set(draw(numbers, numbers, 0.0).tolist()) == {2}


@jax.jit
def draw_filtered(seeds, top_k, top_p, temperature):
    rows = len(seeds)
    logits = jnp.broadcast_to(LOGITS, (rows, len(LOGITS)))
    filters = jnp.full(rows, top_k), jnp.full(rows, top_p)
    return draw_tokens(logits, seeds, seeds, jnp.full(rows, temperature), *filters)


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 1.0, {0, 1, 2, 3, 5}),
        (1, 1.0, {2}),
        (2, 1.0, {2, 5}),
        (3, 1.0, {0, 2, 5}),
        (0, 0.4, {2}),
        (0, 0.6, {2, 5}),  # Masses 0.466, 0.422, 0.104 and less at temperature 1.
        (3, 0.9, {0, 2, 5}),  # Of the three's mass.
        (2, 0.9, {2, 5}),
        (0, 1e-6, {2}),
    ],
)
def test_filters_keep_the_likeliest_in_their_proportion(top_k, top_p, kept):
    counts = np.bincount(
        draw_filtered(np.arange(20_000, dtype=np.uint32), top_k, top_p, 1.0), minlength=len(LOGITS)
    )
    assert set(np.flatnonzero(counts).tolist()) == kept
    expected = np.exp(LOGITS[sorted(kept)], dtype=np.float64)
    expected *= counts.sum() / expected.sum()
    if len(kept) > 1:
        assert scipy.stats.chisquare(counts[sorted(kept)], expected).pvalue > 1e-3


def test_filters_of_others_cut_off_nothing(monkeypatch):
    # A draw at the very end, where the last tokens' mass is lost in the rounding of a sum.
    monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.float32(1 - 2**-24))
    logits = np.random.default_rng(0).normal(-17, 2, (400, 1000)).astype(np.float32)
    logits[:, 0] = 0
    logits, rows = jnp.asarray(logits), jnp.arange(400, dtype=np.uint32)
    drawn = draw_tokens(logits, rows, rows, jnp.ones(400))
    nothing = jnp.zeros(400, np.int32), jnp.ones(400)
    filtered = draw_tokens(logits, rows, rows, jnp.ones(400), *nothing)
    assert drawn.min() > 0
    assert drawn.tolist() == filtered.tolist()


def test_what_has_no_mass_is_never_drawn():
    # Of few tokens in many, as top_k leaves; rounding lets sums grow where there is nothing.
    rng = np.random.default_rng(0)
    mass = np.where(rng.random((400, 256)) < 0.2, rng.random((400, 256), np.float32), 0)
    upto = np.asarray(jnp.cumsum(mass.astype(np.float32), axis=1))
    for points in (upto[:, ::3], np.nextafter(upto, -1)[:, ::3]):
        for point in points.T:
            drawn = np.asarray(_first_above(*map(jnp.asarray, (mass, upto, point))))
            assert (mass[np.arange(400), drawn] > 0).all()


def test_draws_from_a_large_vocabulary_follow_the_softmax():
    logits = np.random.default_rng(0).normal(0, 2, 1000).astype(np.float32)
    seeds = np.arange(200_000, dtype=np.uint32)
    drawn = np.concatenate(
        [
            jax.jit(draw_tokens)(jnp.broadcast_to(logits, (20_000, 1000)), s, s, jnp.ones(20_000))
            for s in np.split(seeds, 10)
        ]
    )
    expected = np.exp(logits, dtype=np.float64)
    expected *= len(seeds) / expected.sum()
    often = expected > 20
    observed = np.bincount(drawn, minlength=1000)
    observed = np.append(observed[often], observed[~often].sum())
    expected = np.append(expected[often], expected[~often].sum())
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3
