#!/usr/bin/env python3
"""Stands for Nsight Systems, as 2022.4.2 and 2023.4.4 were seen: its options, words, exit codes and what it leaves.

It takes what both took, and refuses the rest. What it runs gets a session of its own; there is no report unless that
opened the capture range (the file in ``FAKE_NSYS_RANGE``, see fake_cuda). ``FAKE_NSYS_BROKEN=importer``: the report
cannot be made; ``export``: it cannot be read.
"""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

BOOLEAN = ("true", "false")
TRACED = {
    "trace": ("cuda", "nvtx", "osrt", "cublas", "cudnn", "mpi", "none"),
    "cuda-graph-trace": ("graph", "node"),
    "trace-fork-before-exec": BOOLEAN,
}
COLLECTED = {
    "output": (),
    "force-overwrite": BOOLEAN,
    "sample": ("process-tree", "system-wide", "none"),
    "cpuctxsw": ("process-tree", "system-wide", "none"),
    "capture-range": ("none", "cudaProfilerApi", "nvtx", "hotkey"),
    "capture-range-end": ("none", "stop", "stop-shutdown", "repeat"),
}
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "profile": {**TRACED, **COLLECTED, "session-new": ()},
    "launch": {**TRACED, "session-new": (), "session": ()},
    "start": {**COLLECTED, "session-new": (), "session": ()},
    "stop": {"session": ()},
    "export": {"type": ("sqlite", "hdf", "text", "arrow", "json", "info"), "output": (), "force-overwrite": BOOLEAN,
               "lazy": BOOLEAN, "quiet": BOOLEAN, "separate-strings": BOOLEAN},
}  # fmt: skip
USAGE = "\n\nusage: nsys {verb} [<args>]\nTry 'nsys {verb} --help' for more information."
NO_IMPORTER = (
    "Importer error status: The importer binary and its dependencies were not found.\n"
    "Unable to retrieve the importer version: skipping importation of the QDSTRM file."
)

STRINGS = {
    1: "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64",
    2: "void mmha::masked_multihead_attention_kernel<(int)128>(Params)",
    3: "void generalRmsNorm<__half>(const T1 *, const T1 *)",
    4: "request 0: decode",
}
KERNELS = ((1_000_000, 4_000_000, 1), (4_040_000, 7_000_000, 1), (7_020_000, 9_000_000, 2), (10_000_000, 11_000_000, 3))
COPIES = ((11_000_000, 11_500_000, 1),)
FILLS = ((11_500_000, 11_600_000),)
RANGES = (
    (500_000, 12_500_000, 59, "enginebench round", None),
    (600_000, 6_000_000, 60, "request 0: to the first token", None),
    (6_000_000, 12_000_000, 60, None, 4),  # as the nvtx package does: a registered string
    (100_000, None, 75, "a domain", None),
)
SCHEMA = """
CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE ENUM_CUDA_MEMCPY_OPER (id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER NOT NULL, end INTEGER NOT NULL, demangledName INTEGER NOT NULL);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER NOT NULL, end INTEGER NOT NULL, copyKind INTEGER NOT NULL);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMSET (start INTEGER NOT NULL, end INTEGER NOT NULL);
CREATE TABLE NVTX_EVENTS (start INTEGER NOT NULL, end INTEGER, eventType INTEGER NOT NULL, text TEXT, textId INTEGER);
"""
BROKEN = os.environ.get("FAKE_NSYS_BROKEN")


def main() -> int:
    verb, *arguments = sys.argv[1:]
    first = next((at for at, each in enumerate(arguments) if not each.startswith("--")), len(arguments))
    options = dict(flag.removeprefix("--").partition("=")[::2] for flag in arguments[:first])
    if complaint := why_refused(verb, options):
        print(complaint + USAGE.format(verb=verb), file=sys.stderr)
        return 1
    return VERBS[verb](options, arguments[first:])


def why_refused(verb: str, options: dict[str, str]) -> str | None:
    """What nsys says first of a command line that it does not take."""
    for name, value in options.items():
        if name not in OPTIONS[verb]:
            return f"unrecognised option '--{name}={value}'"
        allowed = OPTIONS[verb][name]
        if wrong := [each for each in value.split(",") if allowed and each not in allowed]:
            return f"Illegal --{name} argument '{wrong[0]}'"
    if "capture-range-end" in options and options.get("capture-range", "none") == "none":
        return "The --capture-range-end option is only allowed when --capture-range option-argument is not 'none'."
    return None


def profile(options: dict[str, str], inner: list[str]) -> int:
    opened = Path(f"{options['output']}.opened")
    code = run(inner, {"FAKE_NSYS_RANGE": str(opened)})
    if opened.exists() or options.get("capture-range", "none") == "none":
        opened.unlink(missing_ok=True)
        write(options["output"], inner)
    else:
        print("Generated:", flush=True)  # and nothing
    return code


def launch(_options: dict[str, str], inner: list[str]) -> int:
    return run(inner, {})


def start(options: dict[str, str], _: list[str]) -> int:
    session(options).write_text(options["output"])
    return 0


def stop(options: dict[str, str], _: list[str]) -> int:
    if session(options).exists():  # of a session that is not there, nsys says nothing
        write(session(options).read_text(), ["stopped"])
    return 0


def export(options: dict[str, str], inner: list[str]) -> int:
    if BROKEN == "export" or not Path(inner[0]).is_file():
        print("Exportation error: Cannot read from stream.", file=sys.stderr)
        return 1
    write_export(Path(options["output"]))
    return 0


def session(options: dict[str, str]) -> Path:
    return Path(sys.argv[0]).parent / options["session"]


def run(inner: list[str], env: dict[str, str]) -> int:
    return subprocess.run(inner, env={**os.environ, **env}, start_new_session=True, check=False).returncode


def write(output: str, inner: list[str]) -> None:
    kind = "qdstrm" if BROKEN == "importer" else "nsys-rep"
    Path(f"{output}.{kind}").write_text(json.dumps({"argv": sys.argv, "ran": inner}))
    print(f"Generating '/tmp/nsys-report-0000.qdstrm'\nGenerated:\n    {output}.{kind}", flush=True)  # standard output
    if BROKEN == "importer":
        print(NO_IMPORTER, file=sys.stderr)


def write_export(path: Path) -> None:
    """What ``nsys export --type=sqlite`` leaves, of its columns those that are read."""
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(SCHEMA)
        database.executemany("INSERT INTO StringIds VALUES (?, ?)", STRINGS.items())
        database.execute("INSERT INTO ENUM_CUDA_MEMCPY_OPER VALUES (1, 'CUDA_MEMCPY_KIND_HTOD', 'Host-to-Device')")
        database.executemany("INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (?, ?, ?)", KERNELS)
        database.executemany("INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY VALUES (?, ?, ?)", COPIES)
        database.executemany("INSERT INTO CUPTI_ACTIVITY_KIND_MEMSET VALUES (?, ?)", FILLS)
        database.executemany("INSERT INTO NVTX_EVENTS VALUES (?, ?, ?, ?, ?)", RANGES)


VERBS = {"profile": profile, "launch": launch, "start": start, "stop": stop, "export": export}

if __name__ == "__main__":
    sys.exit(main())
