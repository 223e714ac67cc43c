"""The tokenizer that a build is pinned to, and a JSON spec from which another process rebuilds it.

Knows the reference engine's; it opens no Hugging Face tokenizer. Standard library only.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from enginebench.builds.build import Build
from enginebench.errors import BuildError
from enginebench.reference.tokenizer import ReferenceTokenizer


class Tokenizer(Protocol):
    """Canonical text ↔ token ids."""

    @property
    def identifies_ids(self) -> bool:
        """Whether text identifies ids: ``encode(decode(ids)) == ids`` for all that the engine emits."""

    @property
    def plain_ids(self) -> range:
        """Ids that decode to one distinct printable character each: what synthetic prompts are drawn from."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of ``text``, without special tokens."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``."""


def open_tokenizer(build: Build) -> Tokenizer:
    """Open the tokenizer of ``build``. Raises BuildError when it has none that is known here."""
    return tokenizer_from_spec(tokenizer_spec(build))


def tokenizer_spec(build: Build) -> Mapping[str, Any]:
    """Return the JSON mapping that ``tokenizer_from_spec`` takes. Raises BuildError as ``open_tokenizer`` does."""
    if build.kind != "reference":
        raise BuildError(
            f"Build {build.name} ({build.directory}) has no known tokenizer: only reference builds bring theirs."
        )
    return {"kind": "reference", "vocab_size": build.config["pretrained_config"]["vocab_size"]}


def tokenizer_from_spec(spec: Mapping[str, Any]) -> Tokenizer:
    """Rebuild a tokenizer from ``tokenizer_spec``'s mapping. Raises BuildError for an unknown kind."""
    if spec.get("kind") != "reference":
        raise BuildError(f"Tokenizer kind {spec.get('kind')!r} is unknown: use a spec that tokenizer_spec() returned.")
    return ReferenceTokenizer(vocab_size=int(spec["vocab_size"]))
