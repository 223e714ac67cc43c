"""A whole run on a recorded trace in the place of a GPU: the reference engine answers, the trace says what happened."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from enginebench.builds.build import Build
from enginebench.builds.model import Shape
from enginebench.builds.sizes import kv_bytes_per_token, parameter_bytes
from enginebench.builds.tokenizer import open_tokenizer
from enginebench.measure.telemetry import Telemetry
from enginebench.plan.expand import expand
from enginebench.plan.selection import load_selection
from enginebench.run.attached import Attached
from enginebench.run.block import Block
from enginebench.run.builds import build_from_option
from enginebench.run.campaign import Campaign
from enginebench.run.drive import drive_block
from enginebench.run.plan import make_plan
from enginebench.store import Run, load_run

SIX_BILLION = Shape(28, 32, 2, 128, 4096, 13_696, 65_024)
"""ChatGLM3-6B."""

SCENARIO = """
prompts: [你是谁？]
output_tokens: [24]
batch_sizes: [{sizes}]
paths: [direct]
rounds: {rounds}
"""


def traced_run(
    root: Path, trace: Path, *, sizes: Sequence[int] = (2,), rounds: int = 2, blocks: int = 1, stages: int = 1
) -> Run:
    """Measure one scenario on the default build, while ``trace`` plays; return the run with its page.

    ``stages``: GPUs of a pipeline that the build is taken for.
    """
    (root / "scenarios").mkdir(exist_ok=True)
    text = SCENARIO.format(sizes=", ".join(map(str, sizes)), rounds=rounds)
    (root / "scenarios" / "traced.yaml").write_text(text, encoding="utf-8")
    selection = load_selection(["traced"], root / "scenarios")
    build = replace(_as_if_large(build_from_option(None, root)), pp=stages)
    expansion = expand(selection, [])
    plan = make_plan(build, open_tokenizer(build), selection, expansion.cells, expansion.left_out)
    campaign = Campaign(plan, root, ["traced"], Attached(), telemetry=Telemetry(gpu_trace=trace))
    try:
        for number in range(blocks):
            drive_block(campaign, Block(number), expansion.cells)
    finally:
        page = campaign.close()
    return load_run(page.parent)


def _as_if_large(build: Build) -> Build:
    """What a card is held against is worked out from the shape; the engine itself is loaded from its directory."""
    shape, dtype = SIX_BILLION, "float16"
    parameters, kv = parameter_bytes(shape, dtype, None), kv_bytes_per_token(shape, dtype)
    return replace(build, shape=shape, dtype=dtype, kv_dtype=dtype, parameter_bytes=parameters, kv_bytes_per_token=kv)
