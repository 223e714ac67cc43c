"""Comparisons on disk, ready for their page: two builds in turns, and two stored runs with tables and a lost cell."""

import copy
from pathlib import Path
from typing import Any

from enginebench.decide.model import Noise, Variance
from enginebench.report.comparison_subject import Subject
from enginebench.run.baselines import Stored
from enginebench.run.comparison import Terms, compare
from enginebench.run.pages import history_of, subject_of
from enginebench.store import load_run
from enginebench.store_tables import write_rounds
from tests.support import detailed_run, sample_run
from tests.support.ab_runs import CELL, sides, stored, with_memory

Run = dict[str, Any]

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">{{7*7}}'
LOST = "chat-ensemble-stream-out0012-c002"
NOISE = Noise({}, {name: Variance(1e-4, 9) for name in ("ttft_p50", "tpot_p50", "output_tokens_per_s")})
LIMITS = {"max_batch_size": 8, "max_num_tokens": 128}


def in_turns(slower: float = 0.2, pairs: int = 8) -> Subject:
    """One cell of one build 20% slower, a discarded pair, memory, a history with a step; no tables."""
    old, new = sides(slower, pairs)
    for run, limit in ((old, 8), (new, 64)):
        with_memory(run, [2**30 + number * 2**20 for number in range(pairs)])
        run["build"]["facts"] = {"limits": LIMITS | {"max_batch_size": limit}}
    spoilt = new["cells"][CELL]["per_block"][2]
    spoilt["metrics"]["slip"] |= {"p50": 0.02, "max": 0.05}
    return _subject(old, new)


def of_names(name: str = HOSTILE) -> Subject:
    """Builds, scenarios and reasons that try to leave their place."""
    made = []
    for run_id in ("old", "new"):
        run = copy.deepcopy(sample_run.hostile_run()) | {"id": f"{run_id} {name}"}
        run["build"]["name"] = f"{run_id} {name}"
        made.append(run)
    made[1]["build"]["facts"] = {"limits": {name: name}}
    list(made[1]["cells"].values())[-2].update(status="failed", reason=name)
    return _subject(made[0], made[1], Terms(noise=NOISE, noise_sessions=10))


def incomparable() -> Subject:
    """Runs of two machines."""
    old, new = stored(0.01, "old"), stored(0.01, "new")
    new["environment"]["gpus"] = [{"name": "NVIDIA H200", "driver": "550.54", "power_limit_w": 700}]
    return _subject(old, new)


def at_different_times(root: Path) -> Subject:
    """Two stored runs with their tables, four cells; the new one is 30% slower and lost a cell."""
    old, new = detailed_run.detailed_run() | {"id": "old"}, detailed_run.detailed_run() | {"id": "new"}
    new["build"] = new["build"] | {"name": "int8", "fingerprint": "sha256:other"}
    for cell in new["cells"].values():
        for metric in cell["metrics"].values():
            factor = 1.3 if metric["better"] == "lower" else 1 / 1.3
            summary = metric["summary"]
            metric["summary"] = {key: value and value * factor for key, value in summary.items()} | {
                key: summary[key] for key in ("count", "failed") if key in summary
            }
    new["cells"][LOST].update(status="failed", reason="the server died: exit status 139", metrics={})
    for run in (old, new):
        directory = sample_run.write_run(run, root / run["id"])
        for cell in detailed_run.CELLS:
            write_rounds(directory / "cells" / cell.id, detailed_run.rounds_of(cell))
    gates = ("ensemble-stream-out0012-c008:tpot_p50:3%", "direct-stream-out0012-c008:output_tokens_per_s:5%")
    return _subject(old, new, Terms(noise=NOISE, noise_sessions=10, gates=gates), root)


def with_history(subject: Subject, root: Path) -> Subject:
    """``subject`` after twelve stored runs of its new build's name, the later six of them slower."""
    for number in range(12):
        run = stored(0.01 * (1.0 + 0.001 * (number % 3)) * (1.3 if number >= 6 else 1.0), f"2026-11-{number + 1:02d}")
        run |= {"created": f"2026-11-{number + 1:02d}T00:00:00Z"}
        run["build"]["name"] = subject.comparison.new.build
        sample_run.write_run(run, root / "reports" / "runs" / run["id"])
    history = history_of(subject.comparison, subject.runs, root)
    return Subject(subject.comparison, subject.runs, subject.directories, subject.samples, history)


def _subject(old: Run, new: Run, terms: Terms | None = None, root: Path | None = None) -> Subject:
    comparison = compare(old, new, terms or Terms())
    directories = [None if root is None else root / run["id"] for run in (old, new)]
    both = [
        Stored(run if directory is None else load_run(directory).data, "run", directory)
        for run, directory in zip((old, new), directories, strict=True)
    ]
    return subject_of(comparison, both[0], both[1])
