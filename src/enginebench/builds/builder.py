"""Run the commands of a spec: what is missing is built, what is there is kept, and a record lies beside each engine.

Checkpoints and engines are written aside and renamed, so that each is there whole or not at all. Which options make
sense is left to TensorRT-LLM.
"""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from enginebench.builds.build import read_build
from enginebench.builds.installed import installed_versions
from enginebench.builds.spec import Engine, Spec, build_command, convert_command, partial
from enginebench.clock import now_ns
from enginebench.errors import BuildError

RECORD = "enginebench-build.json"
LOG = "enginebench-build.log"
SCHEMA = "enginebench/build-record/1"
TERMINATE_S = 10.0

_LOG_LINES = 5

GpuPeak = Callable[[int], "int | None"]
"""Most GPU memory in use since a monotonic stamp in nanoseconds, bytes over all GPUs; None without a GPU."""


def script(spec: Spec) -> str:
    """The commands as a shell script: what ``build_all`` would run now. Raises BuildError as it does."""
    lines, planned = [], set[Path]()
    for engine in spec.engines:
        if is_built(spec, engine):
            lines.append(f"# {engine.name}: there already ({spec.directory(engine)})")
            continue
        lines.append(f"# {engine.name}")
        checkpoint = spec.checkpoint(engine)
        if checkpoint is not None and checkpoint not in planned and not (checkpoint / RECORD).is_file():
            planned.add(checkpoint)
            lines += _and_move(convert_command(spec, engine, partial(checkpoint)), checkpoint)
        lines += _and_move(build_command(spec, engine, partial(spec.directory(engine))), spec.directory(engine))
    return "\n".join(lines) + "\n"


def build_all(spec: Spec, gpu_peak: GpuPeak, say: Callable[[str], None]) -> None:
    """Build every engine of ``spec`` that is missing, one after the other.

    An engine that fails leaves its log and does not keep the others from being built.

    Raises:
        BuildError: a directory holds something else, another run is at work there, or engines failed.
    """
    with _alone(spec.out):
        missing = [engine for engine in spec.engines if not is_built(spec, engine)]
        for engine in spec.engines:
            if engine not in missing:
                say(f"{engine.name}: there already ({spec.directory(engine)})")
        run = _Run(spec, installed_versions(spec.launcher) if missing else {}, gpu_peak, say)
        failed = [reason for engine in missing if (reason := run.attempt(engine))]
    if failed:
        raise BuildError(" ".join(failed))


def is_built(spec: Spec, engine: Engine) -> bool:
    """Whether exactly this engine lies there already. Raises BuildError when something else does."""
    directory = spec.directory(engine)
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    if _read_record(directory).get("request") == spec.request(engine):
        return True
    raise BuildError(
        f"{directory} holds something other than the engine {engine.name} of {spec.file}, and is never overwritten: "
        "rename it, delete it, or give the engine another name."
    )


