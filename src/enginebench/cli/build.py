"""``enginebench build``: write a reference build, run a matrix of engine builds, show one, compare two.

Parses arguments, calls one function, prints what it says.
"""

import argparse
import dataclasses
import json
from pathlib import Path


def add_build(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``build`` and its own commands."""
    build = commands.add_parser("build", help="write engine builds, show one, compare two")
    kinds = build.add_subparsers(required=True, metavar="COMMAND")
    _add_reference(kinds)
    _add_show(kinds)
    _add_diff(kinds)
    _add_run(kinds)


def _add_reference(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from enginebench.reference.options import ReferenceOptions

    reference = kinds.add_parser(
        "reference",
        help="a small engine with random weights that runs without a GPU",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    reference.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write it")
    for option in dataclasses.fields(ReferenceOptions):
        flag = "--" + option.name.replace("_", "-")
        reference.add_argument(flag, type=type(option.default), default=option.default, help=option.metadata["help"])
    reference.set_defaults(run=_build_reference)


def _build_reference(options: argparse.Namespace) -> None:
    from enginebench.builds.build import read_build
    from enginebench.reference.build import write_build
    from enginebench.reference.options import ReferenceOptions

    names = [option.name for option in dataclasses.fields(ReferenceOptions)]
    write_build(ReferenceOptions(**{name: getattr(options, name) for name in names}), options.out)
    build = read_build(options.out.name, options.out)
    print(
        f"{options.out}: {build.architecture} {build.dtype}, {build.engine_bytes / 2**20:.1f} MiB, {build.fingerprint}"
    )


def _add_show(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    show = kinds.add_parser("show", help="what an engine directory is, without loading it")
    show.add_argument("build", metavar="BUILD", help="a directory, or NAME=DIR[,python=PATH][,…] as for --build")
    show.add_argument("--json", action="store_true", help="as one JSON object")
    show.add_argument("--check", action="store_true", help="ask its interpreter for the versions that it has, too")
    show.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> None:
    from enginebench.builds.facts import build_json, build_text
    from enginebench.builds.installed import installed_versions
    from enginebench.run.builds import parse_build

    build = parse_build(options.build)
    installed = installed_versions(build.launcher) if options.check else None
    print(_json(build_json(build, installed)) if options.json else build_text(build, installed), end="")


def _add_diff(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    diff = kinds.add_parser("diff", help="what differs between two builds, in words")
    diff.add_argument("old", metavar="OLD", help="a directory, or NAME=DIR[,…] as for --build")
    diff.add_argument("new", metavar="NEW", help="the same")
    diff.add_argument("--json", action="store_true", help="as one JSON object")
    diff.set_defaults(run=_diff)


def _diff(options: argparse.Namespace) -> None:
    from enginebench.builds.diff import diff_json, diff_text
    from enginebench.run.builds import parse_build

    old, new = parse_build(options.old), parse_build(options.new)
    print(_json(diff_json(old, new)) if options.json else diff_text(old, new), end="")


def _add_run(kinds: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = kinds.add_parser("run", help="build the TensorRT-LLM engines of a SPEC.yaml that are missing")
    run.add_argument("spec", type=Path, metavar="SPEC.yaml", help="what to build, see docs/builds.md")
    run.add_argument("--dry-run", action="store_true", help="print the commands, and run nothing")
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from enginebench.builds.builder import build_all, script
    from enginebench.builds.spec import read_spec
    from enginebench.measure.telemetry import Telemetry, peaks

    spec = read_spec(options.spec)
    if options.dry_run:
        print(script(spec), end="")
        return
    with Telemetry() as telemetry:

        def gpu_peak(since_ns: int) -> int | None:
            peak: int | None = peaks(telemetry.samples(since_ns))["gpu_peak_bytes"]
            return peak

        build_all(spec, gpu_peak, lambda line: print(line, flush=True))


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
