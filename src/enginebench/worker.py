"""The worker: ``python -m enginebench.worker``. Owns a session, drives rounds with it, and sends their records back.

Runs under the build's own interpreter, so it imports the standard library, numpy and the runtime that it is asked for.
Speaks ``measure.protocol`` on what were its standard input and output; whatever a library prints goes to standard
error. It ends when its input does, so that nothing of it outlives the harness.
"""

import ctypes
import gc
import json
import os
import platform
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from enginebench.errors import SessionError, WorkerError
from enginebench.measure.driver import RawRound, record, run_round
from enginebench.measure.protocol import (
    PROTOCOL_VERSION,
    error_body,
    read_message,
    requests_from_json,
    write_message,
)
from enginebench.measure.records import to_frames
from enginebench.measure.world import FOLLOW, SOCKET, connect, rank
from enginebench.plan.load import load_from_json
from enginebench.runtimes.base import Session
from enginebench.runtimes.open import open_session

if TYPE_CHECKING:
    from enginebench.measure.profilers import Profiler

DRAIN_TIMEOUT_S = 60.0
HANGUP_GRACE_S = 1.0

_PR_SET_PDEATHSIG = 1


class Worker:
    """Answers the operations of the protocol, one after the other."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._session: Session | None = None
        self._round: dict[str, Any] = {}
        self._raw: RawRound | None = None
        self._profiler: Profiler | None = None  # of the next round
        self._operations: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
            "open": self._open,
            "prepare": self._prepare,
            "run": self._run,
            "fetch": self._fetch,
            "profile": self._profile,
            "profiled": self._profiled,
        }

    def greet(self) -> None:
        """Say who is there, before anything is asked."""
        self._send("hello", protocol=PROTOCOL_VERSION, python=platform.python_version(), pid=os.getpid())

    def answer(self, op: str, body: Mapping[str, Any]) -> None:
        """Do one operation. What goes wrong is an answer, too."""
        try:
            if op not in self._operations:
                raise WorkerError(
                    f"The worker does not know the operation {op!r}: harness and worker differ in version."
                )
            self._operations[op](body)
        except Exception as error:  # the one edge: the harness decides what an error means
            sys.excepthook(type(error), error, error.__traceback__)  # to the log, with the place
            write_message(self._write, "error", error_body(error))

    def close(self) -> None:
        """Close the session, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def closed(self) -> None:
        """Say that everything is closed."""
        self._send("closed")

    def _open(self, body: Mapping[str, Any]) -> None:
        self.close()
        self._session = open_session(body["runtime"], body["options"])
        self._send("opened", facts=dict(self._session.facts()))

    def _prepare(self, body: Mapping[str, Any]) -> None:
        _check_load(self._opened(), body["load"]["kind"])
        self._opened().drain(DRAIN_TIMEOUT_S)
        load, requests = load_from_json(body["load"]), requests_from_json(body["requests"])
        self._round, self._raw = {**body, "load": load, "requests": requests}, None
        self._opened().prepare(self._round["requests"])
        gc.collect()  # now, because rounds run without the collector
        self._send("prepared")

    def _run(self, body: Mapping[str, Any]) -> None:
        session, settings = self._opened(), self._round
        if not settings:
            raise WorkerError("The worker was asked to run before a round was prepared.")
        if self._profiler is not None:
            session = self._profiler.start(session)
        self._raw = run_round(
            session,
            settings["requests"],
            settings["load"],
            settings["stall_timeout_s"],
            self._progress,
            body["start_at_ns"],
        )
        if self._profiler is not None:
            self._profiler.stop()
        window_s = (self._raw.ended_ns - self._raw.started_ns) / 1e9
        self._send("done", makespan_s=window_s, arrivals=len(self._raw.arrivals), given_up=len(self._raw.given_up))

    def _fetch(self, _: Mapping[str, Any]) -> None:
        session, raw, settings = self._opened(), self._raw, self._round
        if raw is None:
            raise WorkerError("The worker was asked for a record before a round was run.")
        session.drain(DRAIN_TIMEOUT_S)
        kept = record(
            session,
            raw,
            round_index=settings["round_index"],
            warmup=settings["warmup"],
            block=settings["block"],
        )
        self._raw = None
        header, blobs = to_frames(kept)
        observed = json.dumps(observations(session), default=str).encode()
        write_message(self._write, "record", header, [*blobs, observed])

    def _profile(self, body: Mapping[str, Any]) -> None:
        from enginebench.measure.profilers import open_profiler

        self._profiler = open_profiler(body["kind"], body["directory"], self._opened())
        self._send("profiling", reason=self._profiler.reason)

    def _profiled(self, _: Mapping[str, Any]) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is None:
            raise WorkerError("The worker was asked for a profile before one was taken.")
        self._send("profile", **profiler.finish())

    def _progress(self, tokens: int, ended: int) -> None:
        self._send("progress", tokens=tokens, ended=ended)

    def _opened(self) -> Session:
        if self._session is None:
            raise WorkerError("The worker has no open session.")
        return self._session

    def _send(self, op: str, **body: Any) -> None:
        write_message(self._write, op, body)


