"""What differs between two builds, in words: ``max_batch_size 8 → 64``. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enginebench.builds.facts import OF_REFERENCE, build_facts, value_text
from enginebench.builds.model import Build

_CONFIG = "config.json"
_NOISE = frozenset(
    {"auto_parallel_config", "gpus_per_node", "input_timing_cache", "monitor_memory", "output_timing_cache",
     "parallel_build"}
)  # fmt: skip
"""What the machine, or the bookkeeping of a build, leaves in config.json: it makes no other engine."""

_SAID = frozenset(
    {"architecture", "architectures", "cp_size", "dtype", "head_size", "hidden_size", "intermediate_size",
     "kv_cache_quant_algo", "kv_cache_type", "max_batch_size", "max_beam_width", "max_input_len", "max_num_tokens",
     "max_output_len", "max_seq_len", "name", "num_attention_heads", "num_heads", "num_hidden_layers",
     "num_key_value_heads", "num_kv_heads", "num_layers", "paged_kv_cache", "pipeline_parallel", "plugin_config",
     "pp_size", "precision", "quant_algo", "quant_mode", "remove_input_padding", "tensor_parallel", "torch_dtype",
     "tp_size", "version", "vocab_size", "world_size"}
)  # fmt: skip
"""Keys of config.json that the facts say, under this name or another."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact that the builds do not share; values are JSON, None where a build does not have it."""

    section: str
    key: str
    old: Any
    new: Any

    @property
    def old_text(self) -> str:
        """The old value as people read it."""
        return value_text(self.key, self.old)

    @property
    def new_text(self) -> str:
        """The new value as people read it."""
        return value_text(self.key, self.new)

    @property
    def words(self) -> str:
        """The difference as a phrase."""
        return f"{self.key} {self.old_text} → {self.new_text}"


def diff_builds(old: Build, new: Build) -> tuple[Difference, ...]:
    """Return what differs, known facts first and then what else config.json says; empty for equal builds.

    Builds of two eras are compared by the facts that both eras have. Where all of that is equal and the files are
    not, the fingerprint is the one difference.
    """
    found = [*_known(old, new), *_others(old, new)]
    if not found and old.fingerprint != new.fingerprint:
        found.append(Difference("build", "fingerprint", old.fingerprint, new.fingerprint))
    return tuple(found)


def diff_text(old: Build, new: Build) -> str:
    """The differences as lines for a terminal, under the name of their section."""
    lines, section = [f"{old.name} → {new.name}"], ""
    for each in diff_builds(old, new):
        if each.section != section:
            section = each.section
            lines.append(f"{section}:")
        lines.append(f"  {each.words}")
    return "\n".join(lines if section else [*lines, "No difference: the files are the same."]) + "\n"


def diff_json(old: Build, new: Build) -> dict[str, Any]:
    """The differences as one JSON object."""
    return {
        "schema": "enginebench/build-diff/1",
        "old": {"name": old.name, "directory": str(old.directory), "fingerprint": old.fingerprint},
        "new": {"name": new.name, "directory": str(new.directory), "fingerprint": new.fingerprint},
        "differences": [
            {"section": each.section, "key": each.key, "old": each.old, "new": each.new, "words": each.words}
            for each in diff_builds(old, new)
        ],
    }


def rows(differences: Sequence[Difference]) -> list[tuple[str, str, str, str]]:
    """(section, key, old, new) as text: the rows of a table."""
    return [(each.section, each.key, each.old_text, each.new_text) for each in differences]


def _known(old: Build, new: Build) -> Iterator[Difference]:
    theirs = build_facts(new)
    for section, ours in build_facts(old).items():
        for key in [*ours, *(key for key in theirs[section] if key not in ours)]:
            before, after = ours.get(key), theirs[section].get(key)
            if before != after and not _is_copy(old, key):
                yield Difference(section, key, before, after)


def _is_copy(build: Build, key: str) -> bool:
    """The size of the only rank is that of all, and is said once."""
    return key == "rank_bytes" and build.world_size == 1


def _others(old: Build, new: Build) -> Iterator[Difference]:
    """What config.json says beyond the facts; nothing across eras, whose keys have nothing in common."""
    if old.layout != new.layout:
        return
    ours, theirs = (dict(_leaves(build.config)) for build in (old, new))
    said = _SAID | _NOISE | frozenset(OF_REFERENCE if old.kind == "reference" else ())
    for path in [*ours, *(path for path in theirs if path not in ours)]:
        if ours.get(path) != theirs.get(path) and said.isdisjoint(path):
            yield Difference(_CONFIG, ".".join(path), ours.get(path), theirs.get(path))


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
