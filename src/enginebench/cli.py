"""The ``enginebench`` command: everything that is not measuring under pytest.

Parses arguments, calls one function, prints what it says. An error that the user can act on is one sentence and
exit code 1.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from enginebench import __version__
from enginebench.errors import EnginebenchError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (default: those of the process) and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except EnginebenchError as error:
        print(f"enginebench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="enginebench", description="A test bench for TensorRT-LLM engine builds.")
    parser.add_argument("--version", action="version", version=f"enginebench {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_build(commands)
    _add_serve(commands)
    _add_report(commands)
    _add_schema(commands)
    return parser


def _add_build(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from enginebench.reference.options import ReferenceOptions

    build = commands.add_parser("build", help="write an engine build")
    kinds = build.add_subparsers(required=True, metavar="KIND")
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


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = commands.add_parser(
        "serve", help="serve a build with Triton until Ctrl-C, for --triton-url or a client of yours"
    )
    serve.add_argument("--build", metavar="NAME=DIR", help="the build to serve (default: the default reference build)")
    serve.add_argument("--port", type=int, metavar="N", help="HTTP port on 127.0.0.1 (default: a free one)")
    serve.add_argument(
        "--bls-instances", type=int, default=8, metavar="N", help="requests that BLS serves at a time (default: 8)"
    )
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    from enginebench.run.builds import build_from_option
    from enginebench.run.serve import serve

    serve(build_from_option(options.build, Path.cwd()), http_port=options.port, bls_instances=options.bls_instances)


def _add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    report = commands.add_parser("report", help="write the page of a stored run again")
    report.add_argument("run_dir", type=Path, metavar="RUN", help="a directory under reports/runs")
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    from enginebench.report.page import write_report
    from enginebench.report.terminal import summary_text

    write_report(options.run_dir)
    print(summary_text(options.run_dir, width=100, colour=sys.stdout.isatty()), end="")


def _add_schema(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    schema = commands.add_parser("schema", help="the JSON schema of scenario files, for editors")
    schema.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: print it)")
    schema.set_defaults(run=_schema)


def _schema(options: argparse.Namespace) -> None:
    from enginebench.plan.scenario import schema

    text = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
