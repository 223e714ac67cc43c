"""What run.json says of a run before its first cell: command, build, machine and plan."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from enginebench.builds.build import Build
from enginebench.builds.facts import build_facts
from enginebench.environment import environment
from enginebench.plan.scenario import scenario_facts
from enginebench.run.attached import Attached
from enginebench.run.plan import Plan


def header(plan: Plan, command: Sequence[str], attached: Attached) -> dict[str, Any]:
    """The keys that ``RunStore.create`` wants."""
    scenarios = {planned.scenario.name: planned.scenario for planned in plan.cells}
    return {
        "command": list(command),
        "build": _build(plan.build),
        "attached_url": next(iter((*attached.triton_urls, *attached.openai_urls)), None),  # all: in the plan
        "environment": environment(),
        "calibration": None,
        "plan": {
            "set": plan.set_name,
            "scenarios": {name: scenario_facts(scenario) for name, scenario in scenarios.items()},
            "cells": [planned.cell.id for planned in plan.cells],
            "left_out": dict(plan.left_out),
            "engine": dict(plan.engine),
            "servers": attached.as_json(),
        },
    }


def _build(build: Build) -> dict[str, Any]:
    return {
        "name": build.name,
        "kind": build.kind,
        "directory": str(build.directory),
        "version": build.version,
        "architecture": build.architecture,
        "dtype": build.dtype,
        "limits": asdict(build.limits),
        "fingerprint": build.fingerprint,
        "engine_bytes": build.engine_bytes,
        "facts": build_facts(build),
    }