def _check_load(session: Session, kind: str) -> None:
    facts = session.facts()
    loads = facts.get("loads", [kind])
    if isinstance(loads, Sequence) and kind not in loads:
        name = facts.get("adapter", facts.get("runtime"))
        raise SessionError(
            f"The {name} runtime takes whole batches, and no load of kind {kind}: "
            f"choose {' or '.join(map(str, loads))}."
        )


def observations(session: Session) -> Mapping[str, Any]:
    """What the engine itself recorded during the round that ended; empty for a runtime that records nothing."""
    observe: Callable[[], Mapping[str, Any]] | None = getattr(session, "observations", None)
    return observe() if observe else {}


def serve(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
    """Answer until ``close`` or the end of the input; the session is closed in either case."""
    worker = Worker(write)
    worker.greet()
    try:
        while (message := read_message(read)) is not None and message.op != "close":
            worker.answer(message.op, message.body)
    finally:
        worker.close()
    if message is not None:
        worker.closed()


def main() -> None:
    """Take the pipes away from whoever else would use them, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the harness, which decides
    if FOLLOW in os.environ and rank() > 0:
        _follow(json.loads(os.environ[FOLLOW]))
        return
    commands, answers = connect(os.environ[SOCKET]) if SOCKET in os.environ else _private_pipes()
    _die_with_the_harness(commands)
    try:
        serve(commands.read, _writer(answers))
    except BrokenPipeError:
        sys.exit(1)


def _follow(settings: Mapping[str, Any]) -> None:
    """Open the engine's part of this rank; closing it waits until rank 0 closes the whole."""
    _die_with_the_parent()
    open_session(settings["runtime"], settings["options"]).close()


def _writer(stream: BinaryIO) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move standard input and output to descriptors that nobody else knows; 0 and 1 become harmless."""
    commands, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands, answers


def _die_with_the_harness(commands: BinaryIO) -> None:
    """End this process group when the harness goes, also in the middle of a round, and however it went."""
    _die_with_the_parent()
    threading.Thread(target=_end_at_hangup, args=(commands.fileno(),), name="hangup", daemon=True).start()


def _die_with_the_parent() -> None:
    if "--die-with-parent" in sys.argv:  # for a runtime that is stuck in C and lets no other thread run
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_at_hangup(descriptor: int) -> None:
    hangup = select.poll()
    hangup.register(descriptor, 0)  # nothing but the hang-up that poll always reports
    hangup.poll()
    time.sleep(HANGUP_GRACE_S)  # an idle worker sees the end of its input, and closes its session in order
    if os.getpgrp() == os.getpid():  # the harness gives a worker a group of its own; a shell does not
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
