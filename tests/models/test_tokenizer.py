import json

import pytest

from jaxcritique.models.tokenizer import Tokenizer

QUESTION = {"role": "user", "content": "2 + 2?"}
ANSWER = {"role": "assistant", "content": "5"}
CHECK = {"role": "user", "content": "Check."}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return Tokenizer(tokenizer_folder)


def test_prompt_and_reply_make_up_the_conversation(tokenizer):
    messages = [QUESTION, ANSWER, CHECK]
    assert (
        tokenizer.prompt(messages) == "<|user|>2 + 2?<|assistant|>5</s><|user|>Check.<|assistant|>"
    )
    assert tokenizer.reply(messages, "It is 4.") == "It is 4.</s>"


def test_chat_markers_are_single_tokens(tokenizer):
    prompt = tokenizer.encode(tokenizer.prompt([QUESTION]))
    reply = tokenizer.encode(tokenizer.reply([QUESTION], "4"))
    markers = tokenizer.hf.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    assert [prompt[0], prompt[-1]] == markers
    assert frozenset(reply[-1:]) == tokenizer.stop_ids


def test_without_a_chat_template_turns_are_named(make_tokenizer):
    tokenizer = Tokenizer(make_tokenizer(None))
    messages = [QUESTION, ANSWER, CHECK]
    assert tokenizer.prompt(messages) == "User: 2 + 2?\nAssistant: 5\nUser: Check.\nAssistant: "
    assert tokenizer.reply(messages, "It is 4.") == "It is 4.</s>"


def test_without_a_chat_template_a_prompt_starts_as_the_models_own_texts_do(make_tokenizer):
    folder = make_tokenizer(None)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "add_bos_token": True}))
    tokenizer = Tokenizer(folder)
    prompt = tokenizer.encode(tokenizer.prompt([QUESTION]))
    assert prompt == tokenizer.hf.encode("User: 2 + 2?\nAssistant: ")
    assert prompt[0] == tokenizer.hf.bos_token_id
    assert tokenizer.hf.bos_token not in tokenizer.reply([QUESTION], "4")


def test_what_a_template_writes_after_the_end_is_no_part_of_the_reply(make_tokenizer):
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert Tokenizer(make_tokenizer(template)).reply([QUESTION], "4") == "4</s>"


@pytest.mark.parametrize("end", ["{{ eos_token }}\n", "<|end|>"])
def test_a_reply_that_writes_of_the_end_marker_is_not_cut_there(end, make_tokenizer):
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}" + end + "{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    text = "</s> ends a turn."
    assert Tokenizer(make_tokenizer(template)).reply([QUESTION], text) == text + "</s>"


@pytest.mark.parametrize("dropped", ["<think>2 and 2</think>", "<think>"])
def test_a_target_is_learnt_whole_where_the_template_drops_its_thoughts(dropped, make_tokenizer):
    template = (
        "{% for m in messages %}<|{{ m.role }}|>"
        "{{ m.content.split('</think>')[-1].replace('<think>', '') }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    text = dropped + "The answer is 4."
    assert Tokenizer(make_tokenizer(template)).reply([QUESTION], text) == text + "</s>"


def test_a_token_past_the_model_s_vocabulary_is_refused(make_tokenizer):
    folder = make_tokenizer(None)
    size = len(Tokenizer(folder).hf)
    config = {"vocab_size": size - 1}
    (folder / "config.json").write_text(json.dumps(config))
    smaller = Tokenizer(folder)
    last = smaller.hf.convert_ids_to_tokens(size - 1)
    assert smaller.encode("4") == Tokenizer(make_tokenizer(None)).encode("4")
    with pytest.raises(ValueError, match=rf"number {size - 1}, the model's vocabulary {size - 1}"):
        smaller.encode("4" + last.replace("▁", " "))


def test_template_whose_prompt_does_not_open_the_conversation_is_refused(make_tokenizer):
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
    )
    with pytest.raises(ValueError, match="chat template"):
        Tokenizer(make_tokenizer(template)).reply([QUESTION], "The answer is 4.")


def test_what_a_template_refuses_is_said(make_tokenizer):
    template = (
        "{% if messages|length > 1 %}{{ raise_exception('roles must alternate') }}{% endif %}"
    )
    with pytest.raises(ValueError, match="refuses the messages: roles must alternate"):
        Tokenizer(make_tokenizer(template)).reply([QUESTION], "4")


@pytest.mark.parametrize(
    "text",
    [
        "Tom has 12 apples.",
        " leading, trailing  and   inner spaces ",
        "a line\nanother\n\nand a last one\n",
        "don 't touch , this .",
        "naïve café, 12 €, 三个苹果, √2 ≤ ½, 🍎\u2028\t",
    ],
)
def test_round_trip(text, tokenizer):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decode_leaves_special_tokens_out(tokenizer):
    assert tokenizer.decode([*tokenizer.encode("4"), *tokenizer.stop_ids]) == "4"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ({}, {2}),
        ({"eos_token_id": 5}, {2, 5}),
        ({"eos_token_id": [2, 7]}, {2, 7}),
        ({"eos_token_id": 0}, {0, 2}),
        ({"eos_token_id": None}, {2}),
    ],
)
def test_stop_ids(ends, expected, make_tokenizer):
    folder = make_tokenizer(None)
    (folder / "generation_config.json").write_text(json.dumps(ends))
    assert Tokenizer(folder).stop_ids == expected


def test_a_tokenizer_without_an_end_has_no_stop_ids_and_no_replies(make_tokenizer):
    folder = make_tokenizer(None)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": None}))
    assert Tokenizer(folder).stop_ids == set()
    with pytest.raises(ValueError, match=f"{folder}: its tokenizer has no token that ends a reply"):
        Tokenizer(folder).reply([QUESTION], "4")


def test_missing_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json or tokenizer\.model"):
        Tokenizer(tmp_path)


def test_what_the_chat_template_refuses_is_a_value_error(make_tokenizer):
    tokenizer = Tokenizer(make_tokenizer("{{ raise_exception('roles must take turns') }}"))
    with pytest.raises(ValueError, match="refuses the messages: roles must take turns"):
        tokenizer.prompt([{"role": "user", "content": "?"}])


def test_an_unreadable_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=f"{tmp_path}: its tokenizer cannot be read"):
        Tokenizer(tmp_path)
