"""Every command with its arguments. Those with a few arguments of their own are here, the others have a module each."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from enginebench import __version__
from enginebench.cli.ab import add_ab
from enginebench.cli.baseline import add_baseline
from enginebench.cli.build import add_build
from enginebench.cli.compare import add_compare
from enginebench.cli.doctor import add_doctor
from enginebench.cli.export import add_export
from enginebench.cli.noise import add_noise
from enginebench.cli.report import add_report
from enginebench.cli.serve import add_serve
from enginebench.cli.show import add_show
from enginebench.cli.trace import add_trace
from enginebench.cli.trend import add_trend

_MOST = 10**9
"""Of whatever is given as a number: more is a slip."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(prog="enginebench", description="A test bench for TensorRT-LLM engine builds.")
    whole.add_argument("--version", action="version", version=f"enginebench {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    add_build(commands)
    add_ab(commands)
    add_compare(commands)
    add_baseline(commands)
    add_noise(commands)
    add_trend(commands)
    add_doctor(commands)
    add_serve(commands)
    add_report(commands)
    add_show(commands)
    add_export(commands)
    add_trace(commands)
    _add_calibrate(commands)
    _add_selftest(commands)
    _add_schema(commands)
    return whole


def _add_calibrate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    calibrate = commands.add_parser(
        "calibrate",
        help="measure the client's own error against known truth, at a load of your choice",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    calibrate.add_argument("--streams", type=_positive(int), default=16, metavar="N", help="requests in flight")
    calibrate.add_argument("--rate", type=_positive(float), default=200.0, metavar="N", help="tokens/s of each stream")
    calibrate.add_argument("--tokens", type=_positive(int), default=64, metavar="N", help="tokens of an answer")
    calibrate.add_argument("--ttft-ms", type=_positive(float), default=20.0, metavar="MS", help="TTFT of the truth")
    calibrate.add_argument("--seconds", type=_positive(float), default=5.0, metavar="S", help="about how long")
    calibrate.add_argument("--batch", action="store_true", help="all streams start at once, instead of one by one")
    calibrate.add_argument("--together", action="store_true", help="tokens of all streams leave at once")
    calibrate.add_argument(
        "--in-process", action="store_true", help="calibrate the direct path instead of the server's"
    )
    out = Path("reports") / "calibration.json"
    calibrate.add_argument("--out", type=Path, default=out, metavar="FILE", help="where the figures are kept")
    calibrate.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> None:
    from enginebench.measure.calibrator import point_of
    from enginebench.run.calibrate import calibrate

    point = point_of(
        options.streams,
        options.rate,
        options.ttft_ms / 1e3,
        options.tokens,
        options.seconds,
        kind="batch" if options.batch else "concurrency",
        together=options.together,
        runtime="null" if options.in_process else "triton_http",
    )
    print(calibrate(point, options.out, width=100, colour=sys.stdout.isatty()), end="")


def _add_selftest(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    selftest = commands.add_parser("selftest", help="measure what enginebench itself is able to do on this machine")
    parts = selftest.add_subparsers(required=True, metavar="PART")
    client = parts.add_parser(
        "client",
        help="the load generator: errors against known truth, speed, cost; prints a table",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    client.add_argument("--row", action="append", default=[], metavar="NAME", help="this row only; may be repeated")
    client.add_argument("--seconds", type=_positive(float), default=6.0, metavar="S", help="about, a measurement")
    client.add_argument(
        "--repeats", type=_positive(int), default=3, metavar="N", help="measurements; the median counts"
    )
    client.add_argument("--out", type=Path, metavar="FILE", help="keep the figures as JSON")
    client.set_defaults(run=_selftest_client)
    gate = parts.add_parser(
        "gate",
        help="the comparison of builds: how often its verdicts are wrong, by simulation; prints a table",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    gate.add_argument("--repeats", type=_positive(int), default=10_000, metavar="N", help="measurements a row")
    gate.add_argument("--seed", type=int, default=1, metavar="N", help="the same seed gives the same table")
    gate.set_defaults(run=_selftest_gate)


def _selftest_client(options: argparse.Namespace) -> None:
    from enginebench.run.calibrate import selftest
    from enginebench.run.selftest import Effort

    effort = Effort(options.seconds, options.repeats)
    selftest(options.row, effort, options.out, lambda text: print(text, flush=True))


def _selftest_gate(options: argparse.Namespace) -> int:
    from enginebench.run.selftest_gate import selftest_gate

    return 0 if selftest_gate(options.repeats, options.seed, lambda text: print(text, flush=True)) else 1


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value <= _MOST:  # nor what is not a number
            raise argparse.ArgumentTypeError(f"{text} is no number above 0, or more than {_MOST:,}")
        return value

    return number


def _add_schema(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    schema = commands.add_parser("schema", help="the JSON schema of scenario files, for editors")
    schema.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: print it)")
    schema.set_defaults(run=_schema)


def _schema(options: argparse.Namespace) -> None:
    from enginebench.files import write_text
    from enginebench.plan.scenario import schema

    text = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if options.out is None:
        print(text, end="")
    else:
        write_text(options.out, text)
