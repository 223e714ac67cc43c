"""Profiled reruns on the page, from what stands in their profile.json; and two runs' side by side."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enginebench.errors import RunError
from enginebench.report.comparison_page import comparison_page
from enginebench.report.comparison_sections import profiles_section as profiles_side_by_side
from enginebench.report.profile_changes import compare_profiles, profile_changes_table
from enginebench.report.profiles import profiles_section
from enginebench.store_profiles import profile_directory, read_profiles, write_profile
from tests.support.compared import at_different_times

CELL = "chat-direct-stream-out0012-c002"
RUN: dict[str, Any] = {"id": "2026", "build": {"kind": "tensorrt_llm"}, "cells": {}}
ITERATIONS: dict[str, Any] = {
    "status": "taken", "kind": "iterations", "cell": CELL, "started_ns": 1_000_000_000,
    "requests": {"requests": 3, "waiting_s": 0.1, "prefill_s": 0.2, "until_first_s": 0.3, "decode_s": 0.7},
    "engine": {"window_s": 2.0, "prefill_s": 0.5, "decode_s": 1.0, "idle_s": 0.5, "steps": 90, "typical_step_s": 0.01},
    "gaps": [{"request": 3, "start_ns": 1_500_000_000, "end_ns": 1_590_000_000, "s": 0.09, "tokens": 1,
              "cause": "a prefill shared the step", "explained_s": None, "evidence": "One step computed 512 tokens."}],
}  # fmt: skip
NSYS: dict[str, Any] = {
    "status": "taken", "kind": "nsys", "cell": CELL, "command": ["nsys", "profile"], "notes": ["A note."],
    "kernels": [{"name": "gemm" * 60, "family": "gemm", "calls": 3, "s": 0.6}],
    "families": [{"family": "gemm", "s": 0.6, "share": 0.6, "calls": 3},
                 {"family": "norm", "s": 0.4, "share": 0.4, "calls": 9}],
    "gpu": {"window_s": 2.0, "busy_s": 1.0, "launch_gaps_s": 0.1, "launches": 12, "host_s": 0.9},
    "files": ["report.nsys-rep"],
}  # fmt: skip


def write(root: Path, *profiles: dict[str, Any]) -> Path:
    for each in profiles:
        write_profile(profile_directory(root, each["kind"], each["cell"]), each)
    return root


def test_requests_that_waited_for_one_step_share_a_row(tmp_path: Path) -> None:
    section = profiles_section(
        RUN, write(tmp_path, {**ITERATIONS, "gaps": [{**ITERATIONS["gaps"][0], "others": [0, 4]}]})
    )
    assert section is not None
    assert section.tables[0].rows[0][0].text == "1, requests 0, 3 and 4"


def test_shares_causes_kernels_and_files(tmp_path: Path) -> None:
    section = profiles_section(RUN, write(tmp_path, ITERATIONS, NSYS))
    assert section is not None
    assert [figure.id for figure in section.figures] == ["profiles-requests", "profiles-kernels", "profiles-gpu"]
    requests, kernels, gpu = (figure.finding for figure in section.figures)
    assert "waiting 10%, prefill 20%, decode 70%" in requests
    assert "take 25% of the round" in requests
    assert "60% of what the GPU did is gemm" in kernels
    assert "45.0% of the time for the host, and 5.0% between launches" in gpu
    gaps, hot, files = section.tables
    assert [text.text for text in gaps.rows[0]] == [
        "1, request 3", "90.0", "0.500", "a prefill shared the step", "—", "One step computed 512 tokens.",
    ]  # fmt: skip
    assert hot.rows[0][0].text.endswith("…")
    assert "report.nsys-rep" in files.rows[1][2].text
    assert any("ran as: nsys profile" in note for note in section.notes)
    assert "A note." in section.notes


def test_a_failed_profile_is_a_row_with_its_reason(tmp_path: Path) -> None:
    failed = {"kind": "torch", "cell": CELL, "status": "failed", "reason": "torch is not there."}
    section = profiles_section(RUN, write(tmp_path, failed))
    assert section is not None
    assert section.figures == ()
    assert section.tables[0].rows[0][1].text == "not taken: torch is not there."


def test_without_profiles_there_is_no_part(tmp_path: Path) -> None:
    assert profiles_section(RUN, tmp_path) is None
    assert profiles_section(RUN, None) is None


def test_a_damaged_profile_is_said(tmp_path: Path) -> None:
    write(tmp_path, ITERATIONS)
    (read_profiles(tmp_path)[0].directory / "profile.json").write_text('{"schema": "other"}')
    with pytest.raises(RunError, match="enginebench/profile/1"):
        profiles_section(RUN, tmp_path)
    write(tmp_path, {**ITERATIONS, "gaps": [{**ITERATIONS["gaps"][0], "s": "long"}]})
    with pytest.raises(RunError, match=r'profile\.json: gaps\[0\]\.s must be a valid number, not "long"'):
        profiles_section(RUN, tmp_path)


def test_two_builds_side_by_side(tmp_path: Path) -> None:
    old = write(tmp_path / "old", ITERATIONS, NSYS)
    faster = {**ITERATIONS, "requests": {**ITERATIONS["requests"], "decode_s": 0.35}}
    new = write(tmp_path / "new", faster, {**NSYS, "cell": "another"})
    changes = compare_profiles(old, new)
    assert {change.kind for change in changes} == {"iterations"}  # the other cell was profiled in one alone
    decode = next(change for change in changes if (change.group, change.part) == ("a request, mean", "decode"))
    assert (decode.old_s, decode.new_s) == (0.7, 0.35)
    assert decode.change_s == pytest.approx(-0.35)
    row = next(row for row in profile_changes_table(changes).rows if row[2].text == "decode")
    assert [text.text for text in row[3:]] == ["700.0", "350.0", "−350.0", "−50%"]


def test_the_page_of_a_comparison_shows_both(tmp_path: Path) -> None:
    old = write(tmp_path / "old", ITERATIONS)
    faster = {**ITERATIONS, "requests": {**ITERATIONS["requests"], "decode_s": 0.35}}
    subject = at_different_times(tmp_path / "apart")
    assert profiles_side_by_side(subject) is None
    section = profiles_side_by_side(replace(subject, directories=(old, write(tmp_path / "new", faster))))
    assert section is not None
    assert section.lead.startswith("decode (a request, mean) changed most")
    assert section.id in dict(comparison_page(replace(subject, directories=(old, tmp_path / "new"))).nav)
