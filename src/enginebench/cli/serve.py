"""``enginebench serve``: parses arguments, calls one function."""

import argparse
from pathlib import Path


def add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    serve = commands.add_parser(
        "serve", help="serve a build with Triton until Ctrl-C, for --triton-url or a client of yours"
    )
    serve.add_argument("--build", metavar="NAME=DIR", help="the build to serve (default: the default reference build)")
    serve.add_argument("--port", type=int, metavar="N", help="HTTP port on 127.0.0.1 (default: a free one)")
    serve.add_argument(
        "--bls-instances",
        type=_positive,
        default=8,
        metavar="N",
        help="requests that BLS serves at a time (default: 8)",
    )
    serve.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="the build's Hugging Face tokenizer (default: its own, if any)"
    )
    serve.add_argument(
        "--trust-remote-code", action="store_true", help="let the tokenizer run the Python that its directory brings"
    )
    serve.add_argument(
        "--templates",
        type=Path,
        metavar="DIR",
        help="for a TensorRT-LLM build: a checkout of tensorrtllm_backend or TensorRT-LLM, or its all_models "
        "(default: where images have them)",
    )
    serve.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="MODEL.VARIABLE=VALUE",
        help="fill this variable of the templates with a value of your own; may be repeated",
    )
    serve.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="kv_cache_tokens, kv_cache_fraction, scheduler_policy or chunked_context=on; may be repeated",
    )
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> None:
    from enginebench.run.attached import OwnServer
    from enginebench.run.builds import build_from_option
    from enginebench.run.direct import read_settings
    from enginebench.run.serve import serve
    from enginebench.server.filling import read_overrides

    build = build_from_option(options.build, Path.cwd(), options.tokenizer, options.trust_remote_code)
    own = OwnServer(options.templates, read_overrides(options.set))
    own.check(build.kind)
    serve(build, options.port, options.bls_instances, own, read_settings(options.engine, build))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)
