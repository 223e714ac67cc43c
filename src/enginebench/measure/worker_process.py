"""A worker as the harness sees it: a child process that owns an engine, and that may die without harm to the harness.

Speaks ``protocol`` over the child's standard input and output; what the child prints goes to a log file, whose last
lines explain its death. Runs in a process group of its own, which ends with it, and when the harness does.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import enginebench
from enginebench.errors import LoadError, WorkerError
from enginebench.measure.driver import OnProgress
from enginebench.measure.protocol import (
    PROTOCOL_VERSION,
    Message,
    read_message,
    requests_to_json,
    to_error,
    write_message,
)
from enginebench.measure.records import RoundRecord, from_frames
from enginebench.measure.world import Meeting, Pipes, World, Wrapper, command
from enginebench.plan.load import Load, load_to_json
from enginebench.plan.requests import Request

START_TIMEOUT_S = 60.0
OPEN_TIMEOUT_S = 900.0  # engines of some hundred GiB come from a network file system
ANSWER_TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 30.0
EXIT_TIMEOUT_S = 5.0
WRAPPER_EXIT_S = 15.0  # when its worker was killed
PROFILE_TIMEOUT_S = 600.0  # traces of a long round take minutes to be written

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Threads of a BLAS library would fight with the engine's own for the cores."""

# The build's interpreter need not have enginebench, and must not see the harness's other packages (its numpy is built
# for another Python): so no PYTHONPATH, but this one package, from where it lies.
PACKAGE_BOOTSTRAP = """\
import importlib.util, sys
sys.path[:] = [entry for entry in sys.path if entry]
place = sys.argv[1]
spec = importlib.util.spec_from_file_location("enginebench", place + "/__init__.py", submodule_search_locations=[place])
sys.modules["enginebench"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
"""
_BOOTSTRAP = f"{PACKAGE_BOOTSTRAP}from enginebench.worker import main\nmain()\n"


