"""Text to tokens and back, and chat messages to prompts, for any Hugging Face folder."""

import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, cast

import jinja2

# Otherwise it warns at each start that PyTorch, which is not needed, is missing.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def check_tokenizer(folder: str | pathlib.Path) -> None:
    """Checks quickly that a folder has a tokenizer and that its files are not damaged.

    Raises:
      FileNotFoundError: there is none.
      ValueError: a file is damaged; it is named.
    """
    folder = pathlib.Path(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise FileNotFoundError(f"{folder}: no tokenizer.json or tokenizer.model.")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (path := folder / name).is_file():
            try:
                json.loads(path.read_bytes())
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{folder}: its tokenizer cannot be read: {name} is damaged or cut off "
                    f"({error}); copy it anew."
                ) from None


class Tokenizer:
    """A folder's tokenizer with its chat template.

    Prompt and reply are always tokenised separately, so that a reply's tokens in training are those
    a sampler could have drawn after the prompt.
    """

    def __init__(self, folder: str | pathlib.Path):
        """Loads the tokenizer of a Hugging Face folder.

        Raises:
          FileNotFoundError: the folder holds no tokenizer.
          ValueError: it cannot be read.
        """
        from transformers import AutoTokenizer  # Takes seconds to import.

        self.folder = pathlib.Path(folder)
        check_tokenizer(self.folder)
        try:
            auto: Any = AutoTokenizer
            self.hf: Any = auto.from_pretrained(str(self.folder), local_files_only=True)
        except Exception as error:  # The libraries raise errors of no common class.
            raise ValueError(f"{self.folder}: its tokenizer cannot be read: {error}") from error

    @functools.cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end a reply: the tokenizer's, and those of generation_config.json.

        A base model may have none; its texts then end at a stop string or at their longest.
        """
        ids: set[int | None] = {self.hf.eos_token_id}
        path = self.folder / "generation_config.json"
        if path.is_file():
            extra: Any = json.loads(path.read_text()).get("eos_token_id")
            ids.update(cast(list[int], extra) if isinstance(extra, list) else [extra])
        return frozenset(i for i in ids if i is not None)

    def encode(self, text: str) -> list[int]:
        """Returns the text's tokens; markers of the chat format become their special tokens.

        Raises:
          ValueError: the model's vocabulary lacks one of them.
        """
        ids = self.hf.encode(text, add_special_tokens=False)
        if self._vocab_size and max(ids, default=0) >= self._vocab_size:
            token = self.hf.convert_ids_to_tokens(max(ids))
            raise ValueError(
                f"{self.folder}: its tokenizer has the token {token!r}, number {max(ids)}, the "
                f"model's vocabulary {self._vocab_size}. Resize the model's embeddings, or remove "
                "the token from the tokenizer or the text."
            )
        return ids

    @functools.cached_property
    def _vocab_size(self) -> int | None:
        """The model's, by its config; None where there is none beside the tokenizer."""
        path = self.folder / "config.json"
        return json.loads(path.read_bytes()).get("vocab_size") if path.is_file() else None

    def decode(self, ids: Sequence[int], after: str = "") -> str:
        """Returns the text, special tokens left out.

        Args:
          ids: its tokens.
          after: the text before them. SentencePiece's decoders drop a space before the first word
            of a text; if there is text before it, that space is kept.
        """
        if after in ("", self.hf.bos_token):
            return self.hf.decode(ids, skip_special_tokens=True)
        # A letter stands for `after`, whose last tokens could be bytes of a character: some
        # decoders drop those if other bytes follow.
        text = self.hf.decode([*self._letter, *ids], skip_special_tokens=True)
        return text.removeprefix("a")

    @functools.cached_property
    def _letter(self) -> list[int]:
        return self.encode("a")

    def prompt(self, messages: Sequence[dict[str, str]]) -> str:
        """Renders messages up to where the assistant's reply begins."""
        return self._render(messages, add_generation_prompt=True)

    def reply(self, messages: Sequence[dict[str, str]], text: str) -> str:
        """Renders the assistant's reply to `messages`, its end-of-turn token included.

        Raises:
          ValueError: the tokenizer has no token that ends a text, or the chat template writes the
            prompt differently once it is replied to.
        """
        end = self.hf.eos_token
        if end is None:
            raise ValueError(
                f"{self.folder}: its tokenizer has no token that ends a reply, so none can be "
                "learnt; name one as eos_token in tokenizer_config.json."
            )
        prompt = self.prompt(messages)
        whole = self._render([*messages, {"role": "assistant", "content": text}])
        if not whole.startswith(prompt):
            raise ValueError(
                f"{self.folder}: its chat template renders a conversation that does not begin with "
                "the prompt of its last reply; such a template is not supported."
            )
        reply = whole[len(prompt) :]
        # Searched for after the text, which may contain the marker itself.
        written = text.strip()
        if written not in reply:  # Some templates drop thoughts. A sampler would write them.
            return text + end
        after = reply.find(written) + len(written)
        at = reply.find(end, after)
        return reply[: at + len(end)] if at >= 0 else text + end

    @functools.cached_property
    def _start(self) -> str:
        """The token that began every text in pretraining, as a chat template writes it; or ""."""
        begins = self.hf.encode("")[:1] == [self.hf.bos_token_id]
        return self.hf.bos_token if begins else ""

    def _render(self, messages: Sequence[dict[str, str]], **options: bool) -> str:
        if self.hf.chat_template is None:
            turns = [f"{m['role'].capitalize()}: {m['content']}\n" for m in messages]
            end = "Assistant: " if options.get("add_generation_prompt") else ""
            return "".join([self._start, *turns, end])
        try:
            return self.hf.apply_chat_template(list(messages), tokenize=False, **options)
        except jinja2.TemplateError as error:  # Such as roles that do not alternate.
            raise ValueError(f"the chat template refuses the messages: {error}") from error
