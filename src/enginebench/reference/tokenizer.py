"""The reference engine's tokenizer: bytes, and one id for each CJK character of the vocabulary.

Ids 0 and 1 are padding and end, 2 to 257 are the bytes, 258 and up are the characters from U+4E00 on; ids beyond the
last of these stand for no text. The engine emits only the characters, each of which is distinct and printable: its text
identifies its ids. It merges nothing. Standard library only.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

PAD_ID = 0
END_ID = 1
FIRST_BYTE_ID = 2
FIRST_CHARACTER_ID = 258
FIRST_CHARACTER = 0x4E00
LAST_CHARACTER = 0x9FFC
"""The last CJK unified ideograph that Unicode 13, thus Python 3.10, knows as printable."""

LAST_CHARACTER_ID = FIRST_CHARACTER_ID + LAST_CHARACTER - FIRST_CHARACTER
MIN_VOCAB_SIZE = FIRST_CHARACTER_ID + 2

_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)  # not slotted: cached_property needs the dict
class ReferenceTokenizer:
    """``decode(encode(text)) == text`` for every text (a lone surrogate, which is none, becomes ``?``)."""

    vocab_size: int

    @property
    def identifies_ids(self) -> bool:
        """Whether the text of an answer gives back its ids: ``encode(decode(ids)) == ids`` for ``plain_ids``."""
        return True

    @cached_property
    def plain_ids(self) -> range:
        """The ids that decode to one distinct printable character each."""
        return range(FIRST_CHARACTER_ID, min(self.vocab_size, LAST_CHARACTER_ID + 1))

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the id of each character in the vocabulary, and the ids of the UTF-8 bytes of each other one."""
        return tuple(token_id for character in text for token_id in self._encode_character(character))

    def decode(self, ids: Iterable[int]) -> str:
        """Invert ``encode``; bytes that are no UTF-8 and unknown ids become U+FFFD, padding and end vanish."""
        parts: list[str] = []
        run = bytearray()
        for token_id in ids:
            if FIRST_BYTE_ID <= token_id < FIRST_CHARACTER_ID:
                run.append(token_id - FIRST_BYTE_ID)
            elif token_id not in (PAD_ID, END_ID):
                parts += (run.decode("utf-8", "replace"), self._decode_character(token_id))
                run.clear()
        return "".join(parts) + run.decode("utf-8", "replace")

    def _encode_character(self, character: str) -> Iterable[int]:
        token_id = ord(character) - FIRST_CHARACTER + FIRST_CHARACTER_ID
        if token_id in self.plain_ids:
            return (token_id,)
        return (FIRST_BYTE_ID + byte for byte in character.encode("utf-8", "replace"))

    def _decode_character(self, token_id: int) -> str:
        if token_id in self.plain_ids:
            return chr(token_id - FIRST_CHARACTER_ID + FIRST_CHARACTER)
        return _REPLACEMENT