class Worker:
    """One worker process. Used by one thread; any method may raise WorkerError when the process died or went silent."""

    def __init__(self, process: "subprocess.Popen[bytes]", log_path: Path, pipes: Pipes, *, ending_s: float = 0.0):
        self._process = process
        self._answers, self._commands = pipes
        self._log_path = log_path
        self._killed = False
        self._ending_s = ending_s  # of a wrapper
        self.facts: Mapping[str, Any] = {}
        self.observed: Mapping[str, Any] = {}  # by the engine itself, of the round that was fetched last

    @classmethod
    def start(
        cls,
        python: str | Sequence[str] | None,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        world: World | None = None,
        wrapper: Wrapper | None = None,
    ) -> "Worker":
        """Start a worker under an interpreter.

        Args:
            python: the interpreter, or the command that starts it (in a container); None: the harness's own.
            log_path: where its standard error goes.
            env: variables beside those of the harness.
            world: the ranks that the engine needs, when they must be started together; rank 0 is the worker.
            wrapper: the program that runs the interpreter.
        """
        launcher = [python or sys.executable] if python is None or isinstance(python, str) else list(python)
        place = str(Path(enginebench.__file__).parent)
        line = [*command(launcher, world, wrapper), "-c", _BOOTSTRAP, place, "enginebench-worker"]
        in_main_thread = threading.current_thread() is threading.main_thread()  # the kernel means the thread
        if in_main_thread and wrapper is None:  # whose threads may come and go
            line.append("--die-with-parent")
        meeting = Meeting() if world or wrapper else None  # a wrapper writes to standard output, too
        told = meeting.environment(world) if meeting else {}
        process = _spawn(line, log_path, {**(env or {}), **(wrapper.env if wrapper else {}), **told}, meeting)
        pipes = meeting.accept(lambda: process.poll() is None, START_TIMEOUT_S) if meeting else _pipes(process)
        worker = cls(process, log_path, pipes, ending_s=wrapper.ending_s if wrapper else 0.0)
        worker._greet()
        return worker

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._process.pid

    def check_alive(self) -> None:
        """Raise WorkerError when the process has ended."""
        if self._process.poll() is not None:
            raise self._death()

    def open(self, runtime: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Open a session; return its facts. Raises SessionError when the runtime refuses, LoadError when it fails."""
        try:
            answer = self._ask("open", {"runtime": runtime, "options": options}, "opened", OPEN_TIMEOUT_S)
        except LoadError as error:
            raise LoadError(f"{str(error).rstrip('.')}{self._last_words(before='Traceback (most')}") from error
        self.facts = answer.body["facts"]
        return self.facts

    def prepare(
        self,
        requests: Sequence[Request],
        *,
        load: Load,
        round_index: int,
        warmup: bool,
        stall_timeout_s: float,
        block: int = 0,
    ) -> None:
        """Hand over the requests of the next round, once nothing of the last one is running any more."""
        body = {
            "requests": requests_to_json(requests),
            "load": load_to_json(load),
            "round_index": round_index,
            "warmup": warmup,
            "block": block,
            "stall_timeout_s": stall_timeout_s,
        }
        self._ask("prepare", body, "prepared", ANSWER_TIMEOUT_S)

    def run(self, on_progress: OnProgress | None = None, start_at_ns: int | None = None) -> Mapping[str, Any]:
        """Drive the prepared round to its end; return ``makespan_s``, ``arrivals`` and ``given_up``.

        ``start_at_ns``: when it starts (CLOCK_MONOTONIC), for rounds of several workers that start together.
        ``on_progress`` takes the tokens so far and the requests that ended, about four times a second.
        """
        self._send("run", {"start_at_ns": start_at_ns})
        while (answer := self._receive(ANSWER_TIMEOUT_S)).op == "progress":
            if on_progress is not None:
                on_progress(answer.body["tokens"], answer.body["ended"])
        return self._expect(answer, "done").body

    def profile(self, kind: str, directory: Path) -> str | None:
        """Have the next round profiled into ``directory``, see ``profilers``; why that cannot be, or None."""
        answer = self._ask("profile", {"kind": kind, "directory": str(directory)}, "profiling", ANSWER_TIMEOUT_S)
        reason: str | None = answer.body["reason"]
        return reason

    def profiled(self) -> Mapping[str, Any]:
        """What was kept of the round that was profiled last: ``files``, ``notes`` and facts of the kind."""
        return self._ask("profiled", {}, "profile", PROFILE_TIMEOUT_S).body

    def fetch(self) -> RoundRecord:
        """The record of the round that was run last; once.

        What the engine itself recorded meanwhile is appended to ``*.engine.jsonl`` beside the log: a line a round.
        """
        answer = self._ask("fetch", {}, "record", ANSWER_TIMEOUT_S)
        *blobs, observed = answer.blobs
        record = from_frames(answer.body, blobs)
        self.observed = json.loads(observed)
        self._keep(record, self.observed)
        return record

    def close(self) -> None:
        """Close the session and end the process, by force when it does not want to. May be called twice."""
        if self._process.poll() is None:
            with suppress(WorkerError, subprocess.TimeoutExpired):
                self._ask("close", {}, "closed", CLOSE_TIMEOUT_S)
                self._process.wait(EXIT_TIMEOUT_S + self._ending_s)
        self.kill()

    def kill(self) -> None:
        """End the process and its group at once. May be called twice."""
        if self._killed:
            return
        self._killed = True
        try:
            self._let_wrapper_end()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # the group outlives its leader while any child of it lives
            self._process.wait()
            self._hang_up()

    def _let_wrapper_end(self) -> None:
        """Nsight Systems runs the worker, and an agent, in groups of their own: it ends both once the worker dies."""
        if self._ending_s:
            self._hang_up()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(WRAPPER_EXIT_S)

    def _hang_up(self) -> None:
        """Close what leads to the worker, which ends then."""
        for pipe in (self._answers, self._commands, self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _keep(self, record: RoundRecord, observed: Mapping[str, Any]) -> None:
        """Stamps say which round it is: those of a run never overlap."""
        if not any(observed.values()):
            return
        line = {"started_ns": record.started_ns, "ended_ns": record.ended_ns, "warmup": record.warmup, **observed}
        try:
            with self._log_path.with_suffix(".engine.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise WorkerError(f"What the engine recorded cannot be kept ({error}): free some space.") from error

    def _greet(self) -> None:
        try:
            hello = self._expect(self._receive(START_TIMEOUT_S), "hello")
            if hello.body["protocol"] != PROTOCOL_VERSION:
                raise WorkerError(
                    f"The worker speaks protocol {hello.body['protocol']}, and the harness {PROTOCOL_VERSION}."
                )
        except BaseException:
            self.kill()
            raise

    def _ask(self, op: str, body: Mapping[str, Any], answer: str, timeout_s: float) -> Message:
        self._send(op, body)
        return self._expect(self._receive(timeout_s), answer)

    def _send(self, op: str, body: Mapping[str, Any]) -> None:
        try:
            write_message(self._write, op, body)
        except (OSError, ValueError) as error:  # a broken or a closed pipe
            raise self._death() from error

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._commands.write(view) :]
        self._commands.flush()

    def _receive(self, timeout_s: float) -> Message:
        deadline_s = time.monotonic() + timeout_s
        try:
            message = read_message(lambda size: self._read(size, deadline_s, timeout_s))
        except ValueError as error:
            raise self._death() from error
        if message is None:
            raise self._death()
        return message

    def _read(self, size: int, deadline_s: float, timeout_s: float) -> bytes:
        """``size`` bytes, or fewer when the process ended."""
        pipe, parts, missing = self._answers.fileno(), [], size
        while missing:
            if not select.select([pipe], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
                self.kill()  # a late answer would be taken for the next one
                raise WorkerError(f"The worker said nothing for {timeout_s:g} s and was ended{self._last_words()}")
            part = os.read(pipe, missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _expect(self, message: Message, op: str) -> Message:
        if message.op == "error":
            raise to_error(message.body)
        if message.op != op:
            raise WorkerError(f"The worker answered {message.op!r} where {op!r} was due; its log is {self._log_path}.")
        return message

    def _death(self) -> WorkerError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)  # its pipe is closed, so that it is about to end
        status = self._process.returncode
        how = "ended" if status is None else _ending(status)
        return WorkerError(f"The worker {how}{self._last_words()}")

    def _last_words(self, lines: int = 5, before: str | None = None) -> str:
        """What the process printed last; last ``before`` a text, where that is there."""
        try:
            text = self._log_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        text = text.partition(before)[0] if before else text
        last = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
        said = f"it said last: {' | '.join(last)}" if last else "it said nothing"
        return f" (log {self._log_path}); {said}."


def _spawn(
    line: Sequence[str], log_path: Path, env: Mapping[str, str], meeting: Meeting | None
) -> "subprocess.Popen[bytes]":
    log_path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log_path.open("wb") as log:
            return subprocess.Popen(
                line,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=log if meeting else subprocess.PIPE,
                stderr=log,
                env={**os.environ, **ONE_THREAD, **env},
                start_new_session=True,
            )
    except OSError as error:
        if meeting:
            meeting.close()
        raise WorkerError(
            f"The interpreter {line[0]} cannot be started ({error.strerror}): name one that can."
        ) from error


def _pipes(process: "subprocess.Popen[bytes]") -> Pipes:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdout, process.stdin  # type: ignore[return-value]  # typeshed knows them as IO[bytes]


def _ending(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
