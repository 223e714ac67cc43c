"""A run with a small engine on which cells can be profiled: short prompts stream while long ones arrive."""

import os
import stat
from pathlib import Path

from enginebench.builds.build import Build, read_build
from enginebench.builds.tokenizer import open_tokenizer
from enginebench.measure.telemetry import Telemetry
from enginebench.plan.expand import expand
from enginebench.plan.selection import load_selection
from enginebench.profile.rerun import Rerun
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.run.attached import Attached
from enginebench.run.plan import Plan, make_plan
from tests.support import fake_nsys

SCENARIO = """
prompts: [你是谁？, {synthetic: {input_tokens: 480, count: 1}}]
output_tokens: [30]
load: [{kind: concurrency, levels: [2], requests: 6}]
streaming: true
paths: [{path}]
rounds: 1
warmup_rounds: 0
"""


def small_build(root: Path) -> Build:
    options = ReferenceOptions(
        layers=2, hidden=64, heads=4, kv_heads=2, ffn=128, vocab_size=1024, max_batch_size=4, max_input_len=600,
        max_seq_len=700, max_num_tokens=256, min_step_ms=2,
    )  # fmt: skip
    write_build(options, root / "build")
    return read_build("small", root / "build")


def small_plan(root: Path, path: str = "direct") -> Plan:
    (root / "scenarios").mkdir(exist_ok=True)
    (root / "scenarios" / "mixed.yaml").write_text(SCENARIO.replace("{path}", path), encoding="utf-8")
    selection = load_selection(["mixed"], root / "scenarios")
    build, expansion = small_build(root), expand(selection, [])
    return make_plan(build, open_tokenizer(build), selection, expansion.cells, expansion.left_out)


def profile(root: Path, plan: Plan, kinds: tuple[str, ...]) -> list[str]:
    """Profile the plan's cells into ``root``; what was told."""
    told: list[str] = []
    rerun = Rerun(plan, root, Attached(), Telemetry(), told.append)
    rerun.profile(kinds, [planned.cell.id for planned in plan.cells])
    return told


def nsys_on_path(directory: Path) -> str:
    """Put the stand-in into ``directory``; the PATH on which it is found first."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "nsys"
    program.write_text(Path(fake_nsys.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{directory}:{os.environ['PATH']}"
