"""Receive stamps that the kernel puts on what a TCP socket reads (``SO_TIMESTAMPNS``), mapped to CLOCK_MONOTONIC.

The stamp is that of the last segment that a read returned, however late the process came to read it. Where the kernel
gives none, the caller falls back on its own clock, and says so.
"""

import socket
import struct
import time

from enginebench import clock

_SO_TIMESTAMPNS = getattr(socket, "SO_TIMESTAMPNS", 35)  # the option and the type of its message; not in every Python
_SOL_SOCKET = int(socket.SOL_SOCKET)  # an enum is slow to compare
_TIMESPEC = struct.Struct("@ll")
_STAMP_BYTES = _TIMESPEC.size
_TRIES = 20  # of reads, until one has a stamp

ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
"""Room that ``recvmsg`` needs for a stamp."""

Ancillary = list[tuple[int, int, bytes]]
"""What ``recvmsg`` returns beside the data."""


def enable(sock: socket.socket) -> bool:
    """Ask for stamps on ``sock``; False when this kernel has none."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def realtime_stamp(ancillary: Ancillary) -> int | None:
    """The stamp (CLOCK_REALTIME, ns) among what ``recvmsg`` returned, or None."""
    for level, kind, data in ancillary:
        if kind == _SO_TIMESTAMPNS and level == _SOL_SOCKET and len(data) == _STAMP_BYTES:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            stamp_ns: int = seconds * 1_000_000_000 + nanoseconds
            return stamp_ns
    return None


def available() -> bool:
    """Whether reads over loopback get stamps. The kernel starts them a moment after the first socket asks."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            return enable(receiver) and any(_is_stamped(sender, receiver) for _ in range(_TRIES))


def _is_stamped(sender: socket.socket, receiver: socket.socket) -> bool:
    sender.send(b".")
    _, ancillary, _, _ = receiver.recvmsg(1, ANCILLARY_BYTES)
    stamped = realtime_stamp(ancillary) is not None
    if not stamped:
        time.sleep(0.005)
    return stamped


class StampMapper:
    """Turns the kernel's stamps into CLOCK_MONOTONIC; watches for steps of the clock, which spoil the mapping."""

    def __init__(self) -> None:
        self._offset = clock.measure_offset()
        self.steps = 0  # seen since the beginning
        self.missing = 0  # reads without a stamp

    def check(self) -> None:
        """Measure the offset again; count a step when it moved."""
        offset = clock.measure_offset()
        if offset.stepped(self._offset):
            self.steps += 1
            self._offset = offset

    def stamp(self, ancillary: Ancillary, read_ns: int) -> int:
        """The kernel's stamp of a read that returned at ``read_ns``; that itself where none can be true."""
        for level, kind, data in ancillary:  # as in realtime_stamp, without a call: this runs for every read
            if kind == _SO_TIMESTAMPNS and level == _SOL_SOCKET and len(data) == _STAMP_BYTES:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                stamp_ns: int = seconds * 1_000_000_000 + nanoseconds - self._offset.offset_ns
                if stamp_ns <= read_ns:
                    return stamp_ns
                self.check()  # received after it was read: the clock stepped
        self.missing += 1
        return read_ns
