"""A program called ``tritonserver`` for tests of how one is started: it records its arguments and serves canaries.

``write`` puts it into a directory that looks like ``/opt/tritonserver``. What it does is told by ``behaviour.json``
beside its records: ``log`` is written first, ``exit`` ends it with that code, in the first ``starts`` alone if that is
given, ``silent`` keeps it from listening.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORDS = "FAKE_TRITON_RECORDS"

CONFIG = {"input": [{"name": "text_input"}, {"name": "max_tokens"}, {"name": "stream", "optional": True}]}


def write(directory: Path, *backends: str) -> Path:
    """Install it under ``directory``; return the program."""
    program = directory / "bin" / "tritonserver"
    program.parent.mkdir(parents=True)
    head = f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    program.write_text(f"{head}from tests.support.fake_tritonserver import main\nmain()\n")
    program.chmod(0o755)
    for backend in backends:
        (directory / "backends" / backend).mkdir(parents=True)
    return program


def arguments_of(records: Path) -> list[list[str]]:
    """The arguments of every process so far, rank by rank."""
    found = [json.loads(file.read_text()) for file in records.glob("argv-*.json")]
    return [one["argv"] for one in sorted(found, key=lambda one: int(one["rank"] or 0))]


def option(arguments: list[str], name: str) -> str:
    """The value of ``--name=…``."""
    return next(one for one in arguments if one.startswith(f"--{name}=")).partition("=")[2]


def main() -> None:
    """Write the log, record, then behave."""
    records = Path(os.environ[RECORDS])
    rank = os.environ.get("PMI_RANK") or os.environ.get("OMPI_COMM_WORLD_RANK")
    file = records / "behaviour.json"
    behaviour = json.loads(file.read_text()) if file.exists() else {}
    print(behaviour.get("log", f"rank {rank} is up"), flush=True)  # before the record, for which tests wait
    record = {"argv": sys.argv[1:], "rank": rank, "pid": os.getpid()}
    aside = records / f"{os.getpid()}.aside"
    aside.write_text(json.dumps(record))
    aside.rename(records / f"argv-{os.getpid()}.json")
    starts = len(list(records.glob("argv-*.json")))
    if "exit" in behaviour and starts <= behaviour.get("starts", starts):
        sys.exit(behaviour["exit"])
    if behaviour.get("silent") or "--model-control-mode=explicit" in sys.argv:
        time.sleep(600)  # as the ranks that follow: they never get as far as listening
    _serve(option(sys.argv, "id"), int(option(sys.argv, "http-port")))


def _serve(name: str, port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers: dict[str, Any] = {"/v2": {"name": name}, "/v2/models/ensemble/config": CONFIG}
            self._answer(json.dumps(answers.get(self.path, {})).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(b'data: {"text_output": "a"}\n\n' * 4)

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

        protocol_version = "HTTP/1.1"

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
