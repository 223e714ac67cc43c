"""``enginebench doctor`` on the command line."""

import argparse
import tempfile
from pathlib import Path


def add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``doctor``."""
    doctor = commands.add_parser("doctor", help="what this machine has, what drives a build, and what would not work")
    doctor.add_argument(
        "--build", metavar="NAME=DIR", help="hold its TensorRT-LLM to what is known, and run two tokens"
    )
    doctor.add_argument("--tokenizer", type=Path, metavar="DIR", help="its tokenizer, when the build holds none")
    doctor.add_argument(
        "--templates", type=Path, metavar="DIR", help="the all_models for its server (default: where images have them)"
    )
    doctor.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="MODEL.VARIABLE=VALUE",
        help="fill this variable of them with a value of your own; may be repeated",
    )
    doctor.add_argument("--trust-remote-code", action="store_true", help="let tokenizer and checkpoint run code")
    doctor.add_argument(
        "--bundle", type=Path, metavar="FILE", help="where the zip for a bug report goes (default: reports/doctor.zip)"
    )
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from enginebench.doctor import examine, write_bundle
    from enginebench.run.attached import OwnServer
    from enginebench.run.builds import build_from_option
    from enginebench.server.filling import read_overrides

    build = None
    if options.build:
        build = build_from_option(options.build, Path.cwd(), options.tokenizer, options.trust_remote_code)
    own = OwnServer(options.templates, read_overrides(options.set))
    own.check(build.kind if build else "reference")
    with tempfile.TemporaryDirectory(prefix="enginebench-doctor-") as scratch:
        report = examine(build, Path(scratch), own)
        print(report.text(), end="")
        if build or options.bundle:
            place = options.bundle or Path("reports") / "doctor.zip"
            write_bundle(report, Path(scratch), place)
            print(f"\nAttach {place} to a bug report: it holds this, the signatures and the log.")
    return 0 if report.works else 1
