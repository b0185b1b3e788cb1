"""Training examples from files."""

import pathlib
from typing import Any, cast

from jaxcritique.errors import InvalidInput
from jaxcritique.store import read_jsonl
from jaxcritique.training.data import Example

_FORM = "A row has 'prompt' or 'messages', 'target', and perhaps 'weight'."


def read_examples(path: pathlib.Path) -> list[Example]:
    """Reads rows of "prompt" or "messages", "target" and perhaps "weight".

    Raises:
      FileNotFoundError: there is no such file.
      InvalidInput: a row is not an example, or there is none; file and line are named.
    """
    examples = [example for _, example in read_jsonl(path, _example, _FORM)]
    if not examples:
        raise InvalidInput(f"{path} holds no examples.")
    return examples


def _example(row: dict[str, Any]) -> Example:
    if unknown := set(row) - {"prompt", "messages", "target", "weight"}:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    if ("prompt" in row) == ("messages" in row):
        raise ValueError("there must be one of 'prompt' and 'messages'")
    messages: Any = row.get("messages", [{"role": "user", "content": row.get("prompt")}])
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' is not a list of messages")
    messages = cast(list[Any], messages)
    for message in messages:
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise ValueError("a message is {'role': text, 'content': text}")
        if not all(isinstance(value, str) for value in cast(dict[Any, Any], message).values()):
            raise ValueError("a prompt, and a message's role and content, are text")
    target: Any = row.get("target")
    if target is None and messages[-1]["role"] == "assistant":
        target = messages.pop()["content"]
    if not isinstance(target, str) or not target or not messages:
        raise ValueError("there is no target, or nothing before it")
    weight = row.get("weight", 1.0)
    if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise ValueError(f"'weight' is {weight!r}")
    return Example(messages, target, float(weight))
