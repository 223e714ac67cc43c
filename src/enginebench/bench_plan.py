"""From what a person asks of ``pytest bench/`` to what will be measured: checks all that can be known beforehand.

Knows the options, and not pytest.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.builds.tokenizer import open_tokenizer
from enginebench.errors import EnginebenchError
from enginebench.files import check_writable
from enginebench.plan.cells import Cell
from enginebench.plan.selection import Selection
from enginebench.profile.rerun import check_request
from enginebench.run.attached import Attached, OwnServer, read_urls
from enginebench.run.builds import build_from_option, only_build
from enginebench.run.clients import ShardCount, read_shards
from enginebench.run.direct import read_settings
from enginebench.run.managed import check_own_server
from enginebench.run.plan import Plan, make_plan
from enginebench.server.filling import read_overrides


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What will be measured, on which servers, by how many processes; ``warnings``: of the server that is started."""

    plan: Plan
    attached: Attached
    shards: ShardCount
    warnings: Sequence[str]


def plan_bench(
    option: Namespace, root: Path, selection: Selection, cells: Sequence[Cell], left_out: Mapping[str, str]
) -> BenchPlan:
    """Plan ``cells`` of ``selection`` as ``option`` asks, in the project at ``root``.

    Raises:
        EnginebenchError: an option is none, or a cell cannot be reached or measured so.
    """
    paths = [cell.path for cell in cells]
    if option.rounds is not None and option.rounds < 1:
        raise EnginebenchError(f"--rounds {option.rounds} is not possible; give 1 or more.")
    if option.benchmark_json:
        check_writable(option.benchmark_json)
    shards = read_shards(option.shards, cells)
    attached = _attached(option, paths)
    build = build_from_option(only_build(option.build), root, option.tokenizer, option.trust_remote_code)
    attached.check(paths, build.kind)
    engine = read_settings(option.engine, build, [path for path in paths if not attached.urls_of(path)])
    plan = make_plan(build, open_tokenizer(build), selection, cells, left_out, option.rounds, engine=engine)
    check_request(option.profile, plan, attached)
    return BenchPlan(plan, attached, shards, check_own_server(plan, attached, paths))


def _attached(option: Namespace, paths: Sequence[str]) -> Attached:
    own = OwnServer(option.templates, read_overrides(option.set), bls="bls" in paths)
    triton, openai = read_urls("--triton-url", option.triton_url), read_urls("--openai-url", option.openai_url)
    return Attached(triton, openai, option.openai_model, own)
