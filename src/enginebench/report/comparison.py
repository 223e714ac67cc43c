"""What is known of a comparison of two builds, as plain data: every table, page and file of it is made from this.

Nothing is decided here, and nothing formatted: numbers are in seconds, bytes and fractions. ``comparison.json`` is
``as_json``; ``comparison_from_json`` reads it back.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from enginebench.decide.model import Cause, CrossCheck, Endpoint, GateResult, Problem, Verdict
from enginebench.errors import RunError

SCHEMA = "enginebench/comparison/1"

COMPARISONS, FILE = Path("reports") / "comparisons", "comparison.json"
"""Where they are kept, each in a directory of its own, and under which name."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the two: a run, or a baseline that was made of one. ``directory``: of the run, where that is known."""

    run_id: str
    created: str
    build: str  # its name
    kind: str  # reference, tensorrt_llm …
    fingerprint: str
    directory: str | None
    commit: str | None  # of the working directory that it was measured in
    host: str  # GPU and driver, or the processor
    source: str = "run"  # or "baseline NAME"


@dataclass(frozen=True, slots=True)
class Discarded:
    """A pair that counts for nothing in one cell, and why."""

    pair: int
    cell_id: str
    side: str  # old or new
    reason: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One block as it was run: one load of an engine. ``temperature_c``: of the GPU before it; None: not known."""

    block: int
    pair: int
    side: str
    seed: int | None
    started: str
    duration_s: float
    loads: int  # of engines or servers
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True)
class Design:
    """How the numbers came about. ``paired``: blocks were measured in turns; else two runs of different times.

    ``pairs``: measured ones; ``looks``: the numbers of pairs at which was decided, or would have been; ``stopped``: why
    it ended where it did; ``smallest_effect``: by the endpoint's key, what the whole budget finds four times out of
    five, a fraction, from A/A noise; empty where that is not known. ``co_resident``: both engines were loaded once and
    stayed, so that blocks are no independent loads.
    """

    paired: bool
    pairs: int = 0
    pairs_planned: int | None = None
    looks: tuple[int, ...] = ()
    stopped: str = ""
    gate_source: str = ""
    turns: tuple[Turn, ...] = ()
    discarded: tuple[Discarded, ...] = ()
    smallest_effect: Mapping[str, float] | None = None
    co_resident: bool = False
    noise_sessions: int | None = None  # of A/A noise that an unpaired comparison rests on


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison. ``verdicts``: gated endpoints first; ``notes``: sentences that belong beside them."""

    id: str
    created: str
    old: Compared
    new: Compared
    design: Design
    verdicts: tuple[Verdict, ...]
    gate: GateResult
    problems: tuple[Problem, ...] = ()
    causes: tuple[Cause, ...] = ()
    notes: tuple[str, ...] = ()
    units: Mapping[str, str] | None = None  # by metric, as stored: s, tokens/s, bytes …

    @property
    def gated(self) -> tuple[Verdict, ...]:
        """The verdicts that decide."""
        return tuple(each for each in self.verdicts if each.endpoint.kind == "gated")

    @property
    def watched(self) -> tuple[Verdict, ...]:
        """The others."""
        return tuple(each for each in self.verdicts if each.endpoint.kind == "watch")

    @property
    def reference(self) -> bool:
        """Whether a reference engine was measured: its numbers say nothing about TensorRT-LLM."""
        return "reference" in (self.old.kind, self.new.kind)

    def as_json(self) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        verdicts = [verdict.as_json() for verdict in self.verdicts]
        return {"schema": SCHEMA, **asdict(self), "verdicts": verdicts, "passed": self.gate.passed}


def comparison_json(comparison: Comparison) -> str:
    """The text of ``comparison.json``."""
    return json.dumps(comparison.as_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def comparison_from_json(data: Mapping[str, Any]) -> Comparison:
    """What ``as_json`` gave. Raises RunError for anything else."""
    if data.get("schema") != SCHEMA:
        raise RunError(f"This is no comparison: its schema is {data.get('schema')!r}, not {SCHEMA!r}.")
    design = dict(data["design"])
    return Comparison(
        id=data["id"],
        created=data["created"],
        old=Compared(**data["old"]),
        new=Compared(**data["new"]),
        design=Design(**design | {
            "looks": tuple(design["looks"]),
            "turns": tuple(Turn(**each) for each in design["turns"]),
            "discarded": tuple(Discarded(**each) for each in design["discarded"]),
        }),
        verdicts=tuple(_verdict(each) for each in data["verdicts"]),
        gate=_gate(data["gate"]),
        problems=tuple(Problem(**each) for each in data["problems"]),
        causes=tuple(Cause(**each) for each in data["causes"]),
        notes=tuple(data["notes"]),
        units=data["units"],
    )  # fmt: skip


def _verdict(data: Mapping[str, Any]) -> Verdict:
    fields = {name: value for name, value in data.items() if name not in ("key", "name")}
    check = fields["cross_check"]
    return Verdict(**fields | {
        "endpoint": Endpoint(**fields["endpoint"]),
        "cross_check": None if check is None else CrossCheck(**check),
        "reasons": tuple(fields["reasons"]),
    })  # fmt: skip


def _gate(data: Mapping[str, Any]) -> GateResult:
    return GateResult(data["exit_code"], data["policy"], tuple(data["reasons"]), tuple(data["warnings"]))
