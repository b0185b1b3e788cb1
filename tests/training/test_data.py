import numpy as np
import pytest

from jaxcritique.models.tokenizer import Tokenizer
from jaxcritique.training import data
from jaxcritique.training.data import (
    Example,
    TokenizedExample,
    drop_too_long,
    epoch_order,
    pack,
    tokenize,
)


def example(length: int, prompt: int = 1, weight: float = 1.0, first: int = 1) -> TokenizedExample:
    return TokenizedExample(list(range(first, first + length)), prompt, weight)


@pytest.mark.parametrize(
    ("messages", "reply", "weight", "message"),
    [
        ([{"role": "usr", "content": "1+1?"}], "2", 1.0, "a message is"),
        ([{"role": "user"}], "2", 1.0, "a message is"),
        ([{"role": "user", "content": None}], "2", 1.0, "a message is"),
        ([], "2", 1.0, "needs a prompt and a reply"),
        ([{"role": "user", "content": "1+1?"}], "", 1.0, "needs a prompt and a reply"),
        ([{"role": "user", "content": "1+1?"}], "2", -1.0, "`weight=-1.0`"),
        ([{"role": "user", "content": "1+1?"}], "2", float("nan"), "`weight=nan`"),
    ],
)
def test_examples_that_teach_nonsense(messages, reply, weight, message):
    with pytest.raises(ValueError, match=message):
        data.Example(messages, reply, weight)


def test_tokenize_draws_the_line_between_prompt_and_reply(tokenizer_folder):
    tokenizer = Tokenizer(tokenizer_folder)
    messages = [{"role": "user", "content": "2 + 2?"}]
    tokens, prompt_length, weight = tokenize(tokenizer, Example(messages, "It is 4.", weight=0.5))
    assert tokenizer.hf.decode(tokens[:prompt_length]) == tokenizer.prompt(messages)
    assert tokenizer.hf.decode(tokens[prompt_length:]) == "It is 4.</s>"
    assert weight == 0.5


def test_a_packed_row_in_full():
    batch = pack([example(4, prompt=2), example(3, weight=0.5, first=11)], sequence=9)
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 11, 12, 13, 0, 0]]
    assert batch.targets.tolist() == [[2, 3, 4, 0, 12, 13, 0, 0, 0]]
    assert batch.weights.tolist() == [[0, 1, 1, 0, 0.5, 0.5, 0, 0, 0]]
    assert batch.segments.tolist() == [[1, 1, 1, 1, 2, 2, 2, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 0]]


def unpack(batch) -> list[list[int]]:
    return [
        tokens[segments == segment].tolist()
        for tokens, segments in zip(batch.tokens, batch.segments, strict=True)
        for segment in range(1, segments.max() + 1)
    ]


@pytest.mark.parametrize("open_rows", [1, 3, 64])
def test_every_example_is_packed_whole_and_once(open_rows, monkeypatch):
    monkeypatch.setattr(data, "_OPEN_ROWS", open_rows)
    lengths = np.random.default_rng(0).integers(2, 33, 100)
    examples = [example(int(n), prompt=1, first=100 * i) for i, n in enumerate(lengths)]
    batch = pack(examples, sequence=32)
    assert sorted(unpack(batch)) == [e.tokens for e in examples]
    assert (batch.weights > 0).sum() == (lengths - 1).sum()


def test_more_open_rows_fill_the_gaps(monkeypatch):
    examples = [example(n) for n in (6, 6, 6, 4, 4, 4)]
    assert len(pack(examples, sequence=10).tokens) == 3
    monkeypatch.setattr(data, "_OPEN_ROWS", 1)
    assert len(pack(examples, sequence=10).tokens) == 4


def test_an_example_may_fill_its_row():
    assert unpack(pack([example(8)], sequence=8)) == [list(range(1, 9))]


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no examples"),
        ([example(3), example(9)], "9 tokens does not fit a row of 8"),
        ([example(4, prompt=4)], "all zeros"),
        ([example(4, prompt=0)], "all ones"),
        ([example(4, weight=0.0)], "every example has weight 0"),
    ],
    ids=["empty", "too long", "no target", "no prompt", "no weight"],
)
def test_what_cannot_be_trained_on_is_refused(examples, message):
    with pytest.raises(ValueError, match=message):
        pack(examples, sequence=8)


def test_too_long_examples_are_dropped_and_counted():
    kept, dropped = drop_too_long([example(n) for n in (3, 9, 8, 10)], sequence=8)
    assert [len(e.tokens) for e in kept] == [3, 8]
    assert dropped == 2


def test_epoch_order_is_a_function_of_seed_and_epoch():
    order = epoch_order(50, seed=1, epoch=2)
    np.testing.assert_array_equal(order, epoch_order(50, seed=1, epoch=2))
    assert sorted(order) == list(range(50))
    for other in (epoch_order(50, seed=2, epoch=2), epoch_order(50, seed=1, epoch=3)):
        assert not np.array_equal(order, other)
