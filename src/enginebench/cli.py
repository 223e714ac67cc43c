"""The ``enginebench`` command: everything that is not measuring under pytest.

Parses arguments, calls one function, prints what it says. An error that the user can act on is one sentence and
exit code 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from enginebench import __version__
from enginebench.build_cli import add_build
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
    add_build(commands)
    _add_serve(commands)
    _add_report(commands)
    _add_schema(commands)
    return parser


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
