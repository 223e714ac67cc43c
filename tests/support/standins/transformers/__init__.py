"""A stand-in for transformers, for a child process: tokenizers as ``standin.json`` in their directory says.

A token is a character or, in "merging" tokenizers, also a pair of equal letters. Errors are those that real releases
raise.
"""

import builtins
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__version__ = "4.99.0"

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


class ChatGLMTokenizer:
    """Ids: 0 padding (special), 1 a byte without text, 2 a space, then letters, then doubled letters."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.tokens = ["", "\ufffd", " ", *LETTERS]
        if settings.get("merging"):
            self.tokens += [letter * 2 for letter in LETTERS]
        self.all_special_ids = [0]
        self.settings = settings

    def __len__(self) -> int:
        return len(self.tokens) + 1  # the last id is a hole

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert add_special_tokens is False
        if self.settings.get("dies"):
            raise SystemExit("killed")
        if self.settings.get("pads"):
            raise TypeError("_pad() got an unexpected keyword argument 'padding_side'")
        ids: list[int] = []
        rest = text
        while rest:
            width = 2 if rest[:2] in self.tokens and len(rest) > 1 else 1
            ids.append(self.tokens.index(rest[:width]))
            rest = rest[width:]
        return ids

    def decode(self, ids: Iterable[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        assert skip_special_tokens is True
        assert clean_up_tokenization_spaces is False
        return "".join(self.tokens[token_id] for token_id in ids)


class AutoTokenizer:
    @staticmethod
    def from_pretrained(directory: str, trust_remote_code: bool) -> ChatGLMTokenizer:
        print("a library that prints")
        settings = json.loads((Path(directory) / "standin.json").read_text())
        if settings.get("own_code") and not trust_remote_code:
            raise ValueError(f"Loading {directory} requires you to execute the code; set `trust_remote_code=True`.")
        if settings.get("raises"):
            name, message = settings["raises"]
            raise getattr(builtins, name)(message)
        return ChatGLMTokenizer(settings)
