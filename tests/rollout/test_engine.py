import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
import transformers

from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.models.transformer import join
from jaxcritique.rollout.engine import JaxConfig
from jaxcritique.rollout.load import load_jax
from jaxcritique.rollout.sampler import Completion, Request
from jaxcritique.rollout.sampling import draw_tokens
from jaxcritique.tasks import TINY_BASE


def generate(sampler, requests: list[Request]) -> list[Completion]:
    found = {(c.request, c.sample): c for c in sampler.generate(requests, lambda *_: None)}
    return [found[request.id, sample] for request in requests for sample in range(request.n)]


def texts(completions: list[Completion]) -> dict[tuple[str, int], str]:
    return {(c.request, c.sample): c.text for c in completions}


@pytest.fixture(scope="module")
def mixed(prompts) -> list[Request]:
    """Requests of all kinds: greedy and hot, once and thrice, short and long, with prefix."""
    return [
        Request(
            messages,
            n=1 + i % 3,
            max_tokens=(5, 24, 40)[i % 7 % 3],
            temperature=(0.0, 1.0, 1.5)[i % 5 % 3],
            seed=i // 2,
            prefix="That makes" if i % 4 == 0 else "",
        )
        for i, messages in enumerate(prompts)
    ]


@pytest.fixture(scope="module")
def answers(make_sampler, mixed) -> list[Completion]:
    return generate(make_sampler(slots=4), mixed)


def test_greedy_is_argmax_over_the_whole_sequence_and_what_torch_generates(
    base, make_sampler, prompts
):
    _, structure, params, tokenizer = base
    model = transformers.AutoModelForCausalLM.from_pretrained(TINY_BASE, dtype=torch.float32)

    @jax.jit
    def next_token(tokens, last):
        length = tokens.shape[1]
        model = join(structure, params)
        hidden = model.hidden(tokens, jnp.arange(length)[None], jnp.ones_like(tokens))
        return model.logits(hidden[0, last]).argmax()

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
    tokenizer = base[3]
    limits = {request.id: request.max_tokens for request in mixed}
    prefixes = {request.id: request.prefix for request in mixed}
    for completion in answers:
        drawn = tokenizer.encode(completion.text.removeprefix(prefixes[completion.request]))
        if completion.finish_reason == "length":
            assert completion.completion_tokens == limits[completion.request]
        else:
            assert completion.finish_reason == "stop"
            assert completion.completion_tokens <= limits[completion.request]
            assert "</s>" not in completion.text
        assert abs(len(drawn) - completion.completion_tokens) <= 2  # But for odd tokenisations.
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


@pytest.mark.parametrize("slots", [1, 64])
def test_neither_slots_nor_order_change_a_text(slots, make_sampler, mixed, answers):
    got = generate(make_sampler(slots), mixed[::-1] if slots == 64 else mixed[::2])
    expected = texts(answers)
    assert texts(got).items() <= expected.items()
    assert len(got) == (len(answers) if slots == 64 else sum(r.n for r in mixed[::2]))


def test_company_does_not_change_a_text(make_sampler, mixed, answers):
    sampler = make_sampler(slots=4)
    for request in mixed[3:9]:
        assert texts(generate(sampler, [request])).items() <= texts(answers).items()


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
    tokenizer = base[3]
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
