"""The tokenizer that a build is pinned to, and a JSON spec from which another process rebuilds it.

The reference engine's is computed here; a Hugging Face tokenizer runs in a child process under the build's own
interpreter. Standard library only.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from enginebench.builds.build import Build
from enginebench.builds.tokenizer_process import ProcessTokenizer
from enginebench.errors import BuildError
from enginebench.reference.tokenizer import ReferenceTokenizer


class Tokenizer(Protocol):
    """Canonical text ↔ token ids."""

    @property
    def identifies_ids(self) -> bool:
        """Whether text identifies ids: ``encode(decode(ids)) == ids`` for all that the engine emits."""

    @property
    def plain_ids(self) -> Sequence[int]:
        """Ids that decode to distinct printable text each: what synthetic prompts are drawn from."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of ``text``, without special tokens."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``."""


def open_tokenizer(build: Build) -> Tokenizer:
    """Open the tokenizer of ``build``. Raises BuildError when it has none, or it cannot be opened."""
    return tokenizer_from_spec(tokenizer_spec(build))


def tokenizer_spec(build: Build) -> Mapping[str, Any]:
    """Return the JSON mapping that ``tokenizer_from_spec`` takes. Raises BuildError for a build without tokenizer."""
    if build.kind == "reference":
        return {"kind": "reference", "vocab_size": build.config["pretrained_config"]["vocab_size"]}
    if build.tokenizer is None:
        raise BuildError(
            f"Build {build.name} ({build.directory}) has no known tokenizer: name the directory of the model's "
            "Hugging Face tokenizer with --tokenizer DIR."
        )
    if not build.tokenizer.is_dir():
        raise BuildError(f"--tokenizer {build.tokenizer} is no directory: name that of the model's tokenizer.")
    return {
        "kind": "huggingface",
        "directory": str(build.tokenizer.absolute()),
        "launcher": list(build.launcher),
        "trust_remote_code": build.trust_remote_code,
    }


def tokenizer_from_spec(spec: Mapping[str, Any]) -> Tokenizer:
    """Rebuild a tokenizer from ``tokenizer_spec``'s mapping. Raises BuildError for an unknown kind, and as it opens."""
    if spec.get("kind") == "reference":
        return ReferenceTokenizer(vocab_size=int(spec["vocab_size"]))
    if spec.get("kind") == "huggingface":
        directory, trust = Path(spec["directory"]), bool(spec["trust_remote_code"])
        return ProcessTokenizer(spec["launcher"], directory, trust_remote_code=trust)
    raise BuildError(f"Tokenizer kind {spec.get('kind')!r} is unknown: use a spec that tokenizer_spec() returned.")
