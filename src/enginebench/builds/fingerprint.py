"""What a build's files hold, as one hash. Large files are hashed once and remembered by what ``stat`` says of them.

The memory lies under ``$XDG_CACHE_HOME/enginebench/hashes`` (default ``~/.cache``): one small file for each file that
was hashed. It can be deleted at any time. Standard library only.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from enginebench.errors import BuildError

REMEMBERED_BYTES = 16 << 20
"""Smaller files are hashed each time: that costs less than asking."""

_READ_BYTES = 1 << 22
_FRESH_NS = 2_000_000_000  # a file this young may change again within one tick of its file system's clock


def fingerprint(files: Sequence[Path]) -> str:
    """Return ``sha256:…`` over the names and contents of ``files``, in their order.

    Raises BuildError for a file that cannot be read, or that changes while it is.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file_hash(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def file_hash(file: Path) -> str:
    """Return the SHA-256 of a file, from memory when it is large and unchanged. Raises BuildError."""
    try:
        place = file.resolve(strict=True)
        before = place.stat()
        memory = _memory(place, before) if before.st_size >= REMEMBERED_BYTES else None
        if memory is not None and (known := _recall(memory)):
            return known
        found = _hash(place)
        after = place.stat()
    except OSError as error:  # its text names the file
        raise BuildError(f"The build cannot be read ({error}): check its permissions.") from error
    if _identity(before) != _identity(after):
        raise BuildError(f"{file} changed while it was read: wait until the build is complete.")
    if memory is not None and time.time_ns() - after.st_mtime_ns > _FRESH_NS:
        _remember(memory, found)
    return found


def _identity(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _memory(place: Path, stat: os.stat_result) -> Path:
    key = "\0".join(map(str, (place, *_identity(stat))))
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "enginebench" / "hashes" / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _recall(memory: Path) -> str | None:
    with suppress(OSError, ValueError):
        text = memory.read_text(encoding="ascii").strip()
        if len(text) == 64:
            return text
    return None


def _remember(memory: Path, found: str) -> None:
    with suppress(OSError):  # a home that cannot be written to costs time, nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=memory.parent)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(found)
        Path(aside).replace(memory)


def _hash(place: Path) -> str:
    digest = hashlib.sha256()
    with place.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
