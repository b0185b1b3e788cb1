"""What a model is to learn, from files."""

import json
import pathlib
from typing import Any

from jaxcritique.training.data import Example


def read_examples(path: pathlib.Path) -> list[Example]:
    """Reads rows of "prompt" or "messages", "target" and perhaps "weight".

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row is none, or there is none; file, line and remedy are named.
    """
    if not path.is_file():
        what = "a folder; name a file of rows" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"--data={path}: {what}.")
    examples = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                examples.append(_example(json.loads(line.decode())))
            except ValueError as error:
                why = str(error)
                if isinstance(error, json.JSONDecodeError):
                    why = f"not JSON (column {error.colno}: {error.msg})"
                raise ValueError(
                    f"{path}:{number}: {why}. A row has 'prompt' or 'messages', 'target', and "
                    "perhaps 'weight'."
                ) from None
    if not examples:
        raise ValueError(f"--data={path} holds no examples.")
    return examples


def _example(row: Any) -> Example:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if unknown := set(row) - {"prompt", "messages", "target", "weight"}:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
    if ("prompt" in row) == ("messages" in row):
        raise ValueError("there must be one of 'prompt' and 'messages'")
    messages = [{"role": "user", "content": row["prompt"]}] if "prompt" in row else row["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' is not a list of messages")
    for message in messages:
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise ValueError("a message is {'role': text, 'content': text}")
        if not all(isinstance(value, str) for value in message.values()):
            raise ValueError("a prompt, and a message's role and content, are text")
    target = row.get("target")
    if target is None and messages[-1]["role"] == "assistant":
        *messages, last = messages
        target = last["content"]
    if not isinstance(target, str) or not target or not messages:
        raise ValueError("there is no target, or nothing before it")
    weight = row.get("weight", 1.0)
    if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise ValueError(f"'weight' is {weight!r}")
    return Example(messages, target, float(weight))