class _Run:
    """What building several engines shares."""

    def __init__(self, spec: Spec, versions: Mapping[str, str], gpu_peak: GpuPeak, say: Callable[[str], None]):
        self._spec = spec
        self._versions = versions
        self._gpu_peak = gpu_peak
        self._say = say
        self._broken: set[Path] = set()  # checkpoints whose conversion failed, in this run

    def attempt(self, engine: Engine) -> str | None:
        """Build ``engine``; return what went wrong, or None."""
        try:
            self.build(engine)
        except BuildError as error:
            self._say(f"{engine.name}: failed")
            return f"{engine.name}: {error}"
        return None

    def build(self, engine: Engine) -> None:
        """Convert where nobody has, then build; the engine is in its place when this returns."""
        spec, directory = self._spec, self._spec.directory(engine)
        converted = self._converted(engine)
        aside = _fresh(partial(directory))
        done = self._command(build_command(spec, engine, aside), engine.name, aside)
        built = read_build(engine.name, aside)
        record = {
            **self._record(engine.name, spec.request(engine), [*converted, done]),
            "tensorrt_llm": built.version,
            "fingerprint": built.fingerprint,
            "engine_bytes": built.engine_bytes,
            "rank_bytes": list(built.rank_bytes),
        }
        _finish(aside, directory, record)
        self._say(f"{engine.name}: {directory}, {built.engine_bytes / 2**30:.2f} GiB, {done['wall_s']:.0f} s")

    def _converted(self, engine: Engine) -> list[dict[str, Any]]:
        """The commands that made the engine's checkpoint, run now or by an earlier one."""
        checkpoint = self._spec.checkpoint(engine)
        if checkpoint is None:
            return []
        if checkpoint in self._broken:
            raise BuildError("the conversion that it shares with another engine failed, see there.")
        if not (checkpoint / RECORD).is_file():
            self._broken.add(checkpoint)
            self._convert(engine, checkpoint)
            self._broken.remove(checkpoint)
        commands: list[dict[str, Any]] = _read_record(checkpoint).get("commands", [])
        return commands

    def _convert(self, engine: Engine, checkpoint: Path) -> None:
        if checkpoint.exists():
            raise BuildError(f"{checkpoint} holds something that is no record of ours: delete or rename it.")
        aside = _fresh(partial(checkpoint))
        done = self._command(convert_command(self._spec, engine, aside), f"{engine.name} (convert)", aside)
        if not (aside / "config.json").is_file():
            raise BuildError(f"the conversion left no config.json in {aside}: read {aside / LOG}.")
        _finish(aside, checkpoint, self._record(checkpoint.name, {"convert": dict(engine.convert)}, [done]))

    def _record(self, name: str, request: Mapping[str, Any], commands: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": name,
            "spec": str(self._spec.file.absolute()),
            "request": dict(request),
            "versions": dict(self._versions),
            "commands": list(commands),
        }

    def _command(self, command: Sequence[str], what: str, directory: Path) -> dict[str, Any]:
        """Run one command with its output in the log of ``directory``; return its record. Raises BuildError."""
        log = directory / LOG
        self._say(f"{what}: {shlex.join(command)}\n  log {log}")
        started, started_ns = datetime.now(timezone.utc), now_ns()
        code = _run(command, log)
        if code != 0:
            words = " | ".join(log.read_text("utf-8", "replace").strip().splitlines()[-_LOG_LINES:])
            raise BuildError(f"{command[0]} ended with exit code {code} ({words}): read {log}.")
        return {
            "argv": list(command),
            "started": started.isoformat(timespec="seconds"),
            "wall_s": (now_ns() - started_ns) / 1e9,
            "gpu_peak_bytes": self._gpu_peak(started_ns),
        }


def _run(command: Sequence[str], log: Path) -> int:
    with log.open("ab") as stream:
        stream.write(f"$ {shlex.join(command)}\n".encode())
        stream.flush()
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            raise BuildError(f"{command[0]} cannot be started ({error.strerror}): is it installed here?") from error
        try:
            return process.wait()
        except BaseException:  # Ctrl-C reaches us alone: the command has a session of its own
            _end_group(process)
            raise


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)  # docker passes it on to the container
    try:
        process.wait(TERMINATE_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".enginebench-build.lock").open("w")
    except OSError as error:
        raise BuildError(f"{out} cannot be written to ({error.strerror}): choose another out.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BuildError(f"Another `enginebench build run` is at work in {out}: wait for it.") from None
        yield


def _fresh(aside: Path) -> Path:
    """An empty directory to write to; what a run that was cut off left there is no engine, and goes."""
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as error:  # files of a container's root, most likely
        raise BuildError(f"{aside} is left over and cannot be deleted ({error.strerror}): delete it.") from error
    return aside


def _finish(aside: Path, directory: Path, record: Mapping[str, Any]) -> None:
    (aside / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.rename(directory)


def _read_record(directory: Path) -> Mapping[str, Any]:
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _and_move(command: Sequence[str], directory: Path) -> list[str]:
    return [shlex.join(command), shlex.join(["mv", str(partial(directory)), str(directory)])]
